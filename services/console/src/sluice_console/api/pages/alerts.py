"""Alerts: what holds now, and what held."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sluice_console.api.site import Site, parts, person_of
from sluice_console.domain.answers import Alert
from sluice_console.domain.people import Person
from sluice_console.domain.scope import BadScope

STATES = ("firing", "pending", "resolved")


def routes(site: Site) -> list[Route]:
    """GET /alerts."""

    async def show(request: Request) -> Response:
        state = request.query_params.get("state", "")
        if state not in ("", *STATES):
            raise BadScope(f"state must be one of {', '.join(STATES)}")
        found = await parts(
            alerts=site.insight.alerts(tenant=person_of(request).tenant_id), sources=site.insight.sources()
        )
        known = [] if found["alerts"].problem else visible(found["alerts"].value, person_of(request))
        return site.page(
            request,
            "alerts.html",
            parts=found,
            state=state,
            states=STATES,
            counts={name: sum(alert.state == name for alert in known) for name in STATES},
            alerts=[alert for alert in known if not state or alert.state == state],
        )

    return [Route("/alerts", show, methods=["GET"])]


def visible(alerts: list[Alert], person: Person) -> list[Alert]:
    """Those that a person may see: who is bound to a tenant sees that tenant's only, and none of the mesh as a whole."""
    if not person.tenant_id:
        return alerts
    return [alert for alert in alerts if alert.evidence and alert.evidence.series.get("tenant") == person.tenant_id]
