"""The drift service itself on the streams: its own partition, reference and comparison, with its fourteen tests and defaults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from drift_streams import AFTER, DAY, ONSET, QUIET, REFERENCE, Mix, Population, ended, mix_at, stream, two_days
from drift_tables import found, wilson
from sluice_drift.domain.comparison import Comparer, Comparison, Detection, Verdict
from sluice_drift.domain.observation import Series
from sluice_drift.domain.partition import Partition, Rules
from sluice_drift.domain.trailing import read_rules

TEXT_FEATURES = ("language", "words", "embedding", "topic", "vocabulary", "variety")
FEATURES = (*(f"{side}.{name}" for side in ("prompt", "answer") for name in TEXT_FEATURES), "answer.tools", "request.outcome")  # fmt: skip
DRIFTS = ("language", "prior", "covariate", "concept", "gradual", "tiny", "refusals", "many refusals", "tools", "many tools")  # fmt: skip
RATE_WINDOWS = 14
"""Windows of a reference where the rate is measured: it is one over references too, so many references and few windows."""
Job = tuple[str, int, int]
"""Scenario, number of the stream, seed."""


@dataclass(frozen=True)
class Told:
    """What the service said of the windows of a stream: alarms, shape (windows,), and p-values by FEATURES, shape (windows, 14).

    A p-value is NaN where there was no test.
    """

    alarms: np.ndarray
    p_values: np.ndarray

    @property
    def first(self) -> str:
        """The feature told first in the first alarm since ONSET; empty when there is none."""
        since = self.alarms[ONSET:]
        return FEATURES[int(np.nanargmin(self.p_values[ONSET + int(np.argmax(since))]))] if since.any() else ""


def jobs(*, quick: bool, seed: int) -> list[Job]:
    """The streams, the quiet ones and those with drift with the texts that the other detectors get."""
    references, streams, seasons = (12, 3, 1) if quick else (600, 16, 4)
    made = [("rate", k, seed + 5_000_000 + k) for k in range(references)]
    made += [(scenario, k, seed + 100 * k) for scenario in ("quiet", *DRIFTS) for k in range(streams)]
    return made + [(s, k, seed + first + k) for s, first in (("seasonal", 11), ("trailing", 13)) for k in range(seasons)]  # fmt: skip


def hear(population: Population, job: Job) -> Told:
    """One stream from its first observation on."""
    scenario, number, seed = job
    rules = Rules(reference_size=REFERENCE, trailing=read_rules("*=5@day" if scenario == "trailing" else ""))
    partition, comparer, told = Partition(0, rules, now=0), Comparer(Detection(), rules.trailing), []
    # The name of a series seeds its shuffles.
    series, rng, offset = Series("acme", f"{scenario}-{number}"), np.random.default_rng((seed, 1)), 0
    for place, (drawn, mix, compared) in enumerate(_windows(population, scenario, seed)):
        texts = ended(population.observations(drawn, offset), mix, rng)
        offset, start = offset + len(drawn), place * rules.length
        partition.absorb([replace(each, series=series, at=start) for each in texts], now=0)
        for due in partition.due(0):
            if compared and due.window.start == start:
                told.append(comparer.compare(due.window, due.reference, due.before))
            partition.mark_published(due)
    return Told(np.array([each.verdict is Verdict.DRIFTED for each in told]), np.array([_p_values(e) for e in told]))


def _windows(population: Population, scenario: str, seed: int) -> Iterator[tuple[np.ndarray, Mix, bool]]:
    """(drawn texts, what tools and outcomes are drawn from, whether it is compared): the reference first."""
    if scenario in ("seasonal", "trailing"):
        for number, drawn in enumerate(two_days(population, seed=seed)):
            yield drawn, QUIET, number >= DAY
        return
    scenario, windows = ("quiet", RATE_WINDOWS) if scenario == "rate" else (scenario, ONSET + AFTER)
    reference, all_drawn = stream(population, scenario, windows, seed=seed)
    yield reference, QUIET, False
    for number, drawn in enumerate(all_drawn):
        yield drawn, mix_at(scenario, number), True


def _p_values(comparison: Comparison) -> list[float]:
    known = {each.name: each.p_value for each in comparison.features if each.p_value is not None}
    return [known.get(name, np.nan) for name in FEATURES]


def tables(told: Iterable[tuple[Job, Told]]) -> str:
    """Rates without drift, what was found of each drift, and seasons."""
    of: dict[str, list[Told]] = {}
    for (scenario, _, _), each in told:
        of.setdefault(scenario, []).append(each)
    return "\n\n".join([_rate_table(of["rate"]), _drift_table(of), _season_table(of["seasonal"], of["trailing"])])


def _rate_table(quiet: list[Told]) -> str:
    """The alarm, and each test by itself: were its p-values uniform, 1 % of them would be at most 1 %."""
    lines = [
        f"| without drift, {len(quiet)} references of {RATE_WINDOWS} windows each | windows | alarms at 1 %, % of windows | at 5 % |",
        "|---|---|---|---|",
        f"| the service itself | {sum(len(each.alarms) for each in quiet)} | {_rate([e.alarms for e in quiet])} | - |",
    ]
    for number, name in enumerate(FEATURES):
        tested = [each.p_values[np.isfinite(each.p_values[:, number]), number] for each in quiet]
        cells = [_rate([each <= rate for each in tested if len(each)]) for rate in (0.01, 0.05)]
        lines.append(f"| `{name}` by itself | {sum(map(len, tested))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _rate(of_references: list[np.ndarray]) -> str:
    """`rate % (low-high)`, 95 % over the references: windows that share one are not independent."""
    rates = np.array([each.mean() for each in of_references])
    middle, half = rates.mean(), 1.96 * rates.std(ddof=1) / np.sqrt(len(rates))
    return f"{100 * middle:.2f} ({100 * max(0, middle - half):.2f}-{100 * (middle + half):.2f})"


def _drift_table(told: dict[str, list[Told]]) -> str:
    lines = [
        f"| stream | found of {len(told['quiet'])} within {AFTER} windows; median delay | the feature told first |",
        "|---|---|---|",
    ]
    for scenario in ("quiet", *DRIFTS):
        firsts = Counter(each.first for each in told[scenario] if each.first)
        named = ", ".join(f"`{name}` {count}" for name, count in firsts.most_common())
        lines.append(f"| {scenario} | {found([each.alarms for each in told[scenario]])} | {named or '-'} |")
    return "\n".join(lines)


def _season_table(pinned: list[Told], trailing: list[Told]) -> str:
    lines = [
        "| a day of seasonal traffic: alarms, % of windows | pinned reference | same hour of the day before |",
        "|---|---|---|",
    ]
    cells = [wilson(int(sum(e.alarms.sum() for e in s)), sum(len(e.alarms) for e in s)) for s in (pinned, trailing)]
    return "\n".join([*lines, f"| the service itself | {' | '.join(cells)} |"])
