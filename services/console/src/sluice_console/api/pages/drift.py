"""Drift: what moved against the reference, with both distributions."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sluice_console.api.site import Site, parts, person_of
from sluice_console.domain.comparisons import DriftedSeries
from sluice_console.domain.looking_back import LookingBack, named
from sluice_console.domain.people import Person
from sluice_console.domain.scope import BadScope, scope_of

_RANGE = "24h"
"""What is shown where the address does not say: a series that was quiet for a day is news of yesterday."""
_PAGE = re.compile(r"[0-9]{0,9}", re.ASCII)


def routes(site: Site) -> list[Route]:
    """GET /drift."""

    async def show(request: Request) -> Response:
        query = request.query_params
        person = person_of(request)
        kept = {name: query[name] for name in ("tenant", "model", "range", "window") if name in query}
        scope = scope_of({"range": _RANGE} | kept, person)
        window = named(query.get("window", ""))
        token = query.get("page", "")
        if not _PAGE.fullmatch(token):
            raise BadScope("page must be what a link of this page has")
        asked = bool({"tenant", "model", "window"} & query.keys())
        since = scope.start(site.now())
        tenant, model = scope.tenant or person.tenant_id, query.get("model", "").strip()
        wanted = {
            "series": site.comparisons.drift(tenant=person.tenant_id, token=token, since=since),
            # It may stand on another page than is shown.
            "chosen": site.comparisons.drift(tenant=tenant, model=model, since=since, window=window),
        }
        if asked and not window:  # who was sent here by an older address sees what it names
            wanted["before"] = site.comparisons.drift(tenant=tenant, model=model)
        found = await parts(**wanted)
        candidates = [
            series
            for name in ("chosen", "before")
            if name in found and not found[name].problem
            for series in found[name].value.items
            if _is_named(series, query, person)
        ]
        back = LookingBack(() if found["chosen"].problem else found["chosen"].value.windows, window)
        return site.page(
            request,
            "drift.html",
            status=200 if back.is_known or found["chosen"].problem else 404,
            parts=found,
            series=[] if found["series"].problem else found["series"].value.items,
            chosen=candidates[0] if candidates else None,
            asked=asked,
            back=back,
            scope=scope,
            since=since,
            kept=kept,
            page=token,
        )

    return [Route("/drift", show, methods=["GET"])]


def _is_named(series: DriftedSeries, query: Mapping[str, str], person: Person) -> bool:
    # An empty name in the address is one, too: that of the series over all models, or all tenants.
    is_tenants = bool(person.tenant_id) or query.get("tenant", series.tenant).strip() == series.tenant
    return is_tenants and query.get("model", series.model).strip() == series.model
