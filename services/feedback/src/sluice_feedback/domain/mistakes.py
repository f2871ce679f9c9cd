"""What is wrong with feedback as it was submitted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sluice_feedback.domain.feedback import Feedback, Kind, Value

LONGEST_COMMENT = 4_000  # code points
LONGEST_CORRECTION = 32_000
MOST_TAGS = 16

_FEEDBACK_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_TAG = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a field of a submission."""

    field: str
    message: str


def is_feedback_id(text: str) -> bool:
    """True for what a feedback id may be."""
    return _FEEDBACK_ID.fullmatch(text) is not None


def find_mistakes(feedback: Feedback) -> list[Mistake]:
    """Everything that is wrong with feedback as it was submitted; empty when it is good."""
    mistakes = list(_mistakes_in_value(feedback.value))
    if not is_feedback_id(feedback.feedback_id):
        mistakes.append(Mistake("feedback_id", "feedback_id must have 1 to 64 of A-Z a-z 0-9 _ . -"))
    if not _REQUEST_ID.fullmatch(feedback.request_id):
        mistakes.append(Mistake("request_id", "request_id must have 1 to 128 of A-Z a-z 0-9 _ . : -"))
    if feedback.value.other_request_id == feedback.request_id:
        mistakes.append(Mistake("comparison.other_request_id", "an answer cannot be compared with itself"))
    return mistakes + _mistakes_in_tags(feedback.tags)


def _mistakes_in_value(value: Value) -> Sequence[Mistake]:
    if value.kind is Kind.THUMB and value.thumb is None:
        return [Mistake("thumb", "thumb must be THUMB_UP or THUMB_DOWN")]
    if value.kind is Kind.RATING and (value.rating is None or not 1 <= value.rating <= 5):
        return [Mistake("rating", f"rating is {value.rating}; it must be 1 (worst) to 5 (best)")]
    if value.kind is Kind.COMMENT:
        return _mistakes_in_text("comment", value.text or "", LONGEST_COMMENT)
    if value.kind is Kind.CORRECTION:
        return _mistakes_in_text("correction", value.text or "", LONGEST_CORRECTION)
    if value.kind is Kind.COMPARISON:
        return _mistakes_in_comparison(value)
    return []


def _mistakes_in_text(field: str, text: str, longest: int) -> Sequence[Mistake]:
    if not text.strip():
        return [Mistake(field, f"{field} is empty")]
    if len(text) > longest:
        return [Mistake(field, f"{field} has {len(text)} code points; at most {longest} are taken")]
    if "\0" in text:
        return [Mistake(field, f"{field} must not hold NUL")]
    return []


def _mistakes_in_comparison(value: Value) -> Sequence[Mistake]:
    mistakes = []
    if not _REQUEST_ID.fullmatch(value.other_request_id or ""):
        message = "other_request_id must have 1 to 128 of A-Z a-z 0-9 _ . : -"
        mistakes.append(Mistake("comparison.other_request_id", message))
    if value.preference is None:
        message = "preference must be PREFERENCE_THIS, PREFERENCE_OTHER or PREFERENCE_TIE"
        mistakes.append(Mistake("comparison.preference", message))
    return mistakes


def _mistakes_in_tags(tags: Sequence[str]) -> list[Mistake]:
    if len(tags) > MOST_TAGS:
        return [Mistake("tags", f"{len(tags)} tags were given; at most {MOST_TAGS} are taken")]
    return [
        Mistake(f"tags[{i}]", "a tag must have 1 to 64 of a-z 0-9 _")
        for i, tag in enumerate(tags)
        if not _TAG.fullmatch(tag)
    ]
