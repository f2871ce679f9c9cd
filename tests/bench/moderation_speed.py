"""How many texts a second one core moderates, and how much memory that takes.

    python tests/bench/moderation_speed.py [--texts 2000]

Measures what the service runs for an input: views, windows, both classifiers, policy. One BLAS thread. "a core" counts CPU
seconds of the process, so that other work on the machine does not blur the figure; "wall" is what the clock saw. Medians of
five interleaved rounds.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import time
from collections.abc import Sequence

from sluice_moderation.adapters import detectors
from sluice_moderation.adapters.policy_files import SHIPPED, load_policies
from sluice_moderation.domain.judgement import Judgement
from sluice_moderation.domain.panel import Panel
from sluice_moderation.domain.policy import Direction
from sluice_moderation.domain.sentences import Text, read

ROUNDS = 5
PROSE = (
    "the a of and to in is that for with as on be at by this have from or had not but what some we can out other were all there when "
    "up use your how said each she which do their time if will way about many then them write would like so these her long make thing "
    "see him two has look more day could go come did number sound no most people my over know water than call first who may down side "
    "been now find any new work part take get place made live where after back little only round man year came show every good me give "
    "our under name very through just form sentence great think say help low line differ turn cause much mean before move right boy"
)


def texts_of(words: int, count: int) -> list[str]:
    """Sentences of about twelve words each; the same on every run."""
    seeded, known = random.Random(words), PROSE.split()
    made = []
    for _ in range(count):
        chosen = [seeded.choice(known) for _ in range(words)]
        made.append(" ".join(w + "." if i % 12 == 11 else w for i, w in enumerate(chosen)) + ".")
    return made


def moderate(panel: Panel, judgements: Sequence[Judgement], texts: Sequence[str]) -> None:
    """Score all texts in one call, as the pool does for requests that wait together, and judge each."""
    sentences = [read([Text("a", text)]) for text in texts]
    scored = panel.score([w.text for found in sentences for s in found for w in s.windows], judgements[0].detectors)
    at = 0
    for judgement, found in zip(judgements, sentences, strict=True):
        for sentence in found:
            judgement.add(sentence, scored.part(at, at + len(sentence.windows)))
            at += len(sentence.windows)


def rates(panel: Panel, texts: Sequence[str], batch: int) -> tuple[float, float]:
    """Texts per CPU second and per second on the clock."""
    policy = load_policies(SHIPPED).by_id["general"]
    cpu, wall = time.process_time(), time.perf_counter()
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        moderate(panel, [Judgement(policy, Direction.INPUT, "en", panel) for _ in part], part)
    return len(texts) / (time.process_time() - cpu), len(texts) / (time.perf_counter() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=2000)
    count = parser.parse_args().texts
    panel = detectors.load().panel
    cases = [
        (words, batch, texts_of(words, max(count * 12 // max(words, 12) // (4 if batch == 1 else 1), 20)))
        for words in (12, 100, 500)
        for batch in (1, 32)
    ]
    found: dict[tuple[int, int], list[tuple[float, float]]] = {(words, batch): [] for words, batch, _ in cases}
    for _ in range(ROUNDS):
        for words, batch, texts in cases:
            found[words, batch].append(rates(panel, texts, batch))
    print("| words | texts at once | texts/s a core | texts/s wall | ms/text |\n|---|---|---|---|---|")
    for (words, batch), measured in found.items():
        cpu, wall = (statistics.median(m[i] for m in measured) for i in (0, 1))
        print(f"| {words} | {batch} | {cpu:,.0f} | {wall:,.0f} | {1000 / cpu:.2f} |")
    print(f"\nPeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
