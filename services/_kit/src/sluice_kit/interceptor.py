"""What happens round every RPC: its context, its span, its metrics, and one table from errors to statuses."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_status import rpc_status
from opentelemetry import context as otel_context
from opentelemetry import trace
from prometheus_client import Histogram

from sluice_kit import context, telemetry
from sluice_kit.errors import Internal, InvalidInput, SluiceError, from_rpc_error, to_status
from sluice_kit.process import describe

log = telemetry.logger(__name__)

CALL_SECONDS = Histogram(
    "sluice_grpc_server_call_duration_seconds",
    "Time from the arrival of an RPC to its end.",
    ("method", "code"),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_UNREADABLE = object()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server. Health and reflection calls are left alone."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith("/grpc."):
            return handler
        call = _Call(method.lstrip("/"), handler_call_details.invocation_metadata)
        if handler.request_streaming and handler.response_streaming:
            return _rebuilt(handler, stream_stream=call.streaming(handler.stream_stream))
        if handler.response_streaming:
            return _rebuilt(handler, unary_stream=call.streaming(handler.unary_stream))
        if handler.request_streaming:
            return _rebuilt(handler, stream_unary=call.unary(handler.stream_unary))
        return _rebuilt(handler, unary_unary=call.unary(handler.unary_unary))


def _rebuilt(handler: Any, **behaviour: Any) -> grpc.RpcMethodHandler:
    ((kind, function),) = behaviour.items()
    make = getattr(grpc, f"{kind}_rpc_method_handler")
    return make(
        function,
        request_deserializer=_lenient(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )


def _lenient(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Bytes that are no message reach the handler's wrapper, which refuses them; gRPC itself would answer UNKNOWN."""
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except Exception:
            return _UNREADABLE

    return read


def _readable(request: Any) -> Any:
    """The request, or the stream of requests, that raises InvalidInput where something came that is no message."""
    if hasattr(request, "__aiter__"):
        return _readable_stream(request)
    if request is _UNREADABLE:
        raise InvalidInput(
            "the request is not a message of this method: check its encoding, and that every text is UTF-8",
            reason="UNREADABLE_REQUEST",
        )
    return request


async def _readable_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _readable(request)


class _Call:
    """One RPC. Each runs in a task of its own, so that setting the context needs no undoing."""

    def __init__(self, method: str, metadata: Any) -> None:
        self._method = method
        self._metadata = {key: value for key, value in metadata or () if isinstance(value, str)}

    def unary(self, behaviour: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def handle(request: Any, servicer_context: grpc.aio.ServicerContext) -> Any:
            begun = time.perf_counter()
            with self._span(servicer_context) as span:
                try:
                    response = await behaviour(_readable(request), servicer_context)
                except BaseException as error:
                    await self._fail(error, servicer_context, span, begun)
                    raise
            self._observe(_code_of(servicer_context), begun)
            return response

        return handle

    def streaming(self, behaviour: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
        async def handle(request: Any, servicer_context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            begun = time.perf_counter()
            with self._span(servicer_context) as span:
                responses = None
                try:
                    responses = behaviour(_readable(request), servicer_context)
                    if inspect.isawaitable(responses):  # a handler that writes to its context itself
                        responses = await responses
                    else:
                        async for response in responses:
                            yield response
                except GeneratorExit:
                    self._observe("CANCELLED", begun)
                    raise
                except BaseException as error:
                    await self._fail(error, servicer_context, span, begun)
                    raise
                finally:
                    # Cancelling an RPC must reach the handler's own clean-up at once, not when it is collected.
                    if inspect.isasyncgen(responses):
                        await responses.aclose()
            self._observe(_code_of(servicer_context), begun)

        return handle

    def _span(self, servicer_context: Any) -> Any:
        span = telemetry.tracer().start_span(
            self._method,
            context=telemetry.extract(self._metadata),
            kind=trace.SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.method": self._method},
        )
        return _Entered(span, self._metadata, servicer_context.time_remaining())

    def _observe(self, code: str, begun: float) -> None:
        CALL_SECONDS.labels(self._method, code).observe(time.perf_counter() - begun)

    async def _fail(self, error: BaseException, servicer_context: Any, span: trace.Span, begun: float) -> None:
        """Turn error into a status. Returns only for what must be raised on as it is: cancellation and aborts."""
        if isinstance(error, asyncio.CancelledError):
            self._observe("CANCELLED", begun)
            return
        if isinstance(error, grpc.aio.AbortError):
            code = _code_of(servicer_context)
            span.set_status(trace.Status(trace.StatusCode.ERROR, code))
            self._observe(code, begun)
            return
        known = _as_sluice_error(error)
        span.set_status(trace.Status(trace.StatusCode.ERROR, known.reason))
        self._observe(known.code.name, begun)
        await servicer_context.abort_with_status(rpc_status.to_status(to_status(known, context.current().request_id)))


def _code_of(servicer_context: Any) -> str:
    """Name of the status a handler left behind; grpc.aio tells a number, a StatusCode, or nothing yet."""
    code = servicer_context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((known.name for known in grpc.StatusCode if known.value[0] == code), "OK")


class _Entered:
    """A span entered together with the request context, whose traceparent is the span, and the deadline."""

    def __init__(self, span: trace.Span, metadata: dict[str, str], seconds_left: float | None) -> None:
        self._span, self._metadata, self._seconds_left = span, metadata, seconds_left

    def __enter__(self) -> trace.Span:
        # Attached and never detached: the call's task ends with it, and a cancelled stream is closed in another context.
        otel_context.attach(trace.set_span_in_context(self._span))
        here = telemetry.traceparent_of_current_span() or self._metadata.get(context.TRACEPARENT, "")
        context.enter(context.from_metadata(self._metadata | {context.TRACEPARENT: here}), self._seconds_left)
        return self._span

    def __exit__(self, *error: Any) -> None:
        self._span.end()


def _as_sluice_error(error: BaseException) -> SluiceError:
    if isinstance(error, SluiceError):
        return error
    if isinstance(error, grpc.RpcError):
        return from_rpc_error(error)
    log.error("rpc.failed", **describe(error))
    return Internal(f"internal error; request {context.current().request_id}")
