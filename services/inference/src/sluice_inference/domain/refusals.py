"""Why a request is not answered; api.py gives each of these its gRPC status.

InferenceRefusal
├── InvalidRequest      the request itself is wrong (names the field)
├── UnknownModel        no such model here
├── UnsupportedRequest  right, but this model cannot do it
├── DuplicateRequest    a request with this id is running
├── Overloaded          no room: try again after some seconds
├── RequestStopped      cancelled or out of time before its first token
├── EngineUnavailable   the engine is not ready or shutting down
└── EngineFailed        the engine broke on this request
    └── EngineDied      the engine broke for all requests: the process must end and be started anew
ModelUnusable           at start: the model cannot be served, ever
"""

from __future__ import annotations


class InferenceRefusal(Exception):
    """A request that gets no answer; `reason` is UPPER_SNAKE and stable, the message holds no text of the request."""

    reason = "REFUSED"
    retryable = False  # may the same request succeed later, unchanged?

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason:
            self.reason = reason


class InvalidRequest(InferenceRefusal):
    reason = "INVALID_REQUEST"

    def __init__(self, field: str, message: str, *, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.field = field


class UnknownModel(InferenceRefusal):
    reason = "MODEL_NOT_FOUND"


class UnsupportedRequest(InferenceRefusal):
    reason = "UNSUPPORTED_BY_MODEL"


class DuplicateRequest(InferenceRefusal):
    reason = "REQUEST_RUNNING"


class Overloaded(InferenceRefusal):
    reason = "QUEUE_FULL"
    retryable = True

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RequestStopped(InferenceRefusal):
    """Stopped before the first token; `timed_out` tells a deadline from a cancellation."""

    reason = "CANCELLED"

    def __init__(self, message: str, *, timed_out: bool) -> None:
        super().__init__(message, reason="DEADLINE_EXCEEDED" if timed_out else "CANCELLED")
        self.timed_out = timed_out


class EngineUnavailable(InferenceRefusal):
    reason = "ENGINE_UNAVAILABLE"
    retryable = True


class EngineFailed(InferenceRefusal):
    reason = "ENGINE_FAILED"


class EngineDied(EngineFailed):
    reason = "ENGINE_DIED"
    retryable = True


class ModelUnusable(Exception):
    """The model cannot be served: its file is missing, is another one, or the engine does not take it."""
