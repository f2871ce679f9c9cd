"""What processors publish: one partition's share of one series in one window."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from sluice_insight.domain.sketch import Sketch

DIMENSIONS = (
    "tenant_id", "project_id", "model", "route", "prompt_version", "experiment_arm", "redaction_policy",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Series:
    """Whose numbers these are. Empty means: not split by this, or unknown."""

    tenant_id: str = ""
    project_id: str = ""
    model: str = ""
    route: str = ""
    prompt_version: str = ""
    experiment_arm: str = ""
    redaction_policy: str = ""
    """Of self-tests' seeded values alone."""


@dataclass(slots=True)
class Totals:
    """Sums that merge: counts by name (`requests.failed`, `feedback.positive`, ...) and sketches by name."""

    counts: Counter[str] = field(default_factory=Counter)
    sketches: dict[str, Sketch] = field(default_factory=dict)

    def merge(self, other: Totals) -> None:
        """Add the other's sums. A Counter's own + would drop what is negative (retractions)."""
        for name, count in other.counts.items():
            self.counts[name] += count
        for name, sketch in other.sketches.items():
            self.sketches.setdefault(name, Sketch(sketch.relative_accuracy)).merge(sketch)


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that was computed where it was measured and cannot be merged (drift)."""

    value: float | None
    sample_count: int
    verdict: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A share of a window. Times in microseconds; the highest (revision, closed) of a key is the truth."""

    key: str
    family: str
    """`quality`, `drift`, `fairness`, `cost` or `probe`."""
    series: Series
    start: int
    length: int
    partition: int
    revision: int
    closed: bool
    complete_up_to: int = 0
    totals: Totals = field(default_factory=Totals)
    readings: Mapping[str, Reading] = field(default_factory=dict)
    """Drift: metric name to value."""
    causes: Mapping[str, float] = field(default_factory=dict)
    """Drift: which slices explain the feature that moved most, `dimension=slice`, with their shares."""

    @property
    def rank(self) -> tuple[int, bool]:
        """Orders the versions of a part."""
        return self.revision, self.closed
