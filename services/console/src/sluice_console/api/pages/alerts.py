"""Alerts: what holds now, what held, and what is done about it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from sluice_console.api.gate import FormRefused, form
from sluice_console.api.site import Part, Site, parts, person_of
from sluice_console.domain.answers import Alert, Away, Refused
from sluice_console.domain.people import Person, Role
from sluice_console.domain.scope import BadScope

STATES = ("firing", "pending", "resolved")
LENGTHS = {
    "30m": ("half an hour", timedelta(minutes=30)),
    "2h": ("2 hours", timedelta(hours=2)),
    "8h": ("8 hours", timedelta(hours=8)),
    "1d": ("a day", timedelta(days=1)),
    "7d": ("7 days", timedelta(days=7)),
}
LABEL = "label."
"""How the names of form fields begin that hold an alert's labels."""
T = TypeVar("T")


def routes(site: Site) -> list[Route]:
    """GET /alerts, POST /alerts/acknowledge, /alerts/silence, /alerts/expire."""

    async def show(request: Request) -> Response:
        state = request.query_params.get("state", "")
        if state not in ("", *STATES):
            raise BadScope(f"state must be one of {', '.join(STATES)}")
        person = person_of(request)
        asked = {"alerts": site.insight.alerts(tenant=person.tenant_id), "sources": site.insight.sources()}
        # Silences are the mesh's: they name every tenant.
        if not person.tenant_id:
            asked["silences"] = site.desk.silences()
        found = await parts(**asked)
        known = [] if found["alerts"].problem else visible(found["alerts"].value, person)
        return site.page(
            request,
            "alerts.html",
            parts={"silences": Part([])} | dict(found),
            state=state,
            states=STATES,
            counts={name: sum(alert.state == name for alert in known) for name in STATES},
            alerts=[alert for alert in known if not state or alert.state == state],
            may_act=may_act(person),
            lengths=LENGTHS,
        )

    async def acknowledge(request: Request) -> Response:
        fields, person = await _act(request, site)
        alert_id, reason = fields.get("alert", ""), fields.get("reason", "").strip()
        await _told(site.desk.acknowledge(alert_id, who=person.id, reason=reason))
        site.audit(request, "alert_acknowledged", alert=alert_id)
        return _back()

    async def silence(request: Request) -> Response:
        fields, person = await _act(request, site)
        if (length := LENGTHS.get(fields.get("lasts", ""))) is None:
            raise FormRefused(400, f"Choose how long: {', '.join(LENGTHS)}.")
        made = await _told(
            site.desk.silence(
                rule=fields.get("rule", ""),
                labels={name.removeprefix(LABEL): value for name, value in fields.items() if name.startswith(LABEL)},
                lasts=length[1],
                who=person.id,
                reason=fields.get("reason", "").strip(),
                now=site.now(),
            )
        )
        site.audit(request, "alert_silenced", silence=made.id, rule=made.rule)
        return _back("#silences")

    async def expire(request: Request) -> Response:
        fields, person = await _act(request, site)
        ended = await _told(site.desk.expire(fields.get("silence", ""), who=person.id))
        site.audit(request, "silence_expired", silence=ended.id)
        return _back("#silences")

    return [
        Route("/alerts", show, methods=["GET"]),
        Route("/alerts/acknowledge", acknowledge, methods=["POST"]),
        Route("/alerts/silence", silence, methods=["POST"]),
        Route("/alerts/expire", expire, methods=["POST"]),
    ]


def may_act(person: Person) -> bool:
    """Operators act on alerts; one who is bound to a tenant does not on what others see, too."""
    return person.may(Role.OPERATOR) and not person.tenant_id


async def _act(request: Request, site: Site) -> tuple[Mapping[str, str], Person]:
    """The form and who sent it. Raises FormRefused for whoever may not, and for a form that is none of ours."""
    fields, person = await form(request, site), person_of(request)
    if not may_act(person):
        site.audit(request, "alert_action_refused")
        raise FormRefused(403, "Only operators of the whole mesh act on alerts.")
    return fields, person


async def _told(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except Refused as refused:
        raise FormRefused(400, f"{refused.reason}.") from None
    except Away as away:
        raise FormRefused(503, f"{away.reason} Nothing was done: try again.") from None


def _back(place: str = "") -> Response:
    return RedirectResponse(f"/alerts{place}", status_code=303)


def visible(alerts: list[Alert], person: Person) -> list[Alert]:
    """Those that a person may see: who is bound to a tenant sees that tenant's only, and none of the mesh as a whole."""
    if not person.tenant_id:
        return alerts
    return [alert for alert in alerts if alert.evidence and alert.evidence.series.get("tenant") == person.tenant_id]
