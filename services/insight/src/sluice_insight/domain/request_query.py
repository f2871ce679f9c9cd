"""What requests are searched by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Cursor = tuple[int, str, str]
"""End in microseconds, request id, tenant: where a page ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestQuery:
    """All conditions hold; empty and zero ones hold always. Times in microseconds."""

    limit: int
    tenant_id: str = ""
    project_id: str = ""
    model: str = ""
    route: str = ""
    prompt_version: str = ""
    outcomes: Sequence[int] = ()
    marks: Sequence[str] = ()
    """`kind:<kind of personal data>`, `blocked:<category>`, `category:<category>`, `verdict:<action>` or `verdict:<action>:<category>`."""
    min_latency_us: int = 0
    with_feedback: bool = False
    awaiting_review: bool = False
    include_synthetic: bool = False
    start_us: int = 0
    end_us: int = 0
    after: Cursor | None = None


class BadCursor(ValueError):
    """A page token that no answer gave."""


def token_of(cursor: Cursor) -> str:
    """A cursor as text."""
    return "|".join((str(cursor[0]), cursor[2], cursor[1]))


def cursor_from(token: str) -> Cursor:
    """Reads a token. Raises BadCursor."""
    at, _, rest = token.partition("|")
    tenant, bar, request_id = rest.partition("|")
    if not bar or not at.isascii() or not at.isdigit() or len(at) > 18:
        raise BadCursor(token)
    return int(at), request_id, tenant
