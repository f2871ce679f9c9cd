"""How fast moderation is, in process (one text at a time, and 32) and over gRPC, and how much memory it takes.

    python tests/bench/moderation_speed.py [--quick] [--rounds 5] [--seed 2026]

Writes docs/filters/moderation-speed.md; with --quick only prints. In process: what the service runs for an input of policy `general`
(sentences, windows, views, detectors, rules), one thread, CPU time, medians of interleaved rounds; all texts differ, so nothing
is answered from memory. Over gRPC: the server as it is shipped, Kafka away.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

# One thread each, so that the numbers are per core; to be set before numpy comes in.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "eval"))

import grpc  # noqa: E402
from filters import pages  # noqa: E402
from filters.load import HEADER, measure  # noqa: E402
from filters.pages import table  # noqa: E402
from filters.prose import Prose  # noqa: E402
from filters.servers import server  # noqa: E402
from filters.timing import growth, quantile  # noqa: E402
from sluice.moderation.v1 import moderation_service_pb2 as pb  # noqa: E402
from sluice.moderation.v1 import moderation_service_pb2_grpc as rpc  # noqa: E402
from sluice.types.v1 import verdict_pb2  # noqa: E402
from sluice_moderation.adapters import detectors  # noqa: E402
from sluice_moderation.adapters.policy_files import SHIPPED, load_policies  # noqa: E402
from sluice_moderation.domain.judgement import Judgement  # noqa: E402
from sluice_moderation.domain.panel import Panel  # noqa: E402
from sluice_moderation.domain.policy import Direction  # noqa: E402
from sluice_moderation.domain.sentences import Text, read  # noqa: E402

WORDS = {12: 320, 20: 192, 100: 64, 500: 32, 5000: 4}  # length: texts a round
BATCH = 32


def moderate(panel: Panel, judgements: Sequence[Judgement], texts: Sequence[str]) -> None:
    """Score all texts in one call, as the pool does for requests that wait together, and judge each."""
    sentences = [read([Text("a", text)]) for text in texts]
    scored = panel.score([w.text for found in sentences for s in found for w in s.windows], judgements[0].detectors)
    at = 0
    for judgement, found in zip(judgements, sentences, strict=True):
        for sentence in found:
            judgement.add(sentence, scored.part(at, at + len(sentence.windows)))
            at += len(sentence.windows)


def run(panel: Panel, texts: Sequence[str], batch: int, walls: list[float]) -> float:
    """CPU seconds a text; wall time of every lot goes into `walls`."""
    policy = load_policies(SHIPPED).by_id["general"]
    cpu = time.process_time()
    for start in range(0, len(texts), batch):
        part, begun = texts[start : start + batch], time.perf_counter()
        moderate(panel, [Judgement(policy, Direction.INPUT, "en", panel) for _ in part], part)
        walls.append(time.perf_counter() - begun)
    return (time.process_time() - cpu) / len(texts)


def in_process(panel: Panel, prose: Prose, rounds: int) -> tuple[str, str]:
    """The table, and its main numbers for the README."""
    cases = [(words, batch) for words in WORDS for batch in (1, BATCH)]
    cpu: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    walls: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    run(panel, prose.texts(100, "none", 4), 1, [])  # what is loaded late
    for _ in range(rounds):
        for words, batch in cases:
            count = WORDS[words] if batch > 1 else max(WORDS[words] // 4, 2)
            cpu[words, batch].append(run(panel, prose.texts(words, "none", count), batch, walls[words, batch]))
    rows = []
    for words, batch in cases:
        seconds, wall = median(cpu[words, batch]), walls[words, batch]
        quantiles = (f"{1000 * quantile(wall, share):.2f}" for share in (0.5, 0.99))
        rows.append([words, batch, f"{1 / seconds:,.0f}", f"{1000 * seconds:.3f}", *quantiles])
    costs = {batch: growth([(words, median(cpu[words, batch])) for words in WORDS]) for batch in (1, BATCH)}
    header = ["words", "texts at once", "texts/s per core", "CPU ms a text", "wall p50 ms a call", "wall p99 ms"]
    last = list(WORDS)[-2:]
    rates = [[f"{b} at once", *(f"{1 / median(cpu[words, b]):,.0f}" for words in WORDS)] for b in (1, BATCH)]
    told = table(["texts/s per core", *(f"{words:,} words" for words in WORDS)], rates)
    return (
        f"{table(header, rows)}\n\nGrowth from {last[0]:,} to {last[1]:,} words: exponent {costs[1]:.2f} (1 is linear).",
        told,
    )


async def over_grpc(prose: Prose, quick: bool) -> str:
    rows = []
    with server("moderation") as running:
        async with grpc.aio.insecure_channel(running.target) as channel:
            stub = rpc.ModerationServiceStub(channel)

            async def call(text: str) -> None:
                segments = [pb.ModeratedText(segment_id="0", text=text)]
                await stub.Moderate(pb.ModerateRequest(segments=segments, direction=verdict_pb2.DIRECTION_INPUT))

            for text in prose.texts(100, "none", 5):
                await call(text)
            for words, count in {12: 600, 20: 600, 100: 240, 500: 60}.items():
                for clients in (1, 8, 32):
                    requests = prose.texts(words, "none", count // (10 if quick else 1))
                    rows.append([words, clients, *await measure(running, call, requests, clients)])
        memory = running.memory_mib()
    told = f"Server: {memory:.0f} MiB (proportional set size) after these calls."
    return f"{table(['words', 'clients', *HEADER], rows)}\n\n{told}"


def peak_mib() -> int:
    """Peak MiB of a process that loads the detectors and moderates one text of 500 words."""
    ran = subprocess.run([sys.executable, __file__, "--memory"], check=True, capture_output=True, text=True)
    return int(ran.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, few requests, nothing written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--memory", action="store_true", help="for the command itself")
    asked = parser.parse_args()
    prose, panel = Prose(asked.seed), detectors.load().panel
    if asked.memory:
        run(panel, prose.texts(500, "none", 1), 1, [])
        status = Path("/proc/self/status").read_text().splitlines()
        print(int(next(line for line in status if line.startswith("VmHWM")).split()[1]) // 1024)
        return
    begun, rounds = time.monotonic(), 1 if asked.quick else asked.rounds
    if asked.quick:
        del WORDS[5000]
    alone, told = in_process(panel, prose, rounds)
    parts = [
        pages.origin("make bench-filters", ["numpy", "grpcio"], rounds=rounds, seed=asked.seed),
        (__doc__ or "").split("\n\n")[-1],
        "## In process",
        alone,
        f"Peak memory of a process that moderates 500 words: {peak_mib()} MiB.",
        "## Over gRPC",
        asyncio.run(over_grpc(prose, asked.quick)),
        f"Took {time.monotonic() - begun:.0f} s.",
    ]
    if asked.quick:
        print("\n\n".join(parts))
    else:
        pages.write("moderation-speed", "Moderation: speed", parts)
        pages.summarise("moderation", "moderation-speed", told)


if __name__ == "__main__":
    main()
