"""Who asks and in which trace: the context that travels with every call and into every event."""

import contextlib
import time
import uuid
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

REQUEST_ID = "x-request-id"
TENANT_ID = "x-sluice-tenant-id"
PROJECT_ID = "x-sluice-project-id"
SUBJECT_ID = "x-sluice-subject-id"
SYNTHETIC = "x-sluice-synthetic"
TRACEPARENT = "traceparent"


@dataclass(frozen=True)
class RequestContext:
    """The request a piece of work belongs to. Empty strings mean: none."""

    request_id: str = ""
    tenant_id: str = ""
    project_id: str = ""
    subject_id: str = ""
    traceparent: str = ""
    synthetic: bool = False


_EMPTY = RequestContext()
_current: ContextVar[RequestContext] = ContextVar("sluice_request_context", default=_EMPTY)
_deadline: ContextVar[float | None] = ContextVar("sluice_deadline", default=None)


def current() -> RequestContext:
    """The context of the running task; an empty one outside of a request."""
    return _current.get()


@contextlib.contextmanager
def use(context: RequestContext) -> Iterator[RequestContext]:
    """Make context the current one for a block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def new_request_id() -> str:
    """A fresh request id, 32 hexadecimal digits."""
    return uuid.uuid4().hex


def from_metadata(metadata: Mapping[str, str]) -> RequestContext:
    """The context a caller sent; a request id is made where none came."""
    return RequestContext(
        request_id=metadata.get(REQUEST_ID) or new_request_id(),
        tenant_id=metadata.get(TENANT_ID, ""),
        project_id=metadata.get(PROJECT_ID, ""),
        subject_id=metadata.get(SUBJECT_ID, ""),
        traceparent=metadata.get(TRACEPARENT, ""),
        synthetic=metadata.get(SYNTHETIC, "") == "true",
    )


def outgoing_metadata(context: RequestContext | None = None) -> tuple[tuple[str, str], ...]:
    """The gRPC metadata that passes a context on (the current one by default); empty values are left out."""
    context = context or current()
    pairs = (
        (REQUEST_ID, context.request_id),
        (TENANT_ID, context.tenant_id),
        (PROJECT_ID, context.project_id),
        (SUBJECT_ID, context.subject_id),
        (TRACEPARENT, context.traceparent),
        (SYNTHETIC, "true" if context.synthetic else ""),
    )
    return tuple((key, value) for key, value in pairs if value)


def enter(context: RequestContext, seconds_left: float | None = None) -> None:
    """Make context, and a deadline if there is one, the current ones for the rest of this task."""
    _current.set(context)
    _deadline.set(None if seconds_left is None else time.monotonic() + seconds_left)


def time_remaining() -> float | None:
    """Seconds until the deadline of the RPC that this task serves, negative when it has passed; None where there is none."""
    deadline = _deadline.get()
    return None if deadline is None else deadline - time.monotonic()
