"""What happened, as far as quality is concerned: one value object per kind of event."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Series:
    """Whose numbers these are. Empty means unknown, or not split by this."""

    tenant_id: str = ""
    project_id: str = ""
    model: str = ""
    route: str = ""
    prompt_version: str = ""
    experiment_arm: str = ""


class Outcome(StrEnum):
    """How a request ended; the values are the names of the counters in RequestTotals."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    BLOCKED_INPUT = "blocked_input"
    BLOCKED_OUTPUT = "blocked_output"
    REJECTED = "rejected"


class Completion(NamedTuple):
    """A request ended. Times in microseconds; `at` is event time since the epoch.

    A tuple, for there is one for every event: a frozen dataclass takes four times as long to make, and many tuples are
    turned into columns by one call (RequestTotals.add_all).
    """

    offset: int
    at: int
    request_id: str
    series: Series
    outcome: Outcome
    latency: int | None = None
    time_to_first_token: int | None = None
    generation_time: int | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    answer_characters: int = 0
    redactions: int = 0
    streamed: bool = False
    truncated: bool = False
    refusal: bool | None = None
    """None: nobody judged it."""
    empty_answer: bool | None = None
    """None: nobody judged it."""
    language_mismatch: bool | None = None
    """None: nobody judged it."""
    repetition_permille: int | None = None
    """None: nobody judged it."""
    context_sentences: int = 0
    """Sentences judged against the request's context; 0 where it gave none."""
    grounded_sentences: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """Somebody judged an answer, or took a judgement back. Exactly one of the values is set."""

    offset: int
    at: int
    event_id: str
    request_id: str
    tenant_id: str = ""
    thumb: int = 0
    """1 up, -1 down."""
    rating: int | None = None
    """1 (worst) to 5 (best)."""
    comment: bool = False
    correction: bool = False
    comparison: str = ""
    """`won`, `lost` or `tied`."""
    retracted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Moderation:
    """A filter decided about texts. `series` has tenant and project only: the filter knows no model."""

    offset: int
    at: int
    event_id: str
    series: Series
    output: bool = False
    flagged: bool = False
    blocked: bool = False
    skipped: bool = False
    latency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A model graded an answer, or could not. `at` is when the answer's request ended: it counts in that window, however late."""

    offset: int
    at: int
    event_id: str
    series: Series
    score_milli: int | None
    """1,000 to 5,000; None: no usable judgement."""
    screened: bool = False
    """The judge was not shown everything."""


Fact = Completion | Feedback | Moderation | Judgement
