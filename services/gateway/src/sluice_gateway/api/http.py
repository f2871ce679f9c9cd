"""The OpenAI-compatible door: pure ASGI, one class a route, all of them thin over `Gateway`."""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from opentelemetry import trace
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sluice_kit import telemetry
from sluice_kit.context import new_request_id
from sluice_kit.process import describe
from starlette.datastructures import Headers
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from sluice_gateway.api import openai_answers, openai_errors, openai_requests
from sluice_gateway.api.entry import Entry, enter
from sluice_gateway.domain.chat import ChatRequest, EmbedRequest
from sluice_gateway.domain.completion import Completion
from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.gateway import Gateway
from sluice_gateway.domain.rejection import Kind, Rejection, invalid

log = telemetry.logger(__name__)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """How much and how long one HTTP request may take."""

    body_bytes: int = 4 * 1024 * 1024
    body_seconds: float = 30.0
    request_seconds: float = 300.0


def application(gateway: Gateway, limits: HttpLimits, *, healthy: Callable[[], bool]) -> ASGIApp:
    """The whole HTTP door."""
    return Router(
        [
            Route("/v1/chat/completions", ChatCompletions(gateway, limits), name="chat"),
            Route("/v1/embeddings", Embeddings(gateway, limits), name="embeddings"),
            Route("/v1/models", Models(gateway, limits), name="models"),
            Route("/v1/models/{model:path}", Models(gateway, limits), name="model"),
            Route("/healthz", Health(healthy), name="health"),
            Route("/metrics", Metrics(), name="metrics"),
        ],
        default=NotFound(),
        redirect_slashes=False,
    )


