"""One request's story: steps on a line of time, verdicts with their evidence, findings, money, feedback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sluice_console.domain.answers import Amount

WIDTH = 1000
"""Units across the line of time."""
_LEAST = 4


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One request in the list."""

    id: str
    tenant: str
    project: str
    ended_at: datetime
    outcome: str
    reason: str
    model: str
    route: str
    prompt_version: str
    latency: float | None
    """Seconds."""
    tokens: int
    costs: Sequence[Amount]
    kinds: Sequence[str]
    blocked_categories: Sequence[str]
    verdicts: Sequence[str]
    """What moderation decided, such as `flagged`."""
    categories: Sequence[str]
    """That reached a threshold of moderation, whatever was then done."""
    feedback_count: int
    thumbs: int
    synthetic: bool
    awaiting: Sequence[str] = ()
    """Decisions that wait for a person."""


@dataclass(frozen=True, slots=True)
class RequestPage:
    """A page of the list."""

    lines: Sequence[RequestLine]
    next_token: str
    newest_at: datetime | None


@dataclass(frozen=True, slots=True)
class Step:
    """Something that took time."""

    name: str
    end: datetime
    took: timedelta | None
    result: str
    note: str
    tone: str

    @property
    def start(self) -> datetime:
        """Events tell when a step ended and how long it took."""
        return self.end - (self.took or timedelta())


@dataclass(frozen=True, slots=True)
class Bar:
    """A step as it is drawn: `x` and `width` of WIDTH."""

    step: Step
    x: int
    width: int
    offset: float
    """Seconds after the request began."""


@dataclass(frozen=True, slots=True)
class Score:
    """One category of a verdict."""

    category: str
    score: float
    threshold: float
    action: str
    detector: str


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict of moderation, with what it rests on."""

    id: str
    direction: str
    action: str
    policy: str
    scores: Sequence[Score]
    skipped: Sequence[str]
    """Checks that should have been made and were not, with the reason."""
    not_asked: Sequence[str]
    """Checks that the policy leaves out."""
    models: Mapping[str, str]
    groups: Sequence[str]
    language: str
    is_shadow: bool
    awaits_review: bool
    took: timedelta | None

    @property
    def because(self) -> Score | None:
        """The score that decided: the one furthest over its threshold whose action is the verdict's."""
        reached = [
            one for one in self.scores if one.threshold and one.score >= one.threshold and one.action == self.action
        ]
        return max(reached, key=lambda one: one.score - one.threshold, default=None)


@dataclass(frozen=True, slots=True)
class Finding:
    """How often a kind of personal data was replaced; the values are nowhere."""

    kind: str
    direction: str
    count: int


@dataclass(frozen=True, slots=True)
class CostRow:
    """A row of the ledger with its lines."""

    at: datetime
    kind: str
    amount: Amount
    is_unpriced: bool
    is_correction: bool
    price: str
    lines: Sequence[tuple[str, int, str, Amount]]


@dataclass(frozen=True, slots=True)
class Remark:
    """Feedback or a review: that it was given, and its value where that is no text."""

    at: datetime
    what: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of one request."""

    id: str
    line: RequestLine | None
    facts: Sequence[tuple[str, str]]
    trace_id: str
    steps: Sequence[Step]
    first_text_at: datetime | None
    decisions: Sequence[Decision]
    findings: Sequence[Finding]
    costs: Sequence[CostRow]
    remarks: Sequence[Remark]
    skipped_filters: Sequence[str]

    @property
    def why(self) -> str:
        """One sentence: what happened and because of what."""
        if self.line is None:
            return "Its end is not known yet: it is under way, or its last event has not come."
        if self.line.outcome.startswith("blocked"):
            return self._blocked()
        if self.line.reason:
            return f"It ended as {self.line.outcome}: {self.line.reason}."
        return "It was answered." if self.line.outcome == "completed" else f"It ended as {self.line.outcome}."

    def _blocked(self) -> str:
        assert self.line is not None
        way = "input" if self.line.outcome == "blocked input" else "output"
        blocking = [
            one
            for one in self.decisions
            if one.direction == way and one.action in ("block", "hold") and not one.is_shadow
        ]
        if not blocking:
            named = f" because of {', '.join(self.line.blocked_categories)}" if self.line.blocked_categories else ""
            return f"The {way} was blocked{named}; the decision itself is not known here (its event has not come, or is too old)."
        decision = blocking[-1]
        score = decision.because
        if score is None:
            return f"The {way} was blocked by policy {decision.policy}."
        return (
            f"The {way} was blocked by policy {decision.policy}: {score.category.replace('_', ' ')} scored"
            f" {score.score:.3f}, and from {score.threshold:.3f} on the policy says {score.action}."
        )


def bars(steps: Sequence[Step]) -> list[Bar]:
    """The steps on one line of time, from the first beginning to the last end; what took no time is still seen."""
    if not steps:
        return []
    begin, end = min(step.start for step in steps), max(step.end for step in steps)
    whole = max((end - begin).total_seconds(), 1e-6)
    found = []
    for step in sorted(steps, key=lambda one: (one.start, -(one.took or timedelta()))):
        offset = (step.start - begin).total_seconds()
        width = max(_LEAST, round((step.took or timedelta()).total_seconds() / whole * WIDTH))
        x = min(round(offset / whole * WIDTH), WIDTH - _LEAST)
        found.append(Bar(step, x, min(width, WIDTH - x), offset))
    return found
