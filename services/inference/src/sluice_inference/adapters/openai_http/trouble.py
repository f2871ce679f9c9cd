"""What goes wrong with an upstream, in the domain's words. Texts of upstreams may quote the request: none is passed on."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any

from sluice_inference.domain.refusals import (
    EngineFailed,
    EngineUnavailable,
    InferenceRefusal,
    InvalidRequest,
    Overloaded,
)

_RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_WORD = re.compile(r"[a-z0-9_.]{1,64}")


class UpstreamTrouble(Exception):
    """A refusal, and whether and when the upstream may be asked again."""

    def __init__(
        self, refusal: InferenceRefusal, *, retryable: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(refusal.message)
        self.refusal, self.retryable, self.retry_after_seconds = refusal, retryable, retry_after_seconds


def of_status(status: int, *, headers: Mapping[str, str], body: Any) -> UpstreamTrouble:
    """From an HTTP answer that is no success; `body` is its JSON or None."""
    code, kind = _words(body)
    if {code, kind} & _TOO_LONG:
        return UpstreamTrouble(_too_long())
    if code in _QUOTA:
        return UpstreamTrouble(EngineFailed("the upstream's quota is used up.", reason="UPSTREAM_QUOTA_USED_UP"))
    wait = retry_after(headers)
    if status == 429:
        refusal: InferenceRefusal = Overloaded(
            "the upstream has too many requests; try again later.", retry_after_seconds=wait or 1.0
        )
        return UpstreamTrouble(refusal, retryable=True, retry_after_seconds=wait)
    if status in _RETRYABLE_STATUSES or status >= 500:
        refusal = EngineUnavailable(f"the upstream answered {status}; try again soon.")
        return UpstreamTrouble(refusal, retryable=status in _RETRYABLE_STATUSES, retry_after_seconds=wait)
    return UpstreamTrouble(_lasting(status, code))


def of_error(error: Any) -> UpstreamTrouble:
    """From an error object inside a stream."""
    status = error.get("code") if isinstance(error, dict) else None
    if isinstance(status, str) and status.isdigit():
        status = int(status)
    return of_status(status if isinstance(status, int) else 500, headers={}, body={"error": error})


def of_connection(error: Exception) -> UpstreamTrouble:
    """From a connection that could not be made, or broke."""
    name = type(error).__name__
    return UpstreamTrouble(
        EngineUnavailable(f"the upstream cannot be reached or broke the connection ({name})."), retryable=True
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from `retry-after-ms` or `Retry-After` (seconds or a date); None when absent or unreadable."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if not value:
            return None
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _lasting(status: int, code: str) -> InferenceRefusal:
    told = f" ({code})" if code else ""
    if status in (400, 422):
        return InvalidRequest("request", f"the upstream cannot take this request{told}.", reason="UPSTREAM_REFUSED")
    if status == 413:
        return _too_long()
    if status in (401, 403):
        return EngineFailed("the upstream does not accept this service's key.", reason="UPSTREAM_KEY_REFUSED")
    if status == 404:
        return EngineFailed("the upstream does not know this model or path.", reason="UPSTREAM_MODEL_MISSING")
    return EngineFailed(f"the upstream answered {status}{told}.")


def _too_long() -> InvalidRequest:
    return InvalidRequest("input", "the prompt is too long for the upstream's model.", reason="PROMPT_TOO_LONG")


def _words(body: Any) -> tuple[str, str]:
    """The error's code and type, where they are plain words and not sentences."""
    error = body.get("error", body) if isinstance(body, dict) else {}
    if not isinstance(error, dict):
        return "", ""
    code, kind = (str(error.get(name) or "") for name in ("code", "type"))
    return tuple(word if _WORD.fullmatch(word) else "" for word in (code, kind))  # type: ignore[return-value]
