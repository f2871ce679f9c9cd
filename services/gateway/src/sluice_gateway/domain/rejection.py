"""Why a request is not answered: the short list of failures a caller can see."""

from collections.abc import Mapping
from enum import Enum


class Kind(Enum):
    """What sort of failure it is; each door maps it to its own codes (README, "What goes wrong")."""

    INVALID = "invalid"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    UNAUTHENTICATED = "unauthenticated"
    NOT_FOUND = "not_found"
    EXHAUSTED = "exhausted"
    BLOCKED = "blocked"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


class Rejection(Exception):
    """A request that ends without an answer. The message goes to the caller and holds no text of the request."""

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        reason: str,
        field: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.reason = reason
        self.field = field
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds


class FilterUnavailable(Rejection):
    """A filter did not answer in time, or at all. Never means that the text was fine."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(
            Kind.UNAVAILABLE,
            f"The {name} filter is not available, so nothing is let through; try again later.",
            reason="FILTER_UNAVAILABLE",
            metadata={"filter": name, "cause": cause},
            retry_after_seconds=1,
        )


def invalid(field: str, message: str, *, reason: str = "INVALID_VALUE") -> Rejection:
    """A value the caller must change; `field` is its path in the request."""
    return Rejection(Kind.INVALID, message, reason=reason, field=field)


def internal(reason: str = "INTERNAL") -> Rejection:
    """A failure of ours; says nothing of its cause to the caller."""
    return Rejection(Kind.INTERNAL, "An internal error; the request id names it.", reason=reason)
