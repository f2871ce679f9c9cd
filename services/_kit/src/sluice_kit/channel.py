"""Channels to neighbours: limits, keepalive, and the request's context in every call."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from opentelemetry import trace
from prometheus_client import Histogram

from sluice_kit import context, telemetry
from sluice_kit.settings import MeshSettings

_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.max_send_message_length", 16 * 1024 * 1024),
    # A neighbour that was restarted is back within a second, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
)

CALL_SECONDS = Histogram(
    "sluice_grpc_client_call_duration_seconds",
    "Time from the start of a call to a neighbour to its end.",
    ("method", "code"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_ENDINGS: set[asyncio.Task[None]] = set()


class ContextChannel:
    """A grpc.aio.Channel whose calls carry the current request context as metadata, and its deadline where they set none.

    This is added when a call is made, not by interceptors: those put a queue between every two messages of a stream.
    """

    def __init__(self, channel: grpc.aio.Channel, *, traced: bool = False) -> None:
        self._channel, self._traced = channel, traced

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._channel, name)
        if name not in ("unary_unary", "unary_stream", "stream_unary", "stream_stream"):
            return attribute

        def make(method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
            return _with_context(attribute(method, *arguments, **options), method.lstrip("/"), traced=self._traced)

        return make

    async def __aenter__(self) -> "ContextChannel":
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._channel.__aexit__(*error)


def _with_context(call: Callable[..., Any], method: str, *, traced: bool) -> Callable[..., Any]:
    def begin(*arguments: Any, metadata: Any = None, timeout: float | None = None, **options: Any) -> Any:
        span = telemetry.tracer().start_span(method, kind=trace.SpanKind.CLIENT) if traced else None
        started = call(
            *arguments,
            metadata=_metadata(metadata, span),
            timeout=_inherited_timeout() if timeout is None else timeout,
            **options,
        )
        started.add_done_callback(_Ending(method, span))
        return started

    return begin


def _metadata(given: Any, span: trace.Span | None) -> tuple[tuple[str, Any], ...]:
    pairs = dict(context.outgoing_metadata())
    if span is not None:
        pairs[context.TRACEPARENT] = telemetry.traceparent_of(span)
    named = {key for key, _ in given or ()}
    return (*(given or ()), *(pair for pair in pairs.items() if pair[0] not in named))


def _inherited_timeout() -> float | None:
    """What is left for the RPC being served. Nothing once it has passed: cleaning up after a late caller must still work."""
    left = context.time_remaining()
    return left if left is not None and left > 0 else None


class _Ending:
    """Measures a call to its end; gRPC calls it when the status is there."""

    def __init__(self, method: str, span: trace.Span | None) -> None:
        self._method, self._span, self._begun = method, span, time.perf_counter()

    def __call__(self, call: Any) -> None:
        seconds = time.perf_counter() - self._begun
        task = asyncio.get_running_loop().create_task(self._tell(call, seconds))
        _ENDINGS.add(task)
        task.add_done_callback(_ENDINGS.discard)

    async def _tell(self, call: Any, seconds: float) -> None:
        code = (await call.code()).name
        CALL_SECONDS.labels(self._method, code).observe(seconds)
        if self._span is not None:
            if code != "OK":
                self._span.set_status(trace.Status(trace.StatusCode.ERROR, code))
            self._span.end()


def connect(target: str, settings: MeshSettings) -> Any:
    """A channel to `host:port` (typed as grpc.aio.Channel for the stubs). Connects lazily and reconnects by itself."""
    # Without an exporter nobody would see the span, and the server's own passes the trace on.
    traced = settings.otlp_endpoint is not None
    if settings.tls_ca_file is None:
        return ContextChannel(grpc.aio.insecure_channel(target, options=_OPTIONS), traced=traced)
    key = settings.tls_key_file.read_bytes() if settings.tls_key_file else None
    certificate = settings.tls_cert_file.read_bytes() if settings.tls_cert_file else None
    secure = grpc.ssl_channel_credentials(settings.tls_ca_file.read_bytes(), key, certificate)
    return ContextChannel(grpc.aio.secure_channel(target, secure, options=_OPTIONS), traced=traced)
