"""Answers about alerts, from the log."""

from __future__ import annotations

from sluice.insight.v1 import insight_service_pb2 as pb
from sluice_kit import context
from sluice_kit.errors import InvalidInput

from sluice_insight.adapters.alerting.events import Told
from sluice_insight.adapters.alerting.log import AlertLog

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
_STATES = {
    "pending": pb.ALERT_STATE_PENDING,
    "firing": pb.ALERT_STATE_FIRING,
    "resolved": pb.ALERT_STATE_RESOLVED,
}


def listed(log: AlertLog, request: pb.ListAlertsRequest) -> pb.ListAlertsResponse:
    """One page, newest first. InvalidInput for a page token that is none."""
    tenant = context.current().tenant_id or request.tenant_id
    states = {state for state in request.states if state != pb.ALERT_STATE_UNSPECIFIED}

    def matches(told: Told) -> bool:
        event = told.event
        return (
            (not states or _STATES[event.state] in states)
            and (not request.rule or event.rule == request.rule)
            and (not request.severity or event.severity == request.severity)
            and (not tenant or told.tenant_id == tenant)
        )

    found = log.find(matches)
    if request.page_token and not (request.page_token.isascii() and request.page_token.isdigit()):
        raise InvalidInput("page_token must come from an earlier answer", field="page_token")
    first = min(int(request.page_token[:9] or 0), len(found))
    last = first + min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE)
    more = str(last) if last < len(found) else ""
    return pb.ListAlertsResponse(alerts=[_alert(told) for told in found[first:last]], next_page_token=more)


def _alert(told: Told) -> pb.Alert:
    event = told.event
    alert = pb.Alert(
        alert_id=event.alert_id, rule=event.rule, state=_STATES[event.state], evidence=event.evidence,
        severity=event.severity, summary=event.summary, runbook=event.runbook, labels=dict(event.labels),
        causes=dict(event.causes), producer=event.metadata.producer,
    )  # fmt: skip
    alert.since.FromMicroseconds(told.since)
    alert.changed_at.FromMicroseconds(told.changed_at)
    return alert
