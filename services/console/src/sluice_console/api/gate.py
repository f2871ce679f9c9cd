"""What stands before every page: headers, sessions, roles and the check that a form is one of ours."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sluice_console.api.site import Site

OPEN = ("/signin", "/static/", "/healthz")
LARGEST_FORM = 64 * 1024
MOST_FIELDS = 100
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class FormRefused(Exception):
    """A form that is too large, no form, or none of ours."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Headers:
    """Security headers on every answer; pages are never stored, static files are for good (their address names their content)."""

    def __init__(self, app: ASGIApp, *, is_https: bool) -> None:
        self._app, self._is_https = app, is_https

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if self._is_https:
                    headers["strict-transport-security"] = "max-age=31536000"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


class Gate:
    """Nobody sees a page without a session."""

    def __init__(self, app: ASGIApp, *, site: Site) -> None:
        self._app, self._site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request = Request(scope)
            request.state.session = self._site.session(request)
            path = request.url.path
            if request.state.session is None and not any(
                path == name or (name.endswith("/") and path.startswith(name)) for name in OPEN
            ):
                await self._turn_away(request)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _turn_away(self, request: Request) -> Response:
        wants_page = request.method == "GET" and "text/html" in request.headers.get("accept", "text/html")
        if not wants_page:
            return Response("Sign in first.\n", status_code=401, media_type="text/plain")
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/signin?next={quote(asked, safe='')}", status_code=303)


def own_path(text: str) -> str:
    """Where to go after signing in: a path of this page, or the first one. Another site's address is never followed."""
    try:
        parsed = urlsplit(text)
    except ValueError:  # such as http://[
        return "/"
    is_own = text.startswith("/") and not text.startswith(("//", "/\\")) and not parsed.scheme and not parsed.netloc
    return text if is_own and "\\" not in text and not any(ord(letter) < 32 for letter in text) else "/"


async def form(request: Request, site: Site, *, signed_in: bool = True) -> Mapping[str, str]:
    """The fields of a form that one of our pages sent. Raises FormRefused."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise FormRefused(403, "This form was sent from another site.")
    origin = request.headers.get("origin")
    if origin and origin != "null" and not _is_host(origin, request.headers.get("host", "")):
        raise FormRefused(403, "This form was sent from another site.")
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise FormRefused(415, "Send a form.")
    fields = _fields(await _body(request))
    if signed_in and not request.state.session.accepts(fields.get("csrf_token", "")):
        site.audit(request, "form_refused")
        raise FormRefused(403, "This form is from an older page: open the page again and repeat.")
    return fields


def _is_host(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _fields(body: bytes) -> Mapping[str, str]:
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS))
    except ValueError:
        raise FormRefused(400, f"A form has at most {MOST_FIELDS} fields.") from None


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST_FORM:
            raise FormRefused(413, "This form is too large.")
    return body
