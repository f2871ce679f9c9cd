"""The errors of the mesh, and the only place where they become gRPC or HTTP statuses.

SluiceError
├── InvalidInput          INVALID_ARGUMENT     400   a value of the request is wrong (field names it)
├── Unauthenticated       UNAUTHENTICATED      401
├── PermissionDenied      PERMISSION_DENIED    403
├── NotFound              NOT_FOUND            404
├── AlreadyExists         ALREADY_EXISTS       409
├── PreconditionFailed    FAILED_PRECONDITION  400
│   └── ContentBlocked                         400   reason CONTENT_BLOCKED
├── ResourceExhausted     RESOURCE_EXHAUSTED   429   retry_after_seconds
├── Cancelled             CANCELLED            499
├── DeadlineExceeded      DEADLINE_EXCEEDED    504
├── Unimplemented         UNIMPLEMENTED        501
├── Unavailable           UNAVAILABLE          503   retry_after_seconds
└── Internal              INTERNAL             500
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

DOMAIN = "sluice"
_DETAILS_KEY = "grpc-status-details-bin"
_LONGEST_DESCRIPTION = 500
"""The message stands whole in the status. It would be in the trailers three times, and gRPC turns away ever more calls whose
trailers are above 8 KiB."""


class SluiceError(Exception):
    """An error whose message may be shown to the caller: it says what was wrong and what to do, and holds no user text."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        field: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.field = field
        self.retry_after_seconds = retry_after_seconds


class InvalidInput(SluiceError):
    """A value of the request is wrong; field is its path in the request."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "INVALID_INPUT"


class Unauthenticated(SluiceError):
    """Nobody knows who is calling."""

    code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(SluiceError):
    """The caller may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class NotFound(SluiceError):
    """What was named does not exist."""

    code = grpc.StatusCode.NOT_FOUND
    default_reason = "NOT_FOUND"


class AlreadyExists(SluiceError):
    """What was to be made exists, with other content."""

    code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "ALREADY_EXISTS"


class PreconditionFailed(SluiceError):
    """The request is well-formed and will not be carried out as things stand."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "PRECONDITION_FAILED"


class ContentBlocked(PreconditionFailed):
    """A filter's policy withheld the content."""

    default_reason = "CONTENT_BLOCKED"


class ResourceExhausted(SluiceError):
    """A limit is reached; retry_after_seconds says when to try again."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "RESOURCE_EXHAUSTED"


class Cancelled(SluiceError):
    """The caller went away."""

    code = grpc.StatusCode.CANCELLED
    default_reason = "CANCELLED"


class DeadlineExceeded(SluiceError):
    """The caller's deadline passed."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class Unimplemented(SluiceError):
    """This cannot be done here (yet); the message says why."""

    code = grpc.StatusCode.UNIMPLEMENTED
    default_reason = "UNIMPLEMENTED"


class Unavailable(SluiceError):
    """Something needed is away for now."""

    code = grpc.StatusCode.UNAVAILABLE
    default_reason = "UNAVAILABLE"


class Internal(SluiceError):
    """A fault of ours."""


_BY_CODE: Mapping[grpc.StatusCode, type[SluiceError]] = MappingProxyType(
    {
        cls.code: cls
        for cls in (
            InvalidInput, Unauthenticated, PermissionDenied, NotFound, AlreadyExists, PreconditionFailed,
            ResourceExhausted, Cancelled, DeadlineExceeded, Unimplemented, Unavailable, Internal,
        )
    }
)  # fmt: skip

HTTP_STATUS: Mapping[grpc.StatusCode, int] = MappingProxyType(
    {
        grpc.StatusCode.OK: 200,
        grpc.StatusCode.INVALID_ARGUMENT: 400,
        grpc.StatusCode.FAILED_PRECONDITION: 400,
        grpc.StatusCode.OUT_OF_RANGE: 400,
        grpc.StatusCode.UNAUTHENTICATED: 401,
        grpc.StatusCode.PERMISSION_DENIED: 403,
        grpc.StatusCode.NOT_FOUND: 404,
        grpc.StatusCode.ALREADY_EXISTS: 409,
        grpc.StatusCode.ABORTED: 409,
        grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
        grpc.StatusCode.CANCELLED: 499,
        grpc.StatusCode.UNIMPLEMENTED: 501,
        grpc.StatusCode.UNAVAILABLE: 503,
        grpc.StatusCode.DEADLINE_EXCEEDED: 504,
        grpc.StatusCode.INTERNAL: 500,
        grpc.StatusCode.UNKNOWN: 500,
        grpc.StatusCode.DATA_LOSS: 500,
    }
)


def to_status(error: SluiceError, request_id: str) -> status_pb2.Status:
    """The google.rpc.Status of an error: ErrorInfo always, then RequestInfo, BadRequest and RetryInfo where they apply."""
    details = [_packed(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))]
    if request_id:
        details.append(_packed(error_details_pb2.RequestInfo(request_id=request_id)))
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.message[:_LONGEST_DESCRIPTION]
        )
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if error.retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_seconds * 1000))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    code = code_pb2.Code.Value(error.code.name)
    return status_pb2.Status(code=code, message=error.message, details=details)


def _packed(detail: object) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)  # type: ignore[arg-type]
    return packed


def from_rpc_error(error: grpc.RpcError) -> SluiceError:
    """The error a neighbour raised, with its class, reason, metadata, field and retry delay. Unknown codes become Internal."""
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else grpc.StatusCode.UNKNOWN
    message = (error.details() or "") if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else ""
    found = _BY_CODE.get(code, Internal)(message)
    status = _status_of(error)
    for detail in status.details if status is not None else ():
        _read_detail(found, detail)
    return found


def _status_of(error: grpc.RpcError) -> status_pb2.Status | None:
    trailing: Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for key, value in trailing or ():
        if key == _DETAILS_KEY:
            return status_pb2.Status.FromString(value)
    return None


def _read_detail(error: SluiceError, detail: any_pb2.Any) -> None:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    if detail.Unpack(info):
        error.reason, error.metadata = info.reason, dict(info.metadata)
    elif detail.Unpack(bad) and bad.field_violations:
        error.field = bad.field_violations[0].field
    elif detail.Unpack(retry):
        error.retry_after_seconds = retry.retry_delay.ToMilliseconds() / 1000
