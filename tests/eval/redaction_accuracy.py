"""How much personal data redaction finds and how much else it takes with it, beside stock Presidio on the same texts.

    python tests/eval/redaction_accuracy.py [--quick] [--rounds 10] [--seed 2026] [--only held_out] [--findings FILE]

Writes docs/filters/redaction-accuracy.md; with --quick only prints. `--findings` appends what was missed and wrongly taken
in the development set to a file, for those who work on it.
"""

import argparse
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from filters import pages
from filters.disguises import DISGUISES, disguised, in_json, in_two_messages
from filters.families import FAMILIES, family_of_finding
from filters.pages import share, table
from filters.redactors import (
    SPACY_MODEL,
    Redactor,
    in_parts,
    modes,
    sluice,
    sluice_in_parts,
    sluice_streamed,
    stock_presidio,
)
from filters.samples import Gold, Sample, samples
from filters.scores import Score, share_interval

SETS = {"dev": "development", "held_out": "held out", "public": "presidio-evaluator's templates"}
STOCK, OURS = "stock Presidio", "Sluice"


class Bench:
    """The systems, and the scores of each on each set."""

    def __init__(self, *, rounds: int, seed: int, with_modes: bool) -> None:
        self.rounds, self.seed = rounds, seed
        self.systems: dict[str, Redactor] = {STOCK: stock_presidio()}
        loaded = {name: load() for name, load in list(modes().items())[: None if with_modes else 1]}
        self.systems |= {name: sluice(detector) for name, detector in loaded.items()}
        first = loaded[OURS]
        self.systems[f"{OURS}, streamed"] = sluice_streamed(first)
        self.in_parts = sluice_in_parts(first)
        self._with_urls = sluice(first, urls=True)

    def find(self, system: str, sample: Sample) -> Redactor:
        """URLs are asked for only where some are to be found: whether they are replaced is a matter of policy."""
        urls = system == OURS and any(one.kind == "URL" for one in sample.gold)
        return self._with_urls if urls else self.systems[system]

    def score(self, system: str, texts: Sequence[Sample]) -> Score:
        score = Score(texts)
        for at, sample in enumerate(texts):
            score.add(at, self.find(system, sample)(sample.text))
        return score


def _four(score: Score, level: str, family: str | None = None) -> list[str]:
    rates = score.rates(level, family)
    return [share(rates.precision), share(rates.recall), share(rates.f(1)), share(rates.f(2))]


def _interval(score: Score, level: str, beta: float) -> str:
    low, high = score.interval(lambda weights: score.rates(level, weights=weights).f(beta))
    return f"{low:.3f}-{high:.3f}"


def totals(scores: dict[str, Score], alarms: dict[str, tuple[float, float]]) -> str:
    rows = []
    for name, score in scores.items():
        cells = [cell for level in ("exact", "overlap") for cell in _four(score, level)]
        chars = [*_four(score, "chars"), _interval(score, "chars", 1)]
        false = [f"{alarms[name][0]:.1f}", f"{alarms[name][1]:.1%}"] if name in alarms else ["-", "-"]
        rows.append([name, *cells, *chars, share(score.covered()), *false])
    header = ["system"] + [f"{level} {m}" for level in ("exact", "overlap", "chars") for m in ("P", "R", "F1", "F2")]
    header += ["chars F1 95 %", "values wholly covered", "false alarms / 1,000 words", "negatives with one"]
    return table(header, rows)


def by_family(ours: Score, stock: Score) -> str:
    rows = []
    for family in FAMILIES:
        if not ours.count("gold", family) and not ours.count("found", family):
            continue
        other = stock.rates("overlap", family)
        rows.append(
            [family, ours.count("gold", family)]
            + [cell for level in ("exact", "overlap", "chars") for cell in _four(ours, level, family)]
            + [share(other.precision), share(other.recall), share(other.f(1))]
        )
    header = ["kind", "values"] + [
        f"{level} {m}" for level in ("exact", "overlap", "chars") for m in ("P", "R", "F1", "F2")
    ]
    return table([*header, "stock overlap P", "R", "F1"], rows)


