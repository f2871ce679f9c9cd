"""Alerts to events and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID, uuid5

from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice.types.v1.metric_pb2 import MetricPoint

from sluice_insight.domain.alerting.states import FIRING, Alert
from sluice_insight.domain.board import Point
from sluice_insight.domain.catalogue import Value
from sluice_insight.domain.part import DIMENSIONS, Series

# Fixed for ever: the same change has the same event id, whichever instance finds it, and however often.
_NAMESPACE = UUID("7d0f0c5e-4d7c-5b52-9d0a-3c0f6a1b7e21")

OWN = "sluice-insight/"
"""How the producers of this service begin."""


def event_of(alert: Alert) -> AlertRaised:
    """The event that an alert's newest change is told by."""
    event = AlertRaised(
        alert_id=alert.alert_id, rule=alert.rule, state=alert.state, severity=alert.severity,
        summary=alert.summary, runbook=alert.runbook, labels=dict(alert.labels), causes=alert.causes,
        silenced_by=alert.silenced_by, never_fired=alert.never_fired,
    )  # fmt: skip
    silenced = "|silenced" if alert.silenced_by and alert.state == FIRING else ""
    event.metadata.event_id = str(uuid5(_NAMESPACE, f"{alert.alert_id}|{alert.state}{silenced}"))
    event.metadata.tenant_id = dict(alert.labels).get("tenant_id", "")
    event.since.FromMicroseconds(alert.since)
    event.changed_at.FromMicroseconds(alert.changed_at)
    if alert.point is not None:
        event.evidence.CopyFrom(evidence_of(alert.point))
    return event


def evidence_of(point: Point) -> MetricPoint:
    """A measurement as contracts have it."""
    value = point.value
    found = MetricPoint(
        metric=point.metric, unit=point.unit, value=value.value, sample_count=value.sample_count, lower=value.lower,
        upper=value.upper, revision=point.revision, closed=point.closed, verdict=point.verdict,
    )  # fmt: skip
    for name in DIMENSIONS:
        setattr(found.series, name, getattr(point.series, name))
    found.window.start.FromMicroseconds(point.start)
    found.window.length.FromMicroseconds(point.length)
    return found


def point_of(evidence: MetricPoint) -> Point:
    """And back. Causes stand beside it in the event."""

    def optional(name: Literal["value", "lower", "upper"]) -> float | None:
        return getattr(evidence, name) if evidence.HasField(name) else None

    return Point(
        metric=evidence.metric, unit=evidence.unit, revision=evidence.revision, closed=evidence.closed, verdict=evidence.verdict,
        series=Series(**{name: getattr(evidence.series, name) for name in DIMENSIONS}),
        start=evidence.window.start.ToMicroseconds(), length=evidence.window.length.ToMicroseconds(),
        value=Value(optional("value"), evidence.sample_count, optional("lower"), optional("upper")),
    )  # fmt: skip


@dataclass(frozen=True)
class Told:
    """An alert as its newest event tells it, whoever raised it."""

    event: AlertRaised

    @property
    def alert_id(self) -> str:
        """Its id."""
        return self.event.alert_id

    @property
    def changed_at(self) -> int:
        """When its state changed, in microseconds."""
        event = self.event
        return moment(event.changed_at if event.HasField("changed_at") else event.metadata.occurred_at)

    @property
    def since(self) -> int:
        """Since when, in microseconds."""
        return moment(self.event.since if self.event.HasField("since") else self.event.metadata.occurred_at)

    @property
    def tenant_id(self) -> str:
        """Whose alert it is; empty for the mesh's."""
        event = self.event
        return event.metadata.tenant_id or event.labels.get("tenant_id", "") or event.evidence.series.tenant_id

    def restored(self) -> Alert | None:
        """The alert to go on from; None for what is not followed here (another service raised it)."""
        event = self.event
        if not event.HasField("since") or not event.metadata.producer.startswith(OWN):
            return None
        return Alert(
            rule=event.rule, labels=tuple(sorted(event.labels.items())), state=event.state, since=self.since,
            changed_at=self.changed_at, held_at=self.changed_at, severity=event.severity, summary=event.summary,
            runbook=event.runbook, causes=dict(event.causes), silenced_by=tuple(event.silenced_by), never_fired=event.never_fired,
            point=point_of(event.evidence) if event.HasField("evidence") else None,
        )  # fmt: skip


def moment(stamp: Timestamp) -> int:
    """Microseconds since 1970."""
    return stamp.ToMicroseconds()
