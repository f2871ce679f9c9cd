"""Drift: what moved against the reference, with both distributions."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sluice_console.api.site import Site, parts, person_of
from sluice_console.domain.scope import BadScope, scope_of

_PAGE = re.compile(r"[0-9]{0,9}", re.ASCII)


def routes(site: Site) -> list[Route]:
    """GET /drift."""

    async def show(request: Request) -> Response:
        query = request.query_params
        person = person_of(request)
        scope = scope_of({name: query[name] for name in ("tenant", "model") if name in query}, person)
        token = query.get("page", "")
        if not _PAGE.fullmatch(token):
            raise BadScope("page must be what a link of this page has")
        found = await parts(
            series=site.comparisons.drift(tenant=person.tenant_id, token=token),
            # It may stand on another page than is shown.
            chosen=site.comparisons.drift(
                tenant=scope.tenant or person.tenant_id, model=query.get("model", "").strip()
            ),
        )
        known = [] if found["series"].problem else found["series"].value.items
        wanted = [
            one
            for one in ([] if found["chosen"].problem else found["chosen"].value.items)
            # An empty name in the address is one, too: that of the series over all models.
            if (not query.get("tenant") or scope.tenant == one.tenant)
            and query.get("model", one.model).strip() == one.model
        ]
        return site.page(
            request,
            "drift.html",
            parts=found,
            series=known,
            chosen=wanted[0] if wanted else None,
            asked="tenant" in query or "model" in query,
            scope=scope,
            kept={name: query[name] for name in ("tenant", "model") if name in query},
            page=token,
        )

    return [Route("/drift", show, methods=["GET"])]