class Exchange:
    """One HTTP request and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = Headers(scope=scope)
        self.method: str = scope["method"]
        self._receive, self._send = receive, send
        self.request_id = new_request_id()
        self.started = False

    async def body(self, limits: HttpLimits) -> bytes:
        """The whole body. Raises Rejection when it is too large, too slow, compressed or broken off."""
        if self.headers.get("content-encoding", "identity") != "identity":
            raise invalid("", "The body is compressed; send it as it is.", reason="CONTENT_ENCODING")
        declared = self.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limits.body_bytes:
            raise _too_large(limits)
        try:
            async with asyncio.timeout(limits.body_seconds):
                return await self._read(limits)
        except TimeoutError:
            raise Rejection(Kind.DEADLINE, "The body did not arrive in time.", reason="BODY_TIMEOUT") from None

    async def _read(self, limits: HttpLimits) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Rejection(Kind.CANCELLED, "The caller went away.", reason="CALLER_GONE")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > limits.body_bytes:
                raise _too_large(limits)
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def gone(self) -> None:
        """Returns when the caller has hung up; only after the whole body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def start(self, status: int, content_type: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the status line and the headers."""
        self.started = True
        own = [(b"content-type", content_type), (b"x-request-id", self.request_id.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": own + headers})

    async def write(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the body. Waits while the caller is slow."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def respond(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = b"application/json",
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """Send a whole response."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, content_type, [length, *(headers or [])])
        await self.write(body, more=False)

    async def fail(self, rejection: Rejection) -> None:
        """Say why not: as a response, or inside the stream when that has begun."""
        body = openai_errors.error_json(rejection, self.request_id)
        if self.started:
            return await self.write(b"data: " + body + b"\n\n", more=False)
        await self.respond(openai_errors.HTTP_STATUS[rejection.kind], body, headers=_error_headers(rejection))


def _too_large(limits: HttpLimits) -> Rejection:
    message = f"The body is larger than {limits.body_bytes} bytes."
    return Rejection(Kind.TOO_LARGE, message, reason="REQUEST_TOO_LARGE")


# OpenAI's clients wait for what Retry-After says only up to this.
WORTH_A_RETRY_SECONDS = 60


def _error_headers(rejection: Rejection) -> list[tuple[bytes, bytes]]:
    headers = []
    if rejection.retry_after_seconds is not None:
        headers.append((b"retry-after", str(math.ceil(rejection.retry_after_seconds)).encode()))
    if rejection.reason == "BUDGET_EXHAUSTED" and (rejection.retry_after_seconds or 0) > WORTH_A_RETRY_SECONDS:
        # OpenAI's clients try every 429 again within seconds unless they are told not to. That helps where money is only held
        # for what still runs; it does not where the budget's window has to end first.
        headers.append((b"x-should-retry", b"false"))
    if rejection.kind is Kind.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    if rejection.kind is Kind.TOO_LARGE:
        # The rest of the body is still coming: reading it all only to reuse the connection would be the larger harm.
        headers.append((b"connection", b"close"))
    if decision_id := rejection.metadata.get("decision_id"):
        headers.append((b"x-sluice-decision-ids", decision_id.encode()))
    return headers


def span(name: str, headers: Headers) -> AbstractContextManager[trace.Span]:
    """The request's span, in the caller's trace if it sent one."""
    return telemetry.tracer().start_as_current_span(
        name,
        context=telemetry.extract(headers),
        kind=trace.SpanKind.SERVER,
        record_exception=False,  # an exception's message may quote the caller
        set_status_on_exception=False,
    )


class _Endpoint:
    """What every route that needs a key does: one method, a key, errors as OpenAI objects, a caller who may leave."""

    method = "POST"
    path = "/v1"

    def __init__(self, gateway: Gateway, limits: HttpLimits) -> None:
        self._gateway, self._limits = gateway, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        try:
            if exchange.method != self.method and not (self.method == "GET" and exchange.method == "HEAD"):
                return await _refuse_method(exchange, self.method)
            with span(f"{self.method} {self.path}", exchange.headers):
                await self._serve(self._enter(exchange), exchange, scope)
        except Rejection as rejection:
            if rejection.kind is Kind.INTERNAL:
                log.error("request.failed", **describe(rejection.__cause__ or rejection))
            await exchange.fail(rejection)

    def _enter(self, exchange: Exchange) -> Entry:
        return enter(
            self._gateway,
            door=Door.HTTP,
            request_id=exchange.request_id,
            traceparent=telemetry.traceparent_of_current_span(),
            header=exchange.headers.get,
            seconds=self._seconds(exchange.headers.get("x-sluice-timeout-ms")),
        )

    def _seconds(self, asked: str | None) -> float:
        most = self._limits.request_seconds
        if asked is None:
            return most
        # Bounded in length before it is turned into a number.
        return min(int(asked) / 1000, most) if asked.isascii() and asked.isdigit() and len(asked) < 12 else most

    async def _serve(self, entry: Entry, exchange: Exchange, scope: Scope) -> None:
        raise NotImplementedError


class _Departure:
    """Cancels the work of a caller who hangs up; says afterwards whether that happened."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._work = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self.happened = False

    def watch(self) -> None:
        """Begin; only after the body was read, for it comes from the same queue."""
        self._watch = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        await self._exchange.gone()
        self.happened = True
        if self._work:
            self._work.cancel()

    def stop(self) -> None:
        """Watch no longer."""
        if self._watch:
            self._watch.cancel()


class ChatCompletions(_Endpoint):
    """POST /v1/chat/completions, streamed or whole."""

    path = "/v1/chat/completions"

    async def _serve(self, entry: Entry, exchange: Exchange, scope: Scope) -> None:
        departure = _Departure(exchange)
        audience = HttpAudience(exchange)

        async def read() -> ChatRequest:
            request, audience.with_usage = openai_requests.chat_request(await exchange.body(self._limits))
            entry.is_for(request.user)
            departure.watch()
            return request

        try:
            await self._gateway.chat(entry.arrival, entry.identity, read, audience)
        except asyncio.CancelledError:
            if not departure.happened:
                raise  # the server stops, and takes its requests with it
        finally:
            departure.stop()


class HttpAudience:
    """Fits `ChatAudience`: collects a whole answer, or writes server-sent events."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.with_usage = False
        self._created = int(time.time())
        self._pieces: list[str] = []
        self._chunks: openai_answers.ChunkWriter | None = None
        self._completion: Completion | None = None

    def begin(self, request: ChatRequest, completion: Completion) -> None:
        self._completion = completion
        if request.streamed:
            self._chunks = openai_answers.ChunkWriter(
                self._exchange.request_id, self._created, completion.model, with_usage=self.with_usage
            )

    async def text(self, text: str) -> None:
        if self._chunks is None:
            self._pieces.append(text)
        else:
            await self._stream(self._chunks.text(text), more=True)

    async def end(self, completion: Completion) -> None:
        if self._chunks is not None:
            return await self._stream(self._chunks.end(completion), more=False)
        body = openai_answers.completion_json(
            self._exchange.request_id, self._created, completion.model, "".join(self._pieces), completion
        )
        await self._exchange.respond(200, body, headers=_decision_headers(completion))

    async def _stream(self, lines: bytes, *, more: bool) -> None:
        # The status goes out with the first text and not before: until then every failure can have its own status,
        # and a client that retries those has lost nothing.
        if not self._exchange.started:
            assert self._chunks is not None
            assert self._completion is not None
            headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
            await self._exchange.start(
                200, b"text/event-stream; charset=utf-8", headers + _decision_headers(self._completion)
            )
            lines = self._chunks.role() + lines
        await self._exchange.write(lines, more=more)


def _decision_headers(completion: Completion) -> list[tuple[bytes, bytes]]:
    ids = ",".join(completion.decision_ids)
    return [(b"x-sluice-decision-ids", ids.encode())] if ids else []


class Embeddings(_Endpoint):
    """POST /v1/embeddings."""

    path = "/v1/embeddings"

    async def _serve(self, entry: Entry, exchange: Exchange, scope: Scope) -> None:
        departure = _Departure(exchange)
        as_base64 = False

        async def read() -> EmbedRequest:
            nonlocal as_base64
            request, as_base64 = openai_requests.embed_request(await exchange.body(self._limits))
            entry.is_for(request.user)
            departure.watch()
            return request

        try:
            vectors, completion = await self._gateway.embed(entry.arrival, entry.identity, read)
        except asyncio.CancelledError:
            if departure.happened:
                return
            raise
        finally:
            departure.stop()
        body = openai_answers.embeddings_json(completion.model, vectors, as_base64=as_base64)
        await exchange.respond(200, body, headers=_decision_headers(completion))


class Models(_Endpoint):
    """GET /v1/models and /v1/models/{id}."""

    method, path = "GET", "/v1/models"

    async def _serve(self, entry: Entry, exchange: Exchange, scope: Scope) -> None:
        deployments, created = self._gateway.deployments(entry.identity), int(self._gateway.models_created_at)
        wanted = scope.get("path_params", {}).get("model")
        if wanted is None:
            return await exchange.respond(200, openai_answers.models_json(deployments, created))
        found = next((deployment for deployment in deployments if deployment.alias == wanted), None)
        if found is None:
            message = "There is no such model; GET /v1/models tells which there are."
            raise Rejection(Kind.NOT_FOUND, message, reason="MODEL_NOT_FOUND", field="model")
        await exchange.respond(200, openai_answers.model_json(found, created))


class Health:
    """GET /healthz: 200 while the gateway takes requests."""

    def __init__(self, healthy: Callable[[], bool]) -> None:
        self._healthy = healthy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        healthy = self._healthy()
        body = b'{"status":"serving"}' if healthy else b'{"status":"not_serving"}'
        await Exchange(scope, receive, send).respond(200 if healthy else 503, body)


class Metrics:
    """GET /metrics: Prometheus text."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Exchange(scope, receive, send).respond(200, generate_latest(), content_type=CONTENT_TYPE_LATEST.encode())


class NotFound:
    """Every other path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        message = "There is nothing here; the API is under /v1/chat/completions, /v1/embeddings and /v1/models."
        await Exchange(scope, receive, send).fail(Rejection(Kind.NOT_FOUND, message, reason="PATH_NOT_FOUND"))


async def _refuse_method(exchange: Exchange, allowed: str) -> None:
    rejection = invalid("", f"This path takes {allowed} only.", reason="METHOD_NOT_ALLOWED")
    body = openai_errors.error_json(rejection, exchange.request_id)
    await exchange.respond(405, body, headers=[(b"allow", allowed.encode())])
