"""What pages are made of: points of metrics, sums of money, and the parts that could not be had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

DIMENSIONS = (
    "tenant_id", "project_id", "model", "route", "prompt_version", "experiment_arm", "redaction_policy",
)  # fmt: skip
"""What a series may be of, as alerts' labels name it."""


class Away(Exception):
    """A service did not answer; `service` names it, the message is one sentence for the page."""

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(reason)
        self.service, self.reason = service, reason


class TooLate(Away):
    """It did not answer in time: what it was to do may have been done."""


class Refused(Exception):
    """A service will not do it; the message says why, and may be shown."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotThere(Exception):
    """What was asked for is not known, or is another tenant's."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of one metric in one window."""

    metric: str
    unit: str
    series: Mapping[str, str]
    start: datetime
    length: timedelta
    value: float | None
    samples: int = 0
    lower: float | None = None
    upper: float | None = None
    closed: bool = True
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Points:
    """An answer of insight."""

    points: Sequence[Point] = ()
    complete_up_to: datetime | None = None
    is_cut: bool = False
    """True when there were more than were read: sums over these points are too low."""

    def of(self, metric: str) -> list[Point]:
        """The points of one metric, oldest first."""
        return sorted((point for point in self.points if point.metric == metric), key=lambda point: point.start)

    def latest(self, metric: str) -> Point | None:
        """The newest point with a value."""
        return next((point for point in reversed(self.of(metric)) if point.value is not None), None)

    def groups(self, dimension: str) -> list[str]:
        """The values of a dimension, by name; empty ones (not split by it) left out."""
        return sorted({value for point in self.points if (value := point.series.get(dimension, ""))})

    def where(self, dimension: str, value: str) -> Points:
        """Only the points of one value of a dimension."""
        return Points(
            [point for point in self.points if point.series.get(dimension, "") == value],
            self.complete_up_to,
            self.is_cut,
        )


@dataclass(frozen=True, slots=True)
class Amount:
    """Money in integer billionths of a currency."""

    currency: str
    nano_units: int


@dataclass(frozen=True, slots=True)
class SpendGroup:
    """What one group cost."""

    values: Sequence[str]
    amount: Amount
    rows: int
    requests: int
    unpriced: int
    tokens: int


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget and how much of it is used."""

    id: str
    scope: str
    whose: str
    window: str
    is_hard: bool
    limit: Amount
    spent: Amount | None = None
    held: Amount | None = None
    available: Amount | None = None
    ends_at: datetime | None = None

    @property
    def share(self) -> float | None:
        """Spent and held, of the limit; None where the budget is each person's own."""
        if self.spent is None or not self.limit.nano_units:
            return None
        return (self.spent.nano_units + (self.held.nano_units if self.held else 0)) / self.limit.nano_units


@dataclass(frozen=True, slots=True)
class PeriodForecast:
    """What a period will have cost at its end, with the 90 % interval."""

    spent: Amount
    expected: Amount
    lower: Amount
    upper: Amount


@dataclass(frozen=True, slots=True)
class Forecast:
    """Day and month, in one currency."""

    currency: str
    day: PeriodForecast
    month: PeriodForecast
    method: str
    history_hours: int

    @property
    def has_spread(self) -> bool:
        """One hour does not differ from itself: its interval has no width, and would look certain."""
        return self.history_hours > 1


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that holds, or held."""

    id: str
    rule: str
    state: str
    since: datetime | None
    evidence: Point | None
    severity: str = ""
    summary: str = ""
    runbook: str = ""
    causes: Mapping[str, float] = field(default_factory=dict)
    """What moved, with its share."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What it is about: with the rule, which alert it is."""
    silenced_by: tuple[str, ...] = ()
    taken_by: str = ""
    """Who has taken it on; empty where nobody has."""
    taken_for: str = ""
    taken_at: datetime | None = None

    @property
    def exact_labels(self) -> dict[str, str]:
        """Its labels, and empty what its series is not of: a silence of these is of this alert, and not of those of a part of it."""
        return dict.fromkeys(DIMENSIONS, "") | dict(self.labels)

    @property
    def is_open(self) -> bool:
        """Whether anything can be done about it."""
        return self.state in ("pending", "firing")


@dataclass(frozen=True, slots=True)
class Alerts:
    """An answer of insight."""

    alerts: Sequence[Alert] = ()
    """Newest first."""
    complete_up_to: datetime | None = None
    """The moment up to which the rules were judged over all events; None where that instance of insight judges none."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Receivers are not told of alerts of a rule (of any, when it is empty) with these labels; of an empty one, of those without."""

    id: str
    rule: str
    labels: Mapping[str, str]
    set_by: str
    reason: str
    state: str
    starts_at: datetime
    ends_at: datetime

    def is_asked_for(self, *, rule: str, labels: Mapping[str, str], lasts: timedelta, who: str, reason: str) -> bool:
        """Whether it is what a form asks for that was sent before; it began when it came in, a moment after it was asked for."""
        said, asked = (self.rule, self.labels, self.set_by, self.reason), (rule, dict(labels), who, reason)
        return said == asked and abs(self.ends_at - self.starts_at - lasts) < timedelta(minutes=1)

    @property
    def without(self) -> list[str]:
        """Labels that an alert must not have."""
        return [name for name, value in self.labels.items() if not value]


@dataclass(frozen=True, slots=True)
class Source:
    """One producer's events on one topic: does the picture miss any?"""

    topic: str
    producer: str
    missing: int
    lost: int
    complete_up_to: datetime | None


def total(groups: Iterable[SpendGroup]) -> dict[str, int]:
    """Nano-units by currency."""
    sums: dict[str, int] = {}
    for group in groups:
        sums[group.amount.currency] = sums.get(group.amount.currency, 0) + group.amount.nano_units
    return sums
