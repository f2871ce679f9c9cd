"""Drift: what moved against the reference, with both distributions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sluice_console.api.site import Site, parts, person_of
from sluice_console.domain.scope import scope_of


def routes(site: Site) -> list[Route]:
    """GET /drift."""

    async def show(request: Request) -> Response:
        query = request.query_params
        person = person_of(request)
        scope = scope_of({name: query[name] for name in ("tenant", "model") if name in query}, person)
        found = await parts(series=site.comparisons.drift(tenant=person.tenant_id))
        known = [] if found["series"].problem else found["series"].value.items
        wanted = [
            one
            for one in known
            # An empty name in the address is one, too: that of the series over all models.
            if (not query.get("tenant") or scope.tenant == one.tenant)
            and query.get("model", one.model).strip() == one.model
        ]
        chosen = wanted[0] if wanted else None
        return site.page(
            request, "drift.html", parts=found, series=known, chosen=chosen, asked=bool(query), scope=scope
        )

    return [Route("/drift", show, methods=["GET"])]
