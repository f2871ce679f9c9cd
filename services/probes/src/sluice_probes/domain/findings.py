"""What is asked of a route, what it answered, and what is concluded of its guards."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass

CHAT_ROUTES = ("grpc_chat", "grpc_stream", "http_chat", "http_stream")
EMBED_ROUTES = ("grpc_embed", "http_embed")
ROUTES = (*CHAT_ROUTES, *EMBED_ROUTES)

INPUT_REDACTION, INPUT_MODERATION = "input_redaction", "input_moderation"
OUTPUT_MODERATION, OUTPUT_REDACTION, RESTORATION = "output_moderation", "output_redaction", "restoration"
GUARDS = (INPUT_REDACTION, INPUT_MODERATION, OUTPUT_MODERATION, OUTPUT_REDACTION, RESTORATION)


def guards_of(route: str) -> tuple[str, ...]:
    """The guards that a route has: vectors are no text, so nothing of an answer is filtered there."""
    return GUARDS if route in CHAT_ROUTES else (INPUT_REDACTION, INPUT_MODERATION)


class State(enum.Enum):
    """What is known of a guard."""

    GUARDED = "guarded"
    UNGUARDED = "unguarded"
    UNAVAILABLE = "unavailable"
    UNTESTED = "untested"


@dataclass(frozen=True)
class Finding:
    """One guard of one route."""

    route: str
    guard: str
    model: str
    state: State
    reason: str = ""
    decision_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a route gave back; `error` is the reason of a refusal, `vectors` is what an embedding route gives in place of text."""

    text: str = ""
    error: str = ""
    withheld: bool = False
    policy: str = ""
    decision_ids: tuple[str, ...] = ()
    skipped_filters: tuple[str, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()
    redaction_policy: str = ""
    """`id@version`; empty where the answer names none."""


@dataclass(frozen=True)
class Detection:
    """One seeded value that was sent, and whether no part of it reached the model."""

    kind: str
    origin: str
    is_found: bool
    redaction_policy: str = ""


MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
NO_ANSWER, UNREADABLE = "NO_ANSWER", "UNREADABLE_ANSWER"
HTTP_ERROR, HTTP_UNAVAILABLE = "HTTP_ERROR", "HTTP_UNAVAILABLE"
"""Of an HTTP status alone, where the body is not the gateway's."""
WITHHELD = frozenset({"CONTENT_BLOCKED", "CONTENT_HELD"})
OUTAGES = frozenset(
    {
        NO_ANSWER, HTTP_UNAVAILABLE, "FILTER_UNAVAILABLE", "FILTER_POLICY_NOT_FOUND", "MODEL_UNAVAILABLE", "MODEL_TIMEOUT",
        "MODEL_FAILED", "OUTBOX_UNAVAILABLE", "OUTBOX_FULL", "DEADLINE", "DEADLINE_EXCEEDED", "BODY_TIMEOUT", "UNAVAILABLE",
        "CANCELLED", "INTERNAL",
    }
)  # fmt: skip
"""What says that something is away or broken. All else is about the request, the key or the model, or unknown: it says nothing."""


_POLICY = re.compile(r"[A-Za-z0-9_-]{1,64}@[0-9]{1,10}")


def policy_named(told: object) -> str:
    """A redaction policy as redaction names its own; empty for anything else: it becomes a label, and somebody else's words do not."""
    return told if isinstance(told, str) and _POLICY.fullmatch(told) else ""


def without_answer(answer: Answer) -> State | None:
    """The state of every guard that a request was to try and that gave no answer; None where there is one."""
    if not answer.error:
        return None
    return State.UNAVAILABLE if answer.error in OUTAGES else State.UNTESTED


def skipped(answer: Answer, filter_name: str) -> bool:
    """Whether the answer says itself that this filter was left out, as a tenant may choose."""
    return any(filter_name in name for name in answer.skipped_filters)


def worst(findings: Sequence[Finding]) -> State:
    """The state that a person must know of first."""
    order = (State.UNGUARDED, State.UNAVAILABLE, State.UNTESTED, State.GUARDED)
    return min((finding.state for finding in findings), key=order.index, default=State.UNTESTED)
