"""Review: what waits for a person."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sluice_console.api.site import Site, parts, person_of
from sluice_console.domain.scope import BadScope

_LONGEST_TOKEN = 600


def routes(site: Site) -> list[Route]:
    """GET /review."""

    async def show(request: Request) -> Response:
        token = request.query_params.get("page", "")
        if len(token) > _LONGEST_TOKEN:
            raise BadScope("page must come from the link to the next page")
        tenant = person_of(request).tenant_id
        asked = site.stories.find(tenant=tenant, conditions={"awaiting_review": True}, token=token)
        found = await parts(page=asked)
        return site.page(request, "review.html", parts=found, page=token)

    return [Route("/review", show, methods=["GET"])]
