"""Rules: what makes an alert, how long it must last, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Template

from sluice_insight.domain.board import MINUTE

SEVERITIES = ("info", "warning", "critical")
PLURALS = {
    "tenant_id": "tenants",
    "model": "models",
    "route": "routes",
    "project_id": "projects",
    "prompt_version": "prompt versions",
    "experiment_arm": "experiment arms",
    "redaction_policy": "redaction policies",
    "producer": "producers",
    "topic": "topics",
    "policy": "policies",
}
"""Labels that a series over all of them goes without, and how all of them are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The metric over the window is above (or below) a value."""

    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """True when the value is on the wrong side."""
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The metric differs from itself `earlier` microseconds before, over a window of `baseline`."""

    earlier: int
    baseline: int
    rises_by: float | None = None
    """Difference."""
    falls_by: float | None = None
    rises_to: float | None = None
    """Factor of the earlier value."""

    def holds(self, value: float, before: float) -> bool:
        """True when it rose or fell by as much. A factor of nothing is never reached: use a difference there."""
        return (
            (self.rises_by is not None and value - before > self.rises_by)
            or (self.falls_by is not None and before - value > self.falls_by)
            or (self.rises_to is not None and before > 0 and value > before * self.rises_to)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Burn:
    """One pair of windows: over both, the error budget burns more than `factor` times as fast as it may."""

    long: int
    short: int
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnRate:
    """The share of what is bad uses the budget `1 - objective` too fast, over both windows of any pair."""

    objective: float
    pairs: tuple[Burn, ...]

    def limit(self, burn: Burn) -> float:
        """The share of what is bad that is too much."""
        return burn.factor * (1 - self.objective)


RETIRED = 7 * 24 * 60 * MINUTE
"""Longer than a weekend, a strike or most holidays; and as long as the longest silence, so that one covers all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """A series that was there in the time `lookback` before the window is not there in the window; from then on, that it is not there."""

    lookback: int
    retired_after: int = RETIRED
    """A series of which there was nothing for so long after it was told of is no more, and no longer absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingEvents:
    """More events than this of one producer are missing on one topic."""

    above: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetters:
    """More events than this of one topic were given up in the window."""

    above: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disparity:
    """A group's rate differs from the reference's after the correction for many tests, and is below this part of it."""

    rate: str
    """In Fairlearn's names, such as `selection_rate`."""
    ratio_below: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standstill:
    """Events wait for a group of consumers, and its position on their partition has not moved for the window."""

    groups: tuple[str, ...]


Condition = Threshold | Change | BurnRate | Absence | MissingEvents | DeadLetters | Disparity | Standstill
BY_THE_CLOCK = (MissingEvents, DeadLetters, Standstill)
"""They look at the mesh, not at event time, which what is missing holds back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. Times in microseconds."""

    name: str
    condition: Condition
    severity: str
    summary: str
    metric: str = ""
    window: int = MINUTE
    group_by: tuple[str, ...] = ()
    filters: Mapping[str, frozenset[str]] = field(default_factory=dict)
    min_samples: int = 1
    lasts: int = 0
    """The condition must hold for so long before it fires."""
    keeps: int = 0
    """It stays firing for so long after the condition held last."""
    runbook: str = ""

    @property
    def looks_back(self) -> int:
        """How far before the moment that is judged minutes are needed, in microseconds."""
        match self.condition:
            case Change(earlier=earlier, baseline=baseline):
                return max(self.window, earlier + baseline)
            case BurnRate(pairs=pairs):
                return max(pair.long for pair in pairs)
            case Absence(lookback=lookback):
                return self.window + lookback
            case Threshold():
                return self.window
            case MissingEvents() | DeadLetters() | Disparity() | Standstill():
                return 0

    def say(self, labels: Mapping[str, str], value: float | None) -> str:
        """The summary. What the series has no label of is said in words; names that no rule knows stay as they are written."""
        told = "nothing" if value is None else f"{value:.4g}"
        named = {name: labels.get(name) or self._without(name) for name in (*PLURALS, *self.group_by, *labels)}
        return Template(self.summary).safe_substitute(named, value=told, rule=self.name, metric=self.metric)

    def _without(self, name: str) -> str:
        # Grouped by it, the series is of what has none; not grouped by it, the series is of all of them.
        one = name.removesuffix("_id").replace("_", " ")
        return f"no {one}" if name in self.group_by or name not in PLURALS else f"all {PLURALS[name]}"
