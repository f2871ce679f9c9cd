"""What drift and fairness measured, from their events: the newest, and the windows before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from sys import intern
from typing import NamedTuple

from google.protobuf.message import Message
from sluice.events.v1.drift_pb2 import DRIFT_VERDICT_DRIFTED, DRIFT_VERDICT_INSUFFICIENT, DriftMeasured
from sluice.events.v1.fairness_pb2 import FAIRNESS_VERDICT_DISPARATE, FairnessMeasured
from sluice.events.v1.probe_pb2 import ProbeMeasured
from sluice.types.v1.metric_pb2 import MetricSeries

from sluice_insight.adapters import name_origins
from sluice_insight.domain.latest import Latest
from sluice_insight.domain.name_origins import NameOrigins
from sluice_insight.domain.windows import Windows

MOST_DRIFT = 5_000
"""Series kept; one takes about 3 KB."""
MOST_FAIRNESS = 50_000
"""Measurements kept as the newest; one takes about 1.5 KB."""
MOST_LONG_WINDOWS, MOST_SHORT_WINDOWS = 7 * 24, 60
"""Windows of fairness that can be looked back to: a week of hours, an hour of minutes."""
MOST_IN_WINDOWS = 50_000
"""Measurements in the long windows, and as many in the short ones; one takes some 0.6 KB. A series has up to 200 in a window: 250 of its hours."""
MOST_DRIFT_WINDOWS = 24 * 12
"""Windows of drift that can be looked back to: a day of five minutes."""
MOST_IN_DRIFT_WINDOWS = 10_000
"""Comparisons in them; one takes about 3 KB. With more than 34 series there are fewer windows."""
LONG_SECONDS = 600
"""Windows of at least so many seconds count as long ones."""


_SERIES = tuple(field.name for field in MetricSeries.DESCRIPTOR.fields)
TENANT, MODEL = _SERIES.index("tenant_id"), _SERIES.index("model")
"""Places in the key of a comparison of drift."""


@dataclass(frozen=True)
class DriftComparison:
    """One series' newest window. A window that said something is not replaced by one that is too small to say anything."""

    event: DriftMeasured

    @cached_property
    def key(self) -> tuple[str, ...]:
        says = self.event.verdict != DRIFT_VERDICT_INSUFFICIENT
        series = self.event.series
        return (*(getattr(series, name) for name in _SERIES), "says" if says else "insufficient")

    @cached_property
    def rank(self) -> tuple[int, int, bool]:
        return _start(self.event), self.event.part.revision, self.event.part.closed


@dataclass(frozen=True, slots=True)
class KeptComparison:
    """One series in a window that can be looked back to and said something; packed, for of many few are looked at."""

    key: tuple[str, ...]
    rank: tuple[int, int, bool]
    has_drifted: bool
    packed: bytes

    @property
    def event(self) -> DriftMeasured:
        return DriftMeasured.FromString(self.packed)


class FairnessKey(NamedTuple):
    """What is measured, of whom, over which length; in the order in which measurements are listed."""

    tenant_id: str
    project_id: str
    model: str
    route: str
    prompt_version: str
    experiment_arm: str
    policy: str
    attribute: str
    metric: str
    group: str
    length: str


_SERIES_FIELDS = FairnessKey._fields.index("policy")


@dataclass(frozen=True)
class FairnessMeasurement:
    """One metric of one group, in its newest window of one length."""

    event: FairnessMeasured

    @cached_property
    def is_long(self) -> bool:
        return self.event.window.length.seconds >= LONG_SECONDS

    @cached_property
    def key(self) -> FairnessKey:
        event = self.event
        # By name: a series has fields that fairness is not told apart by.
        series = (getattr(event.series, name) for name in FairnessKey._fields[:_SERIES_FIELDS])
        length = "long" if self.is_long else "short"
        # The same few names again and again: each is kept once.
        return FairnessKey(*map(intern, (*series, event.policy, event.attribute, event.metric, event.group, length)))

    @cached_property
    def rank(self) -> tuple[int, int, bool]:
        return _start(self.event), self.event.revision, True


@dataclass(frozen=True, slots=True)
class KeptMeasurement:
    """One metric of one group in a window that can be looked back to; packed, for of many few are looked at."""

    key: FairnessKey
    rank: tuple[int, int, bool]
    is_disparate: bool
    packed: bytes

    @property
    def event(self) -> FairnessMeasured:
        return FairnessMeasured.FromString(self.packed)


class Comparisons:
    """What is known of both, and of the names that the self-tests sent."""

    def __init__(
        self,
        *,
        most_drift: int = MOST_DRIFT,
        most_fairness: int = MOST_FAIRNESS,
        most_in_windows: int = MOST_IN_WINDOWS,
        most_in_drift_windows: int = MOST_IN_DRIFT_WINDOWS,
    ) -> None:
        self.drift: Latest[DriftComparison] = Latest(most_drift)
        self.fairness: Latest[FairnessMeasurement] = Latest(most_fairness)
        self._long_windows: Windows[KeptMeasurement] = Windows(MOST_LONG_WINDOWS, most_in_windows)
        self._short_windows: Windows[KeptMeasurement] = Windows(MOST_SHORT_WINDOWS, most_in_windows)
        self.drift_windows: Windows[KeptComparison] = Windows(MOST_DRIFT_WINDOWS, most_in_drift_windows)
        """Those of drift that can be looked back to."""
        self.name_origins = NameOrigins()

    def take(self, event: Message) -> None:
        """Keeps an event that is one of these. Reading it again changes nothing, but a round of self-tests must come once."""
        self.read(event)()

    def read(self, event: Message) -> Callable[[], None]:
        """Reads an event, and raises what of it cannot be read; what comes back keeps it."""
        if isinstance(event, DriftMeasured):
            drift = DriftComparison(event)
            has_drifted = event.verdict == DRIFT_VERDICT_DRIFTED
            return partial(
                self._keep_drift, drift, KeptComparison(drift.key, drift.rank, has_drifted, event.SerializeToString())
            )
        if isinstance(event, FairnessMeasured):
            one = FairnessMeasurement(event)
            is_disparate = event.verdict == FAIRNESS_VERDICT_DISPARATE
            return partial(
                self._keep_fairness, one, KeptMeasurement(one.key, one.rank, is_disparate, event.SerializeToString())
            )
        if isinstance(event, ProbeMeasured):
            return partial(name_origins.take, self.name_origins, event)
        return _nothing

    def _keep_drift(self, one: DriftComparison, kept: KeptComparison) -> None:
        self.drift.put(one)
        if one.event.verdict != DRIFT_VERDICT_INSUFFICIENT:
            self.drift_windows.put(kept)

    def _keep_fairness(self, one: FairnessMeasurement, kept: KeptMeasurement) -> None:
        self.fairness.put(one)
        self.fairness_windows(are_long=one.is_long).put(kept)

    def fairness_windows(self, *, are_long: bool) -> Windows[KeptMeasurement]:
        """Those that can be looked back to."""
        return self._long_windows if are_long else self._short_windows

    def of_name_origins(self, *, long_windows: bool) -> list[FairnessMeasurement]:
        """Recall by name origin, over the hour or the minute up to the newest round."""
        found = name_origins.measurements(self.name_origins, long_windows=long_windows)
        return [FairnessMeasurement(event) for event in found]


def _nothing() -> None:
    """Of an event that is none of these."""


def _start(event: DriftMeasured | FairnessMeasured) -> int:
    return event.window.start.ToMicroseconds()
