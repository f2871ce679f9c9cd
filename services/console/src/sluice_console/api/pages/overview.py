"""Overview: what the mesh does now, updating by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from sluice_kit.telemetry import logger
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sluice_console.api.pages.alerts import visible
from sluice_console.api.site import Part, Site, parts, person_of
from sluice_console.domain import overview
from sluice_console.domain.answers import Alert, Away, total
from sluice_console.domain.firing import firing_rules
from sluice_console.domain.people import Person
from sluice_console.domain.scope import Scope, scope_of

log = logger(__name__)
AWAY_SECONDS = 5.0


def routes(site: Site) -> list[Route]:
    """GET / and /overview/live."""

    async def show(request: Request) -> Response:
        scope = scope_of(request.query_params, person_of(request))
        return site.page(request, "overview.html", **await _content(site, scope, person_of(request)))

    async def live(request: Request) -> Response:
        scope = scope_of(request.query_params, person_of(request))
        if site.streams >= site.streams_limit:
            return Response(
                "Too many pages update live; this one tries again.\n", status_code=503, headers={"retry-after": "30"}
            )
        stream = _updates(site, request, scope)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    return [Route("/", show, methods=["GET"]), Route("/overview/live", live, methods=["GET"])]


async def _content(site: Site, scope: Scope, person: Person) -> Mapping[str, Any]:
    now = site.now()
    asked: dict[str, Any] = {
        "series": site.insight.points(
            overview.SERIES,
            tenant=person.tenant_id,
            start=scope.start(now),
            end=now,
            window=scope.window,
            filters=scope.filters,
        ),
        "slices": site.insight.points(
            overview.SLICED,
            tenant=person.tenant_id,
            start=scope.start(now),
            end=now,
            window=scope.window,
            filters=scope.filters,
            group_by=[scope.by],
        ),
        "spent": site.cost.spend(tenant=scope.tenant, start=scope.start(now), end=now, filters=scope.filters),
        "spent_by": site.cost.spend(
            tenant=scope.tenant, start=scope.start(now), end=now, filters=scope.filters, group_by=[scope.by]
        ),
        "sources": site.insight.sources(tenant=person.tenant_id),
        "alerts": site.insight.alerts(tenant=person.tenant_id),
    }
    found = await parts(**asked)
    series, slices = found["series"], found["slices"]
    firing = _firing(found["alerts"], person)
    spent = None if found["spent"].problem else total(found["spent"].value)
    points = [part.value for part in (series, slices) if not part.problem]
    return {
        "is_cut": any(one.is_cut for one in points),
        "is_whole": not any(part.problem for part in found.values()),
        "scope": scope,
        "parts": found,
        "figures": [] if series.problem else overview.figures(series.value, scope, spent),
        "charts": [] if series.problem else overview.charts(series.value, scope, now, list(spent or ())),
        "rows": [] if slices.problem else overview.rows(slices.value, scope.by, found["spent_by"].value or []),
        "missing": _missing(found["sources"]),
        "firing": firing,
        "firing_rules": firing_rules(firing),
        "complete_up_to": None if series.problem else series.value.complete_up_to,
    }


def _missing(sources: Part) -> int:
    return 0 if sources.problem else sum(source.missing for source in sources.value)


def _firing(alerts: Part, person: Person) -> list[Alert]:
    return [] if alerts.problem else [one for one in visible(alerts.value.alerts, person) if one.state == "firing"]


async def _updates(site: Site, request: Request, scope: Scope) -> AsyncIterator[str]:
    """Server-sent events: the live part of the page at once, whenever a number changed and at every heartbeat."""
    site.streams += 1
    try:
        yield "retry: 3000\n\n"
        while site.is_still_signed_in(request):
            event, is_whole = await _event(site, request, scope)
            yield event
            # What is missing is asked for until it is there: no number changes while nothing happens, so a watch would not tell of it.
            if is_whole:
                with contextlib.suppress(Away):
                    async for event in _events(site, request, scope):
                        yield event
            if site.is_still_signed_in(request):
                await asyncio.sleep(scope.settle_seconds if is_whole else AWAY_SECONDS)
        yield "event: over\ndata: signed out\n\n"
    finally:
        site.streams -= 1


async def _events(site: Site, request: Request, scope: Scope) -> AsyncIterator[str]:
    """One at every message of insight's watch, until a part is missing or the session is over. Raises Away."""
    tenant = person_of(request).tenant_id
    async with contextlib.aclosing(
        site.insight.changes(overview.SERIES, tenant=tenant, filters=scope.filters)
    ) as changes:
        async for _ in changes:
            if not site.is_still_signed_in(request):
                return
            event, is_whole = await _event(site, request, scope)
            yield event
            if not is_whole:
                return
            await asyncio.sleep(scope.settle_seconds)


async def _event(site: Site, request: Request, scope: Scope) -> tuple[str, bool]:
    """The live part as an event, and whether no part of it is missing."""
    content = await _content(site, scope, person_of(request))
    html = site.render(request, "overview_live.html", **content)
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"event: overview\n{lines}\n", content["is_whole"]
