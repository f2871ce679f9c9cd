"""How often drift detectors alarm without drift, how soon with it, and what they miss; Evidently and river beside them.

    make bench-drift [QUICK=1]            (python tests/bench/drift_detection.py [--quick] [--seasons | --short] [--seed 2026] [--rivals PYTHON])
    make bench-drift-service [QUICK=1]    (... --service-only [--workers N]: the service itself alone, ten minutes of CPU)

Prints tables, and writes them to docs/drift/measured.md unless --quick, --seasons or --short; what was not measured stays there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import drift_service  # noqa: E402
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
)
from drift_tables import found as _found  # noqa: E402
from drift_tables import wilson  # noqa: E402

DRIFTS = ("language", "prior", "covariate", "concept", "gradual", "tiny")
HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "drift" / "measured.md"
DETECTORS, SERVICE = "# Drift detectors, measured", "## The service itself, with all fourteen tests"
"""Titles of the two parts of the page."""
_OVER_REFERENCES = ", of rates without drift over the references"
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
    return name, decide(found, day=DAY)


def _hear(job: drift_service.Job) -> tuple[drift_service.Job, drift_service.Told]:
    assert _population is not None
    return job, drift_service.hear(_population, job)


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


def tables(alarms: dict[str, dict[str, np.ndarray]]) -> str:
    rules = _rules(alarms)
    return "\n\n".join([_quiet_table(alarms, rules), _drift_table(alarms, rules), _season_table(alarms, rules)])


def short(alarms: dict[str, dict[str, np.ndarray]]) -> str:
    rules = _rules(alarms)
    return "\n\n".join([_quiet_table(alarms, rules), _drift_table(alarms, rules)])


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


def _measure_detectors(args: argparse.Namespace) -> str:
    made = jobs(quick=args.quick, seed=args.seed)
    if args.seasons:
        made = [job for job in made if job[1] in ("seasonal", "trailing")]
    if args.short:
        made = [job for job in made if job[2] < DAY]
    with _pool(args) as pool:
        alarms = dict(pool.map(_run, made))
    if args.rivals:
        for name, found in rivals(args.rivals, made, Population(args.seed)).items():
            alarms[name] = {**alarms[name], **found}
    return (seasons if args.seasons else short if args.short else tables)(alarms)


def _measure_service(args: argparse.Namespace) -> str:
    with _pool(args) as pool:
        return drift_service.tables(pool.map(_hear, drift_service.jobs(quick=args.quick, seed=args.seed)))


def _pool(args: argparse.Namespace) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(args.workers, initializer=_prepare, initargs=(args.seed,))


def _part(title: str, command: str, measure: Callable[[argparse.Namespace], str], args: argparse.Namespace) -> str:
    """Tables under their title, with what measured them, when and beside what load."""
    begun, load, busy = time.monotonic(), os.getloadavg()[0], _cpu_seconds()
    measured = measure(args)
    loads = f"load {load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end"
    head = (
        f"`{command}`, seed {args.seed}, {datetime.now(UTC):%Y-%m-%d}, processes: {args.workers} on "
        f"{os.cpu_count()} cores, {loads}, {time.monotonic() - begun:.0f} s, {_cpu_seconds() - busy:.0f} s of CPU. "
        f"Reference {REFERENCE}, window {WINDOW} texts, {DAY} windows a day; intervals, 95 %, are Wilson's"
        f"{_OVER_REFERENCES if title == SERVICE else ''}."
    )
    return f"{title}\n\n{head}\n\n{measured}\n"


def _cpu_seconds() -> float:
    return sum(os.times()[:4])


def _write(parts: list[str]) -> None:
    """Put parts in the place of those with their titles."""
    known = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    first, _, second = known.partition(SERVICE)
    old = {DETECTORS: first.strip(), SERVICE: SERVICE + second if second else ""}
    new = old | {part.split("\n", 1)[0]: part for part in parts}
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n\n".join(each.strip() for each in new.values() if each) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=2026)
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--seasons", action="store_true", help="only the detectors on seasonal traffic, on the screen")
    part.add_argument("--short", action="store_true", help="only the detectors on streams of 42 windows, on the screen")
    part.add_argument("--service-only", action="store_true", help="only the service itself, with all its tests")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; as many as cores")
    parser.add_argument("--rivals", default="", help="Python with evidently and river; empty leaves them out")
    args = parser.parse_args()
    partly = "--seasons" if args.seasons else "--short" if args.short else ""
    quick = "" if not args.quick else " --quick" if partly else " QUICK=1"
    parts = []
    if not args.service_only:
        command = f"python tests/bench/drift_detection.py {partly}" if partly else "make bench-drift"
        parts.append(_part(DETECTORS, command + quick, _measure_detectors, args))
    if not partly:
        parts.append(_part(SERVICE, f"make bench-drift-service{quick}", _measure_service, args))
    print("\n".join(parts))
    if not (args.quick or partly):
        _write(parts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