def by_group(ours: Score, stock: Score, group: Callable[[Sample, Gold], str | None], title: str) -> str:
    """Recall by a group of the values: covered as a whole, and also found as what it is."""
    hits: dict[str, list[list[bool]]] = defaultdict(lambda: [[], [], [], []])
    for column, score in ((0, ours), (2, stock)):
        for at, gold, _, overlap, covered in score.values:
            key = group(score.samples[at], gold)
            if key:
                hits[key][column].append(covered)
                hits[key][column + 1].append(overlap)
    rows = []
    for key, (mine, right, theirs, _) in sorted(hits.items(), key=lambda item: sum(item[1][0]) / len(item[1][0])):
        low, high = share_interval(mine)
        found = [share(sum(one) / len(one)) for one in (mine, right, theirs)]
        rows.append([key, len(mine), found[0], f"{low:.2f}-{high:.2f}", *found[1:]])
    return table([title, "values", "Sluice covers", "95 %", "of its kind", "stock covers"], rows)


def disguises(bench: Bench, texts: Sequence[Sample]) -> str:
    rows = []
    for disguise in DISGUISES:
        chance = random.Random(bench.seed)
        changed = [one for sample in texts if (one := disguised(sample, disguise, chance)) is not None]
        rows.append([disguise.name, *_recalls(bench, changed)])
    rows.append(["over two messages of a request", *_split_recalls(bench, texts)])
    rows.append(["inside a JSON string", *_recalls(bench, [in_json(one) for one in texts])])
    return table(["disguise", "values", "Sluice covers", "Sluice, streamed", "stock covers"], rows)


def _recalls(bench: Bench, texts: Sequence[Sample]) -> list[object]:
    scores = [bench.score(name, texts) for name in (OURS, f"{OURS}, streamed", STOCK)]
    return [scores[0].count("gold"), *(share(one.covered()) for one in scores)]


def _split_recalls(bench: Bench, texts: Sequence[Sample]) -> list[object]:
    split = [one for sample in texts if (one := in_two_messages(sample)) is not None]
    cells: list[object] = [len(split)]
    for find in (bench.in_parts, None, in_parts(bench.systems[STOCK])):
        if find is None:
            cells.append("-")  # a stream has one text
            continue
        score = Score([sample for sample, _ in split])
        for at, (sample, cut) in enumerate(split):
            score.add(at, find([sample.text[:cut], sample.text[cut:]]))
        cells.append(share(score.covered()))
    return cells


def headline(scores: dict[str, Score], alarms: dict[str, tuple[float, float]]) -> str:
    """For the README: the held-out totals."""
    rows = []
    for name, score in scores.items():
        cells = [share(score.rates(level).f(1)) for level in ("exact", "overlap", "chars")]
        rows.append([name, *cells, share(score.covered()), f"{alarms[name][0]:.1f}"])
    header = [
        "held-out texts",
        "F1 exact spans",
        "F1 overlapping",
        "F1 characters",
        "values wholly covered",
        "false alarms / 1,000 words without personal data",
    ]
    return table(header, rows)


def false_alarms(bench: Bench, system: str, texts: Sequence[Sample]) -> tuple[float, float]:
    """(false alarms per 1,000 words, part of the texts that have one)."""
    score = bench.score(system, texts)
    words = sum(len(one.text.split()) for one in texts)
    return 1000 * len(score.false) / words, len({at for at, _ in score.false}) / len(texts)


