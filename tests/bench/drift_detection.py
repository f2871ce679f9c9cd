"""How often drift detectors alarm without drift, how soon with it, and what they miss; Evidently and river beside them.

    make bench-drift [QUICK=1]        (python tests/bench/drift_detection.py [--quick] [--seasons] [--seed 2026] [--rivals PYTHON])

Prints tables, and writes them to docs/drift/measured.md unless --quick or --seasons.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from math import sqrt
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from drift_detectors import Measured, decide  # noqa: E402
from drift_streams import (  # noqa: E402
    AFTER,
    DAY,
    ONSET,
    REFERENCE,
    WINDOW,
    Population,
    stream,
    trailing_season,
    two_days,
)
from sluice_drift.domain.comparison import Comparer, Detection, Verdict  # noqa: E402
from sluice_drift.domain.partition import Partition, Rules  # noqa: E402
from sluice_drift.domain.trailing import read_rules  # noqa: E402

DRIFTS = ("language", "prior", "covariate", "concept", "gradual", "tiny")
HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "drift" / "measured.md"
_population: Population | None = None


def _prepare(seed: int) -> None:
    global _population
    _population = Population(seed)


def _run(job: tuple[str, str, int, int, bool, bool]) -> tuple[str, dict[str, np.ndarray]]:
    """One stream: (name, scenario, windows, seed, shuffled, dear) to alarms by rule."""
    name, scenario, windows, seed, shuffled, dear = job
    assert _population is not None
    if scenario == "trailing":
        near, drawn = trailing_season(_population, seed=seed)
        rows = [Measured(_population, base, seed=seed).window(w, shuffled=shuffled) for base, w in zip(near, drawn, strict=True)]  # fmt: skip
    else:
        reference, drawn = stream(_population, scenario, windows, seed=seed)
        measured = Measured(_population, reference, seed=seed)
        rows = [measured.window(each, shuffled=shuffled, dear=dear) for each in drawn]
    found = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    itself = {_ITSELF: _service(scenario, seed=seed)} if scenario in ("seasonal", "trailing") else {}
    return name, decide(found, day=DAY) | itself


# These streams have no words, tools or requests: vocabulary, variety, tools and outcome are not compared.
_ITSELF = "the service itself, eight of its fourteen tests, 1 % a window"


def _service(scenario: str, *, seed: int) -> np.ndarray:
    """Alarms of the second of two seasonal days, by the service's own partition, with and without SLUICE_DRIFT_TRAILING="*=5@day"."""
    assert _population is not None
    rules = Rules(reference_size=REFERENCE, trailing=read_rules("*=5@day" if scenario == "trailing" else ""))
    partition, comparer, alarms = Partition(0, rules, now=0), Comparer(Detection(), rules.trailing), []
    for number, drawn in enumerate(two_days(_population, seed=seed)):
        start = number * rules.length
        observed = _population.observations(drawn, number * WINDOW)
        partition.absorb([replace(each, at=start, mark=1 + each.offset) for each in observed], now=0)
        if number >= DAY:
            [due] = [each for each in partition.due(0) if each.window.start == start]
            alarms.append(comparer.compare(due.window, due.reference, due.before).verdict is Verdict.DRIFTED)
        for each in partition.due(0):
            partition.mark_published(each)
    return np.array(alarms)


def jobs(*, quick: bool, seed: int) -> list[tuple[str, str, int, int, bool, bool]]:
    streams, days, many = (3, 2, 4) if quick else (16, 12, 120)
    short = ONSET + AFTER
    made = [(f"{s}.{k}", s, short, seed + 100 * k, True, True) for s in ("quiet", *DRIFTS) for k in range(streams)]
    made += [(f"day.{k}", "quiet", DAY, seed + 7 + 1000 * k, True, False) for k in range(days)]
    made += [(f"day.{k}", "quiet", DAY, seed + 7 + 1000 * k, False, False) for k in range(days, many)]
    made += [(f"seasonal.{k}", "seasonal", DAY, seed + 11 + k, False, False) for k in range(2 if quick else 4)]
    made += [(f"trailing.{k}", "trailing", DAY, seed + 13 + k, False, False) for k in range(1 if quick else 4)]
    return sorted(made, key=lambda job: -job[2] * (1 + 4 * job[4] + 8 * job[5]))


