"""What operators do about alerts: take one on, silence a rule, end a silence."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import timedelta
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from sluice_console.api.gate import FormRefused, form
from sluice_console.api.site import Site, person_of
from sluice_console.domain.answers import Away, Refused, TooLate
from sluice_console.domain.people import Person, Role

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
    """POST /alerts/acknowledge, /alerts/silence, /alerts/expire."""
    return [
        Route("/alerts/acknowledge", partial(_acknowledge, site), methods=["POST"]),
        Route("/alerts/silence", partial(_silence, site), methods=["POST"]),
        Route("/alerts/expire", partial(_expire, site), methods=["POST"]),
    ]


def may_act(person: Person) -> bool:
    """Operators act on alerts; one who is bound to a tenant does not on what others see, too."""
    return person.may(Role.OPERATOR) and not person.tenant_id


async def _acknowledge(site: Site, request: Request) -> Response:
    fields, person = await _act(request, site)
    alert_id, reason = fields.get("alert", ""), fields.get("reason", "").strip()
    await _told(site.desk.acknowledge(alert_id, who=person.id, reason=reason))
    site.audit(request, "alert_acknowledged", alert=alert_id)
    return _back()


async def _silence(site: Site, request: Request) -> Response:
    fields, person = await _act(request, site)
    if (length := LENGTHS.get(fields.get("lasts", ""))) is None:
        raise FormRefused(400, f"Choose how long: {', '.join(LENGTHS)}.")
    made = await _told(
        site.desk.silence(
            silence_id=fields.get("silence", ""),
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


async def _expire(site: Site, request: Request) -> Response:
    fields, person = await _act(request, site)
    ended = await _told(site.desk.expire(fields.get("silence", ""), who=person.id))
    site.audit(request, "silence_expired", silence=ended.id)
    return _back("#silences")


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
    except TooLate as late:
        raise FormRefused(
            503, f"{late.reason} It may have been done: sent again, this form does nothing twice."
        ) from None
    except Away as away:
        raise FormRefused(
            503, f"{away.reason} Nothing was done, unless the connection broke just then: try again."
        ) from None


def _back(place: str = "") -> Response:
    return RedirectResponse(f"/alerts{place}", status_code=303)