def misses(score: Score) -> list[str]:
    """Kind by kind, what of the development set is missed or wrongly taken, with a template each."""
    missed: dict[str, Counter[int]] = defaultdict(Counter)
    total: Counter[str] = Counter()
    for at, gold, _, overlap, covered in score.values:
        total[gold.kind] += 1
        if not (overlap and covered):
            missed[gold.kind][at] += 1
    lines = []
    for kind, places in sorted(missed.items(), key=lambda item: -sum(item[1].values()) / total[item[0]]):
        lines.append(f"* {kind}: {sum(places.values())} of {total[kind]} missed or of the wrong kind, such as")
        seen: set[int] = set()
        for at in places:
            sample = score.samples[at]
            if sample.template not in seen and len(seen) < 4:
                seen.add(sample.template)
                lines.append(f"    - ({sample.case}) {sample.text[:160]!r}")
    taken = Counter(
        (family_of_finding(span.kind), score.samples[at].text[span.start : span.end][:60]) for at, span in score.false
    )
    lines += [f"* wrongly taken as {family}: {text!r} ({n}x)" for (family, text), n in taken.most_common(40)]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two rounds, no disguises, nothing written")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--findings", type=Path)
    asked = parser.parse_args()
    begun = time.monotonic()
    rounds = 1 if asked.quick else asked.rounds
    bench = Bench(rounds=rounds, seed=asked.seed, with_modes=not asked.quick)
    parts = [
        pages.origin(
            "make eval-filters",
            ["presidio-analyzer", "spacy", SPACY_MODEL.replace("_", "-"), "faker"],
            rounds=rounds,
            seed=asked.seed,
        ),
        EXPLANATION,
    ]
    told = ""
    for name in [asked.only] if asked.only else SETS:
        section, summary = _set(bench, name, asked.findings)
        parts += section
        told = summary if name == "held_out" else told
    if not asked.quick and not asked.only:
        sub = samples("dev", rounds=1, seed=asked.seed) + samples("held_out", rounds=1, seed=asked.seed)
        parts += ["## Disguises (development and held-out texts, one round)", disguises(bench, sub)]
    parts.append(f"Took {time.monotonic() - begun:.0f} s.")
    if asked.quick or asked.only:
        print("\n\n".join(parts))
    else:
        pages.write("redaction-accuracy", "Redaction: accuracy", parts)
        pages.summarise("redaction", "redaction-accuracy", told)


def _set(bench: Bench, name: str, findings: Path | None) -> tuple[list[str], str]:
    """The section of a set, and its main numbers for the README."""
    texts = samples(name, rounds=max(1, bench.rounds // 2) if name == "public" else bench.rounds, seed=bench.seed)
    scores = {system: bench.score(system, texts) for system in bench.systems}
    alarms = {}
    if name != "public":
        negatives = samples(f"negatives_{name}", rounds=bench.rounds, seed=bench.seed)
        alarms = {system: false_alarms(bench, system, negatives) for system in bench.systems}
        if findings and name == "dev":
            wrong = bench.score(OURS, negatives)
            findings.write_text(
                "\n".join([*misses(scores[OURS]), "Negatives:", *misses(wrong)]) + "\n", encoding="utf-8"
            )
    ours, stock = scores[OURS], scores[STOCK]
    parts = [f"## {SETS[name].capitalize()}: {len(texts)} texts, {ours.count('gold')} values", totals(scores, alarms)]
    parts += ["### By kind", by_family(ours, stock)]
    if name != "public":
        parts += ["### Recall in detail", by_group(ours, stock, lambda _, g: g.kind, "value")]
        parts += [by_group(ours, stock, lambda s, _: s.register, "register")]
        parts += [by_group(ours, stock, lambda s, g: f"names, {s.case}" if g.kind == "PERSON" else None, "case")]
        parts += [by_group(ours, stock, lambda _, g: g.origin or None, "origin of the name")]
    return parts, headline(scores, alarms) if alarms else ""


EXPLANATION = """
Texts: templates filled by Faker and our own generators (`tests/eval/filters`) with people of 22 origins in 11 countries. `held out`: other
templates, sentence forms and formats than `development`; nobody tunes on it. P, R: precision and recall; F2 counts recall twice. *exact*: same
kind and same ends. *overlap*: a finding touches a value of its kind; half of the value is covered. *chars*: letters and digits, by whatever kind
they were covered. Places, organisations and dates by themselves are a matter of policy: they count neither way, and stock Presidio's findings of
these kinds count where they cover an address or a birth and are never held against it. Intervals: 500 bootstrap samples of texts;
Wilson's for shares.
"""

if __name__ == "__main__":
    main()
