"""Logs as JSON with the request's ids, and spans that follow a request through gRPC and Kafka."""

import logging
import sys
import time
from collections.abc import Mapping, MutableMapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sluice_kit import context
from sluice_kit.settings import MeshSettings

_propagator = TraceContextTextMapPropagator()


def logger(name: str) -> Any:
    """A structured logger: `log.info("ledger.appended", rows=3)`. Event names and fields only, never user text."""
    return structlog.stdlib.get_logger(name)


def configure(service: str, settings: MeshSettings) -> None:
    """Set up logs and spans of this process. Called once, first thing in main."""
    _configure_logs(service, settings)
    _configure_spans(service, settings)


def _configure_logs(service: str, settings: MeshSettings) -> None:
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_context,
        lambda _logger, _method, event: {"service": service, "instance": settings.instance, **event},
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                _keep_only_the_class_of_exceptions,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=_named),
            ],
        )
    )
    handler.addFilter(_Seldom("aiokafka", seconds=10.0))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    # Libraries that log per message would cost more than the work itself (kafka-faust.md 5.2).
    for chatty in ("aiokafka", "kafka", "faust", "mode", "grpc", "presidio-analyzer", "httpx", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _Seldom(logging.Filter):
    """Lets each of a library's messages through once in a while: aiokafka says forty times a second that the broker is away."""

    def __init__(self, library: str, *, seconds: float) -> None:
        super().__init__()
        self._library, self._seconds = library, seconds
        self._said: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.split(".", 1)[0] != self._library:
            return True
        # By the place in the library's source, not by the text: that holds addresses and offsets, and would grow for ever.
        place, now = (record.name, record.lineno), time.monotonic()
        if now - self._said.get(place, -self._seconds) < self._seconds:
            return False
        self._said[place] = now
        return True


def _add_context(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    now = context.current()
    for key, value in (("request_id", now.request_id), ("tenant_id", now.tenant_id), ("traceparent", now.traceparent)):
        if value:
            event.setdefault(key, value)
    return event


def _keep_only_the_class_of_exceptions(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A traceback ends in the exception's message, which may quote user text."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    kind = info[0] if isinstance(info, tuple) else type(info) if isinstance(info, BaseException) else None
    if kind is not None:
        event.setdefault("error", kind.__name__)
    event.pop("exception", None)
    event.pop("stack_info", None)
    return event


def _named(value: object) -> str:
    """What JSON cannot hold is named, never shown: a protobuf message would show the user's text."""
    return f"<{type(value).__name__}>" if not isinstance(value, Path | UUID | Decimal) else str(value)


def _configure_spans(service: str, settings: MeshSettings) -> None:
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"sluice-{service}", "service.instance.id": settings.instance})
    )
    if settings.otlp_endpoint:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.otlp_endpoint)))
    trace.set_tracer_provider(provider)


def tracer() -> trace.Tracer:
    """The tracer of the mesh."""
    return trace.get_tracer("sluice")


def extract(carrier: Mapping[str, str]) -> Any:
    """The OpenTelemetry context a carrier's `traceparent` names."""
    return _propagator.extract(carrier)


def traceparent_of(span: trace.Span) -> str:
    """A span as a W3C `traceparent`; empty for a span that is none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context=trace.set_span_in_context(span))
    return carrier.get("traceparent", "")


def traceparent_of_current_span() -> str:
    """The current span as a W3C `traceparent`; empty outside of a span."""
    return traceparent_of(trace.get_current_span())
