"""What drift and fairness found, and the charts of it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from sluice_console.domain.charts import Chart, Line
from sluice_console.domain.looking_back import KeptWindow

T = TypeVar("T")
MOST_BINS = 24
RECALL_BY_ORIGIN = "pii_recall_by_name_origin"
"""Measured by the self-test probes, of seeded names."""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A list that may be longer than what is shown."""

    items: Sequence[T]
    left_out: int
    newest_at: datetime | None
    next_page: str = ""
    """What gets the rest; empty where there is none."""
    older: int = 0
    """How many there are besides, of before the time that was asked for."""
    complete_up_to: datetime | None = None
    windows: Sequence[KeptWindow] = ()
    """That can be looked back to, the newest first."""


@dataclass(frozen=True, slots=True)
class Feature:
    """How one feature of the texts differs from the reference."""

    name: str
    statistic: str
    value: float
    p_value: float | None
    psi: float | None
    js: float | None
    verdict: str
    bins: Sequence[str]
    counts: Sequence[int]
    reference_counts: Sequence[int]
    largest_change: str
    trailing_windows: int = 0
    """How many windows before it is compared with in place of the reference; 0: the reference."""
    trailing_gap: int = 0
    """Windows between it and the newest of these."""

    @property
    def compared_with(self) -> str:
        """In words."""
        if not self.trailing_windows:
            return "the reference"
        if self.trailing_gap:
            return f"{self.trailing_windows} windows around the same time of the day before"
        return "the window before" if self.trailing_windows == 1 else f"the {self.trailing_windows} windows before"

    @property
    def title(self) -> str:
        """`Prompt: language`."""
        return feature_title(self.name)

    @property
    def chart(self) -> Chart | None:
        """Shares by bin, beside the reference's; None for what has no bins. The bins that moved most, when there are many."""
        if not self.bins:
            return None
        shares, before = _shares(self.counts), _shares(self.reference_counts)
        order = sorted(range(len(self.bins)), key=lambda i: _lower_end(self.bins[i]))
        if len(order) > MOST_BINS:
            moved = set(sorted(order, key=lambda i: -abs(shares[i] - before[i]))[:MOST_BINS])
            order = [i for i in order if i in moved]
        left = len(self.bins) - len(order)
        return Chart(
            f"feature-{self.name.replace('.', '-')}", self.title, "bars", "share", [self.bins[i] or "(none)" for i in order],
            [
                Line(self.compared_with.removeprefix("the "), [before[i] for i in order], "calm"),
                Line("this window", [shares[i] for i in order], "warn" if self.verdict == "drifted" else "main"),
            ],
            note=f"the {len(order)} bins that moved most of {len(self.bins)}" if left else "",
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """A slice that explains a part of a feature's change; shares of one feature and dimension add up to 1."""

    feature: str
    dimension: str
    slice: str
    share: float
    mix_share: float
    within_share: float
    window_share: float
    reference_share: float
    explained: float

    @property
    def how(self) -> str:
        """In words: what happened to the slice."""
        if self.reference_share == 0:
            return "is new"
        if self.window_share == 0:
            return "is gone"
        if abs(self.mix_share) >= abs(self.within_share):
            return "became more" if self.window_share > self.reference_share else "became less"
        return "changed within"


@dataclass(frozen=True, slots=True)
class DriftedSeries:
    """One series in its newest window."""

    tenant: str
    model: str
    start: datetime
    length: timedelta
    closed: bool
    verdict: str
    observations: int
    reference_version: int
    reference_observations: int
    reference_from: datetime | None
    reference_until: datetime | None
    false_alarm_rate: float
    features: Sequence[Feature]
    causes: Sequence[Cause] = ()
    """By feature, the most telling dimension first, the largest share first."""
    reference_requests: int = 0

    @property
    def has_texts(self) -> bool:
        """False where no text ever came under this name: an alias whose requests ended before a model was reached."""
        return bool(self.observations or self.reference_observations)

    @property
    def requests(self) -> int:
        """Requests of the window of which it is compared how they ended."""
        return sum(sum(feature.counts) for feature in self.features if feature.name == "request.outcome")

    @property
    def moved(self) -> str:
        """In words: what moved most."""
        first = next((feature for feature in self.features if feature.verdict == "drifted"), None)
        if first is None:
            return ""
        return f"{first.title}, most at {first.largest_change}" if first.largest_change else first.title


@dataclass(frozen=True, slots=True)
class GroupMeasurement:
    """One metric of one group in one window."""

    tenant: str
    project: str
    model: str
    policy: str
    attribute: str
    metric: str
    group: str
    start: datetime
    length: timedelta
    verdict: str
    samples: int
    value: float
    lower: float
    upper: float
    reference: str
    difference: float | None
    difference_lower: float | None
    difference_upper: float | None
    ratio: float | None
    adjusted_p_value: float | None
    below_four_fifths: bool
    trend: float | None
    """Change of the value an hour, over the window's minutes."""
    trend_lower: float | None
    trend_upper: float | None

    @property
    def course(self) -> str:
        """`rising` or `falling` where the 95 % interval of the trend says so, else nothing."""
        if self.trend_lower is not None and self.trend_lower > 0:
            return "rising"
        return "falling" if self.trend_upper is not None and self.trend_upper < 0 else ""

    @property
    def is_share(self) -> bool:
        """True for what is between 0 and 1."""
        return self.metric.endswith("_rate") or self.metric == RECALL_BY_ORIGIN

    @property
    def series(self) -> tuple[str, str, str, str]:
        """Whose it is: tenant, project, model, policy."""
        return self.tenant, self.project, self.model, self.policy


def feature_title(name: str) -> str:
    """`prompt.language` as `Prompt: language`."""
    side, _, what = name.partition(".")
    return f"{side.capitalize()}: {what.replace('_', ' ').replace('.', ' ')}"


def groups_chart(measurements: Sequence[GroupMeasurement], title: str, *, number: int) -> Chart | None:
    """Values by group with their 95 % intervals; groups of which too little is known say nothing."""
    known = [one for one in measurements if one.group and one.verdict != "insufficient"]
    if not known:
        return None
    return Chart(
        f"groups-{number}", title, "range", "share" if known[0].is_share else "count", [one.group.replace("_", " ") for one in known],
        [
            Line("lower end", [one.lower for one in known], "calm"),
            Line("value", [one.value for one in known], "main"),
            Line("upper end", [one.upper for one in known], "calm"),
        ],
        note="bars are 95 % intervals",
    )  # fmt: skip


def _lower_end(bin_: str) -> int:
    """Of `16-31`; bins that are words stay in their order, after those."""
    first = bin_.partition("-")[0].rstrip("+")
    return int(first) if first.isascii() and first.isdigit() else sys.maxsize


def _shares(counts: Sequence[int]) -> list[float]:
    whole = sum(counts)
    return [count / whole if whole else 0.0 for count in counts]
