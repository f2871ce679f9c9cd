"""Requests: found by what is known of them, and the story of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from sluice_console.adapters.stories import OUTCOMES, VERDICTS
from sluice_console.api.site import Site, parts, person_of
from sluice_console.domain.answers import NotThere
from sluice_console.domain.people import Person
from sluice_console.domain.scope import BadScope
from sluice_console.domain.stories import WIDTH, bars

BLOCKED = "blocked"
_TEXTS = ("model", "route", "prompt_version", "kind", "blocked_category", "category", "project")
_TICKS = {"feedback": "with_feedback", "probes": "include_synthetic"}
_YES, _NO = ("on", "true", "1"), ("off", "false", "0")
"""What a browser sends for a box that is ticked, and what people write into an address."""
_VALUE = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_LONGEST_TOKEN = 600
_MOST_SECONDS = 86_400.0


def routes(site: Site) -> list[Route]:
    """GET /requests and /requests/{id}."""

    async def find(request: Request) -> Response:
        query = {name: value.strip() for name, value in request.query_params.items() if value.strip()}
        if id_ := query.get("id"):
            return RedirectResponse(str(request.url_for("story", id=_checked("id", id_)).path), status_code=303)
        person = person_of(request)
        tenant = _tenant(query, person)
        token = query.get("page", "")
        if len(token) > _LONGEST_TOKEN:
            raise BadScope("page must come from the link to the next page")
        found = await parts(page=site.stories.find(tenant=tenant, conditions=_conditions(query), token=token))
        kept = {name: value for name, value in query.items() if name != "page"}
        return site.page(
            request,
            "requests.html",
            parts=found,
            query=query,
            kept=kept,
            outcomes=(BLOCKED, *OUTCOMES),
            verdicts=tuple(VERDICTS),
            ticked={name for name in _TICKS if _is_ticked(query, name)},
            searched=bool(kept),
        )

    async def story(request: Request) -> Response:
        id_ = _checked("id", request.path_params["id"])
        try:
            found = await parts(story=site.stories.story(id_, tenant=person_of(request).tenant_id))
        except NotThere:
            problem = "Nothing is known of this request: it is too old, too new, or not yours."
            return site.page(request, "problem.html", status=404, title="No such request", problem=problem)
        told = None if found["story"].problem else found["story"].value
        return site.page(
            request, "request.html", parts=found, id=id_, story=told, bars=bars(told.steps) if told else [], width=WIDTH
        )

    return [
        Route("/requests", find, methods=["GET"]),
        Route("/requests/{id:path}", story, methods=["GET"], name="story"),
    ]


def _conditions(query: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        ("project_id" if name == "project" else name): _checked(name, query[name]) for name in _TEXTS if name in query
    }
    if outcome := query.get("outcome"):
        found["outcomes"] = _outcomes(outcome)
    if verdict := query.get("verdict"):
        if verdict not in VERDICTS:
            raise BadScope(f"verdict must be one of {', '.join(VERDICTS)}")
        found["verdict"] = VERDICTS[verdict]
    for name, field in (("from", "start_time"), ("until", "end_time")):
        if name in query:
            found[field] = _moment(name, query[name])
    if "from" in query and "until" in query and found["start_time"] >= found["end_time"]:
        raise BadScope("from must be before until")
    if "min_seconds" in query:
        found["min_latency"] = timedelta(seconds=_seconds(query["min_seconds"]))
    for name, field in _TICKS.items():
        if _is_ticked(query, name):
            found[field] = True
    return found


def _is_ticked(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "off")
    if value not in (*_YES, *_NO):
        raise BadScope(f"{name} must be one of {', '.join((*_YES, *_NO))}")
    return value in _YES


def _tenant(query: Mapping[str, str], person: Person) -> str:
    return person.tenant_id or (_checked("tenant", query["tenant"]) if "tenant" in query else "")


def _checked(name: str, value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise BadScope(f"{name} must be 1 to 200 printable characters")
    return value


def _outcomes(name: str) -> list[int]:
    if name == BLOCKED:
        return [number for known, number in OUTCOMES.items() if known.startswith(BLOCKED)]
    if name not in OUTCOMES:
        raise BadScope(f"outcome must be one of {', '.join((BLOCKED, *OUTCOMES))}")
    return [OUTCOMES[name]]


def _moment(name: str, text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadScope(f"{name} must be a time, such as 2026-11-26T13:00 (UTC)") from None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _MOST_SECONDS:
        raise BadScope("min_seconds must be a number of seconds")
    return value
