"""Signing in and out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from sluice_console.api.gate import form, own_path
from sluice_console.api.site import Site, address_of


def routes(site: Site) -> list[Route]:
    """GET and POST /signin, POST /signout."""

    async def show(request: Request) -> Response:
        if request.state.session:
            return RedirectResponse("/", status_code=303)
        return site.page(request, "signin.html", next=own_path(request.query_params.get("next", "/")), problem="")

    async def sign_in(request: Request) -> Response:
        fields = await form(request, site, signed_in=False)
        next_ = own_path(fields.get("next", "/"))
        who = address_of(request)
        if wait := site.throttle.wait(who):
            problem = f"Too many wrong keys came from your address. Try again in {wait:.0f} s."
            refused = site.page(request, "signin.html", status=429, next=next_, problem=problem)
            refused.headers["retry-after"] = str(round(wait) + 1)
            return refused
        person = site.keyring().person(fields.get("key", "").strip())
        if person is None:
            site.throttle.failed(who)
            site.audit(request, "sign_in_refused")
            problem = "No such key, or it was taken away. Check it, or ask who runs this mesh."
            return site.page(request, "signin.html", status=401, next=next_, problem=problem)
        if old := request.cookies.get(site.cookie):
            site.sessions.end(old)
        token, request.state.session = site.sessions.begin(person)
        site.audit(request, "signed_in")
        answer = RedirectResponse(next_, status_code=303)
        answer.set_cookie(site.cookie, token, httponly=True, samesite="lax", secure=site.secure_cookies, path="/")
        return answer

    async def sign_out(request: Request) -> Response:
        await form(request, site)
        site.audit(request, "signed_out")
        site.sessions.end(request.cookies.get(site.cookie, ""))
        answer = RedirectResponse("/signin", status_code=303)
        answer.delete_cookie(site.cookie, path="/", secure=site.secure_cookies, httponly=True, samesite="lax")
        return answer

    return [
        Route("/signin", show, methods=["GET"]),
        Route("/signin", sign_in, methods=["POST"]),
        Route("/signout", sign_out, methods=["POST"]),
    ]
