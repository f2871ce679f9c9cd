"""What happened, as far as fairness is concerned: one value object per kind of event."""

from __future__ import annotations

from dataclasses import dataclass

INPUT_TERMS = "input_terms"
OUTPUT_TERMS = "output_terms"
NO_GROUP = "none"
"""Texts that mention no identity term: what the others are compared with."""
INPUT_COHORT = "input_cohort."
OUTPUT_COHORT = "output_cohort."
"""What the attributes begin with that callers declare."""
OTHERS = "others"
"""All other cohorts of an attribute together: what a declared one is compared with. None of them is the normal one."""

SCORE_SCALE = 10_000


@dataclass(frozen=True, slots=True)
class Series:
    """Whose numbers these are. Empty means unknown."""

    tenant_id: str = ""
    project_id: str = ""
    model: str = ""
    policy: str = ""
    """`id@version` of the moderation policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A filter decided about texts. `at` in microseconds of event time, `score` in ten-thousandths."""

    at: int
    request_id: str
    decision_id: str
    tenant_id: str
    project_id: str = ""
    policy: str = ""
    output: bool = False
    groups: tuple[str, ...] = ()
    """Groups of people the texts mention."""
    blocked: bool = False
    flagged: bool = False
    skipped: bool = False
    score: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A request ended."""

    at: int
    request_id: str
    tenant_id: str
    model: str = ""
    input_decision_id: str = ""
    answered: bool = False
    answer_characters: int = 0
    refusal: bool | None = None
    """None: nobody judged it."""
    cohorts: tuple[tuple[str, str], ...] = ()
    """(attribute, value): what the caller declared, or stands with the API key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A person looked at a decision and upheld or overturned it."""

    at: int
    request_id: str
    review_id: str
    decision_id: str
    tenant_id: str
    overturned: bool = False


StoryFact = Decision | Completion | Review
