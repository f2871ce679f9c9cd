"""Logs as JSON with the request's ids, and spans that follow a request through gRPC and Kafka."""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

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
            foreign_pre_chain=[*shared, _drop_foreign_exceptions],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    # Libraries that log per message would cost more than the work itself (kafka-faust.md 5.2).
    for chatty in ("aiokafka", "kafka", "faust", "mode", "grpc", "presidio-analyzer", "httpx", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _add_context(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    now = context.current()
    for key, value in (("request_id", now.request_id), ("tenant_id", now.tenant_id), ("traceparent", now.traceparent)):
        if value:
            event.setdefault(key, value)
    return event


def _drop_foreign_exceptions(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A library's traceback may quote user text: keep the class of the exception only."""
    info = event.pop("exc_info", None)
    if info and isinstance(info, tuple) and info[0] is not None:
        event["error"] = info[0].__name__
    elif isinstance(info, BaseException):
        event["error"] = type(info).__name__
    record = event.get("_record")
    if record is not None:
        record.exc_info, record.exc_text = None, None
    return event


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


def traceparent_of_current_span() -> str:
    """The current span as a W3C `traceparent`; empty outside of a span."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent", "")
