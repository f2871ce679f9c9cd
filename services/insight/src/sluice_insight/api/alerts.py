"""Answers about alerts, from the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice_kit import context

from sluice_insight.adapters.alerting.events import Told, moment
from sluice_insight.adapters.alerting.interventions import Interventions
from sluice_insight.adapters.alerting.log import AlertLog
from sluice_insight.api.paging import page

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
STATES = {
    "pending": pb.ALERT_STATE_PENDING,
    "firing": pb.ALERT_STATE_FIRING,
    "resolved": pb.ALERT_STATE_RESOLVED,
}


@dataclass(frozen=True)
class AlertView:
    """Alerts together with what people did about them."""

    log: AlertLog = field(default_factory=AlertLog)
    interventions: Interventions = field(default_factory=Interventions)
    now: Callable[[], float] = time.time

    def alert(self, told: Told) -> pb.Alert:
        """One alert as it stands."""
        event = told.event
        alert = pb.Alert(
            alert_id=event.alert_id, rule=event.rule, state=STATES[event.state], severity=event.severity,
            summary=event.summary, runbook=event.runbook, labels=dict(event.labels), causes=dict(event.causes),
            producer=event.metadata.producer, silenced_by=self.silenced_by(told),
        )  # fmt: skip
        # A copy of what is absent would be there, and empty: alerts of the mesh itself have no measurement.
        if event.HasField("evidence"):
            alert.evidence.CopyFrom(event.evidence)
        alert.since.FromMicroseconds(told.since)
        alert.changed_at.FromMicroseconds(told.changed_at)
        if (taken := self.interventions.acknowledgement(event.alert_id)) is not None:
            alert.acknowledgement.by, alert.acknowledgement.reason = taken.acknowledged_by, taken.reason
            if taken.metadata.HasField("occurred_at"):
                alert.acknowledgement.at.CopyFrom(taken.metadata.occurred_at)
        return alert

    def silenced_by(self, told: Told) -> Sequence[str]:
        """The silences that hold now for an open alert; for one that is over, those that kept it from receivers."""
        event = told.event
        if event.state == "resolved":
            return tuple(event.silenced_by)
        return self.interventions.silencing(event.rule, dict(event.labels), at=int(self.now() * 1e6))

    def version(self, told: Told) -> tuple[object, ...]:
        """Differs when anything that `alert` shows does."""
        taken = self.interventions.acknowledgement(told.alert_id)
        return (
            told.event.metadata.event_id,
            told.event.state,
            self.silenced_by(told),
            taken and moment(taken.metadata.occurred_at),
        )


Matches = Callable[[Told], bool]


def matching(*, rule: str, severity: str, tenant_id: str) -> Matches:
    """Alerts by what they are about. Who asks on behalf of a tenant gets that tenant's only."""
    tenant = context.current().tenant_id or tenant_id

    def matches(told: Told) -> bool:
        event = told.event
        return (
            (not rule or event.rule == rule)
            and (not severity or event.severity == severity)
            and (not tenant or told.tenant_id == tenant)
        )

    return matches


def listed(
    view: AlertView, request: pb.ListAlertsRequest, *, complete_up_to: Timestamp | None = None
) -> pb.ListAlertsResponse:
    """One page, newest first, with the moment up to which rules were judged. InvalidInput for a page token that is none."""
    states = chosen(request.states)
    matches = matching(rule=request.rule, severity=request.severity, tenant_id=request.tenant_id)
    found = view.log.find(lambda told: (not states or told.event.state in states) and matches(told))
    shown = page(found, size=request.page_size, default=DEFAULT_PAGE, largest=LARGEST_PAGE, token=request.page_token)
    return pb.ListAlertsResponse(
        alerts=[view.alert(told) for told in shown.items],
        next_page_token=shown.next_token,
        complete_up_to=complete_up_to,
    )


def chosen(states: Sequence[int]) -> frozenset[str]:
    """Names of states; empty means any."""
    return frozenset(name for name, value in STATES.items() if value in states)
