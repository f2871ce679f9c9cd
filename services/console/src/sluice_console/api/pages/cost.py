"""Cost: what was spent on what, what may be spent, what will be."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sluice_console.api.site import Site, parts, person_of
from sluice_console.domain import spending
from sluice_console.domain.scope import BadScope, scope_of


def routes(site: Site) -> list[Route]:
    """GET /cost."""

    async def show(request: Request) -> Response:
        query = request.query_params
        period, by = query.get("period", "24h"), query.get("by", "model")
        if period not in spending.PERIODS:
            raise BadScope(f"period must be one of {', '.join(spending.PERIODS)}")
        if by not in spending.BY:
            raise BadScope(f"by must be one of {', '.join(spending.BY)}")
        whose = {name: value for name, value in query.items() if name not in ("by", "range")}
        scope = scope_of(whose, person_of(request))
        now = site.now()
        asked: dict[str, Any] = {
            "tenant": scope.tenant,
            "start": now - spending.PERIODS[period],
            "end": now,
            "filters": scope.filters,
        }
        over = "hour" if period == "24h" else "day"
        found = await parts(
            groups=site.cost.spend(**asked, group_by=[by]),
            course=site.cost.spend(**asked, group_by=["charge_kind", over] if by == "charge_kind" else [over]),
            budgets=site.cost.budgets(tenant=scope.tenant),
            forecasts=site.cost.forecasts(tenant=scope.tenant, filters=scope.filters),
        )
        return site.page(
            request,
            "cost.html",
            scope=scope,
            period=period,
            by=by,
            parts=found,
            sums=[] if found["groups"].problem else spending.sums(found["groups"].value),
            rows=[] if found["groups"].problem else spending.rows(found["groups"].value, by),
            left_out=0 if found["groups"].problem else max(0, len(found["groups"].value) - spending.MOST_ROWS),
            charts=[] if found["course"].problem else spending.over_time(found["course"].value, period, now),
            periods=spending.PERIODS,
            dimensions=spending.BY,
        )

    return [Route("/cost", show, methods=["GET"])]
