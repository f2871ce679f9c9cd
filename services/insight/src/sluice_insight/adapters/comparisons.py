"""The newest drift and fairness measurements, from their events."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from google.protobuf.message import Message
from sluice.events.v1.drift_pb2 import DRIFT_VERDICT_INSUFFICIENT, DriftMeasured
from sluice.events.v1.fairness_pb2 import FairnessMeasured
from sluice.events.v1.probe_pb2 import ProbeMeasured

from sluice_insight.adapters import name_origins
from sluice_insight.domain.latest import Latest
from sluice_insight.domain.name_origins import NameOrigins

MOST_DRIFT = 5_000
"""Series kept; one takes about 3 KB."""
MOST_FAIRNESS = 50_000
"""Measurements kept; one takes about 0.5 KB."""
LONG_SECONDS = 600
"""Windows of at least so many seconds count as long ones."""


@dataclass(frozen=True)
class DriftComparison:
    """One series' newest window. A window that said something is not replaced by one that is too small to say anything."""

    event: DriftMeasured

    @cached_property
    def key(self) -> tuple[str, ...]:
        says = self.event.verdict != DRIFT_VERDICT_INSUFFICIENT
        series = self.event.series
        return (*(value for _, value in _fields(series)), "says" if says else "insufficient")

    @cached_property
    def rank(self) -> tuple[int, int, bool]:
        return _start(self.event), self.event.part.revision, self.event.part.closed


@dataclass(frozen=True)
class FairnessMeasurement:
    """One metric of one group, in its newest window of one length."""

    event: FairnessMeasured

    @cached_property
    def is_long(self) -> bool:
        return self.event.window.length.seconds >= LONG_SECONDS

    @cached_property
    def key(self) -> tuple[str, ...]:
        event = self.event
        series = tuple(value for _, value in _fields(event.series))
        return (*series, event.policy, event.attribute, event.metric, event.group, "long" if self.is_long else "short")

    @cached_property
    def rank(self) -> tuple[int, int, bool]:
        return _start(self.event), self.event.revision, True


class Comparisons:
    """What is known of both, and of the names that the self-tests sent."""

    def __init__(self, *, most_drift: int = MOST_DRIFT, most_fairness: int = MOST_FAIRNESS) -> None:
        self.drift: Latest[DriftComparison] = Latest(most_drift)
        self.fairness: Latest[FairnessMeasurement] = Latest(most_fairness)
        self.name_origins = NameOrigins()

    def take(self, event: Message) -> None:
        """Keeps an event that is one of these. Reading it again changes nothing, but a round of self-tests must come once."""
        if isinstance(event, DriftMeasured):
            self.drift.put(DriftComparison(event))
        elif isinstance(event, FairnessMeasured):
            self.fairness.put(FairnessMeasurement(event))
        elif isinstance(event, ProbeMeasured):
            name_origins.take(self.name_origins, event)

    def of_name_origins(self, *, long_windows: bool) -> list[FairnessMeasurement]:
        """Recall by name origin, over the hour or the minute up to the newest round."""
        found = name_origins.measurements(self.name_origins, long_windows=long_windows)
        return [FairnessMeasurement(event) for event in found]


def _fields(series: Message) -> list[tuple[str, str]]:
    return [(field.name, getattr(series, field.name)) for field in series.DESCRIPTOR.fields]


def _start(event: DriftMeasured | FairnessMeasured) -> int:
    return event.window.start.ToMicroseconds()
