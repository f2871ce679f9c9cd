"""The console as an ASGI application."""

from __future__ import annotations

from collections.abc import Callable

from sluice_kit.process import describe
from sluice_kit.telemetry import logger
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope as AsgiScope

from sluice_console.api.gate import FormRefused, Gate, Headers
from sluice_console.api.pages import (
    alert_actions,
    alerts,
    cost,
    drift,
    fairness,
    overview,
    requests,
    review,
    signing_in,
)
from sluice_console.api.site import STATIC, Site
from sluice_console.domain.scope import BadScope

log = logger(__name__)
PAGES = (signing_in, overview, drift, fairness, requests, cost, review, alerts, alert_actions)
_A_YEAR = "public, max-age=31536000, immutable"


class _Assets(StaticFiles):
    """Static files under /static/<version>/: kept by browsers for good, since a new version has a new address."""

    async def get_response(self, path: str, scope: AsgiScope) -> Response:
        answer = await super().get_response(path, scope)
        if answer.status_code == 200:
            answer.headers["cache-control"] = _A_YEAR
        return answer


def application(site: Site, *, healthy: Callable[[], bool]) -> Starlette:
    """All pages behind the gate."""

    async def health(request: Request) -> Response:
        return JSONResponse({"serving": healthy()}, status_code=200 if healthy() else 503)

    async def bad_scope(request: Request, error: Exception) -> Response:
        return site.page(request, "problem.html", status=400, title="This address does not fit", problem=f"{error}.")

    async def form_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, FormRefused)
        return site.page(request, "problem.html", status=error.status, title="Not done", problem=error.reason)

    async def http_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        title = {404: "There is no such page", 405: "Not this way"}.get(error.status_code, "Not done")
        return site.page(
            request, "problem.html", status=error.status_code, title=title, problem="Use the menu to go on."
        )

    async def fault(request: Request, error: Exception) -> Response:
        log.error("console.failed", path=request.url.path, **describe(error))
        problem = "A fault of ours; it stands in the log. The rest of the console works."
        return site.page(request, "problem.html", status=500, title="This page failed", problem=problem)

    return Starlette(
        routes=[
            Route("/healthz", health, methods=["GET"]),
            Mount(f"/static/{site.version}", _Assets(directory=STATIC), name="static"),
            *(route for page in PAGES for route in page.routes(site)),
        ],
        middleware=[
            Middleware(Headers, is_https=site.secure_cookies),
            Middleware(GZipMiddleware, minimum_size=1024),
            Middleware(Gate, site=site),
        ],
        exception_handlers={
            BadScope: bad_scope,
            FormRefused: form_refused,
            HTTPException: http_problem,
            Exception: fault,
        },
    )
