"""Alerts: what holds now, what held, and the silences."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sluice_console.api.pages.alert_actions import LENGTHS, may_act
from sluice_console.api.site import Part, Site, parts, person_of
from sluice_console.domain.answers import Alert
from sluice_console.domain.evidence import seen_at
from sluice_console.domain.people import Person
from sluice_console.domain.scope import BadScope

STATES = ("firing", "pending", "resolved")


def routes(site: Site) -> list[Route]:
    """GET /alerts."""

    async def show(request: Request) -> Response:
        state = request.query_params.get("state", "")
        if state not in ("", *STATES):
            raise BadScope(f"state must be one of {', '.join(STATES)}")
        person = person_of(request)
        asked = {
            "alerts": site.insight.alerts(tenant=person.tenant_id),
            "sources": site.insight.sources(tenant=person.tenant_id),
        }
        # Silences are the mesh's: they name every tenant.
        if not person.tenant_id:
            asked["silences"] = site.desk.silences()
        found = await parts(**asked)
        known = [] if found["alerts"].problem else visible(found["alerts"].value.alerts, person)
        return site.page(
            request,
            "alerts.html",
            parts={"silences": Part([])} | dict(found),
            complete_up_to=None if found["alerts"].problem else found["alerts"].value.complete_up_to,
            state=state,
            states=STATES,
            counts=None
            if found["alerts"].problem
            else {name: sum(alert.state == name for alert in known) for name in STATES},
            alerts=[alert for alert in known if not state or alert.state == state],
            may_act=may_act(person),
            lengths=LENGTHS,
            seen_at=seen_at,
            new_id=lambda: secrets.token_hex(16),
        )

    return [Route("/alerts", show, methods=["GET"])]


def visible(alerts: Sequence[Alert], person: Person) -> list[Alert]:
    """Those that a person may see: who is bound to a tenant sees that tenant's only, and none of the mesh as a whole."""
    if not person.tenant_id:
        return list(alerts)
    return [alert for alert in alerts if alert.evidence and alert.evidence.series.get("tenant") == person.tenant_id]
