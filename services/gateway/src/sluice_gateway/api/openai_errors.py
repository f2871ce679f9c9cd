"""What OpenAI clients are told when a request is not answered: error objects and status codes."""

from collections.abc import Mapping
from typing import Any

import msgspec

from sluice_gateway.domain.rejection import Kind, Rejection

_encoder = msgspec.json.Encoder()

HTTP_STATUS: Mapping[Kind, int] = {
    Kind.INVALID: 400,
    Kind.UNSUPPORTED: 400,
    Kind.BLOCKED: 400,
    Kind.TOO_LARGE: 413,
    Kind.UNAUTHENTICATED: 401,
    Kind.NOT_FOUND: 404,
    Kind.EXHAUSTED: 429,
    Kind.CANCELLED: 499,
    Kind.UNAVAILABLE: 503,
    Kind.DEADLINE: 504,
    Kind.INTERNAL: 500,
}
_TYPE: Mapping[Kind, str] = {
    Kind.UNAUTHENTICATED: "authentication_error",
    Kind.EXHAUSTED: "rate_limit_error",
    Kind.UNAVAILABLE: "service_unavailable_error",
    Kind.DEADLINE: "timeout_error",
    Kind.CANCELLED: "cancelled_error",
    Kind.INTERNAL: "server_error",
}
# Codes that OpenAI clients and frameworks already look for; the others are our reasons in lower case.
_CODE: Mapping[str, str] = {
    "CONTENT_BLOCKED": "content_filter",
    "CONTENT_HELD": "content_filter",
    "RATE_LIMIT": "rate_limit_exceeded",
    "BUDGET_EXHAUSTED": "insufficient_quota",
}
# OpenAI's own type for an account without money, which is its own code as well.
_TYPE_OF_REASON: Mapping[str, str] = {"BUDGET_EXHAUSTED": "insufficient_quota"}


def error_json(rejection: Rejection, request_id: str) -> bytes:
    """An OpenAI error object; ErrorInfo's metadata stands beside it under `sluice`."""
    error: dict[str, Any] = {
        "message": rejection.message,
        "type": _TYPE_OF_REASON.get(rejection.reason) or _TYPE.get(rejection.kind, "invalid_request_error"),
        "param": rejection.field or None,
        "code": _CODE.get(rejection.reason, rejection.reason.lower()),
        "sluice": {"reason": rejection.reason, "request_id": request_id, **rejection.metadata},
    }
    return _encoder.encode({"error": error})