def rivals(python: str, made: list[tuple[str, str, int, int, bool, bool]], population: Population) -> dict[str, dict]:
    """The same streams through drift_rivals.py in its own environment; whole days only the first dozen."""
    arrays = {
        "words": population.words,
        "languages": np.array([each.language or "und" for each in population.profiles]),
        "matrix": population.matrix,
    }
    for name, scenario, windows, seed, shuffled, _ in made:
        if shuffled or scenario == "seasonal":
            arrays[f"{name}.reference"], arrays[f"{name}.windows"] = stream(population, scenario, windows, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        given, told = Path(folder) / "streams.npz", Path(folder) / "alarms.json"
        np.savez(given, **arrays)
        subprocess.run([python, str(HERE / "drift_rivals.py"), str(given), str(told)], check=True, timeout=3600)
        raw = json.loads(told.read_text(encoding="utf-8"))
    return {name: {rule: np.array(alarms) for rule, alarms in rules.items()} for name, rules in raw.items()}


def wilson(hits: int, n: int) -> str:
    """`rate % (low-high)`, 95 %."""
    p, z = hits / n, 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{100 * p:.1f} ({100 * max(0, middle - half):.1f}-{100 * min(1, middle + half):.1f})"


def tables(alarms: dict[str, dict[str, np.ndarray]]) -> str:
    rules = _rules(alarms)
    others = [rule for rule in rules if rule != _ITSELF]
    return "\n\n".join([_quiet_table(alarms, others), _drift_table(alarms, others), _season_table(alarms, rules)])


def seasons(alarms: dict[str, dict[str, np.ndarray]]) -> str:
    return _season_table(alarms, _rules(alarms))


def _rules(alarms: dict[str, dict[str, np.ndarray]]) -> list[str]:
    return list(dict.fromkeys(rule for found in alarms.values() for rule in found))


def _of(alarms: dict[str, dict[str, np.ndarray]], scenario: str, rule: str) -> list[np.ndarray]:
    return [found[rule] for name, found in alarms.items() if name.rsplit(".", 1)[0] == scenario and rule in found]


def _quiet_table(alarms: dict[str, dict[str, np.ndarray]], rules: list[str]) -> str:
    lines = [
        "| without drift | windows | alarms, % of windows | days | days with an alarm, % | alarms in such a day of 288 |",
        "|---|---|---|---|---|---|",
    ]
    for rule in rules:
        days, short = _of(alarms, "day", rule), _of(alarms, "quiet", rule)
        windows = sum(map(len, days + short))
        hits = int(sum(each.sum() for each in days + short))
        bad = sum(bool(each.any()) for each in days)
        daily = f"{len(days)} | {wilson(bad, len(days))} | {np.mean([d.sum() for d in days]):.2f}" if days else "- | - | -"  # fmt: skip
        lines.append(f"| {rule} | {windows} | {wilson(hits, windows)} | {daily} |")
    return "\n".join(lines)


def _drift_table(alarms: dict[str, dict[str, np.ndarray]], rules: list[str]) -> str:
    heads = ("quiet", *DRIFTS)
    streams = len(_of(alarms, "quiet", rules[0]))
    lines = [
        f"| found of {streams} within {AFTER} windows; median delay | {' | '.join(heads)} |",
        "|---" * (len(heads) + 1) + "|",
    ]
    for rule in rules:
        cells = [_found(_of(alarms, scenario, rule)) for scenario in heads]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _found(streams: list[np.ndarray]) -> str:
    first = [int(np.argmax(each[ONSET:])) + 1 for each in streams if each[ONSET:].any()]
    return f"{len(first)}; {np.median(first):.0f}" if first else "0"


def _season_table(alarms: dict[str, dict[str, np.ndarray]], rules: list[str]) -> str:
    lines = ["| a day of seasonal traffic: alarms, % of windows | pinned reference | same hour of the day before |", "|---|---|---|"]  # fmt: skip
    for rule in rules:
        cells = []
        for scenario in ("seasonal", "trailing"):
            found = _of(alarms, scenario, rule)
            cells.append(wilson(int(sum(f.sum() for f in found)), sum(map(len, found))) if found else "-")
        if cells != ["-", "-"]:
            lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _command(args: argparse.Namespace) -> str:
    if args.seasons:
        return f"python tests/bench/drift_detection.py --seasons{' --quick' if args.quick else ''}"
    return f"make bench-drift{' QUICK=1' if args.quick else ''}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--seasons", action="store_true", help="only the streams of seasonal traffic, on the screen")
    parser.add_argument("--rivals", default="", help="Python with evidently and river; empty leaves them out")
    args = parser.parse_args()
    begun, load = time.monotonic(), os.getloadavg()[0]
    made = jobs(quick=args.quick, seed=args.seed)
    if args.seasons:
        made = [job for job in made if job[1] in ("seasonal", "trailing")]
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers, initializer=_prepare, initargs=(args.seed,)) as pool:
        alarms = dict(pool.map(_run, made))
    if args.rivals:
        for name, found in rivals(args.rivals, made, Population(args.seed)).items():
            alarms[name] = {**alarms[name], **found}
    head = (
        f"`{_command(args)}`, seed {args.seed}, {datetime.now(UTC):%Y-%m-%d}, {workers} cores, load "
        f"{load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end, {time.monotonic() - begun:.0f} s. "
        f"Reference {REFERENCE}, window {WINDOW} texts, {DAY} windows a day; intervals are Wilson's, 95 %."
    )
    page = f"# Drift detectors, measured\n\n{head}\n\n{(seasons if args.seasons else tables)(alarms)}\n"
    print(page)
    if not (args.quick or args.seasons):
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
