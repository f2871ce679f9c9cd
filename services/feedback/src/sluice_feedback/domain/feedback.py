"""What somebody says about an answer: how it is checked, whose it is, and when it counts."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid5

LONGEST_COMMENT = 4_000  # code points
LONGEST_CORRECTION = 32_000
MOST_TAGS = 16
MOST_PER_REQUEST = 1_000

_FEEDBACK_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}", re.ASCII)
_TAG = re.compile(r"[a-z0-9_]{1,64}", re.ASCII)

# Fixed for ever: they make the ids of the events of a piece of feedback.
_EVENT_NAMESPACE = UUID("7c6c0f5e-46de-5b53-8a8c-0d8d3a1f92a1")


class Kind(StrEnum):
    """What a piece of feedback is."""

    THUMB = "thumb"
    RATING = "rating"
    COMMENT = "comment"
    CORRECTION = "correction"
    COMPARISON = "comparison"


class Thumb(StrEnum):
    UP = "up"
    DOWN = "down"


class Preference(StrEnum):
    """Which of two answers was better."""

    THIS = "this"
    OTHER = "other"
    TIE = "tie"


class Source(StrEnum):
    """Who gave it."""

    END_USER = "end_user"
    REVIEWER = "reviewer"
    AUTOMATIC = "automatic"


@dataclass(frozen=True, slots=True)
class Value:
    """What was said: the fields of its kind are set, the others are not."""

    kind: Kind
    thumb: Thumb | None = None
    rating: int | None = None
    text: str | None = None
    """Comment or correction. Raw until it is redacted, and only redacted text is ever stored."""
    other_request_id: str | None = None
    preference: Preference | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """One piece of feedback and the circumstances it came in."""

    feedback_id: str
    request_id: str
    tenant_id: str
    value: Value
    source: Source = Source.END_USER
    tags: tuple[str, ...] = ()
    project_id: str = ""
    subject_id: str = ""
    traceparent: str = ""
    is_synthetic: bool = False

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Every request it speaks of."""
        other = self.value.other_request_id
        return (self.request_id, other) if other else (self.request_id,)

    def with_text(self, text: str) -> "Feedback":
        return replace(self, value=replace(self.value, text=text))

    def digest(self) -> str:
        """Digest of what was said. To be taken of redacted text: a digest of a short raw text could be guessed back."""
        said = [self.request_id, *(getattr(self.value, name) for name in Value.__slots__), self.source, *self.tags]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def event_id(self, *, is_retraction: bool) -> str:
        """Id of the event that tells of it: the same however often it is sent."""
        fact = "retracted" if is_retraction else "received"
        return str(uuid5(_EVENT_NAMESPACE, json.dumps([self.tenant_id, self.feedback_id, fact])))


class Standing(StrEnum):
    """What became of it."""

    ACCEPTED = "accepted"
    RETRACTED = "retracted"
    """Taken back by who gave it."""
    REJECTED = "rejected"
    """The request turned out to be another tenant's."""


@dataclass(frozen=True, slots=True)
class StoredFeedback:
    """Feedback as it stands."""

    feedback: Feedback
    received_at: datetime
    standing: Standing = Standing.ACCEPTED
    ended_at: datetime | None = None
    """When it was retracted or rejected."""


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


class StoreUnavailable(Exception):
    """The database cannot be reached now; trying again later may help."""


class RedactionUnavailable(Exception):
    """The text could not be redacted now; without that it is not stored."""


class ForeignRequest(Exception):
    """The request is known to be another tenant's."""


class ContentDiffers(Exception):
    """The feedback id is taken, with other content."""


class TooMuchFeedback(Exception):
    """The request has MOST_PER_REQUEST pieces of feedback already."""


class UnknownFeedback(Exception):
    """The tenant has no feedback of this id."""


class Redactor(Protocol):
    """Takes personal data out of a text."""

    async def redact(self, text: str) -> str:
        """Raises RedactionUnavailable."""


class FeedbackStore(Protocol):
    """Where feedback is kept. Every method raises StoreUnavailable when the database cannot be reached."""

    async def add(self, feedback: Feedback, *, received_at: datetime) -> tuple[StoredFeedback, bool]:
        """Stores feedback and its event, once. Returns it as stored, and whether its request is known.

        Raises ForeignRequest, ContentDiffers, TooMuchFeedback.
        """

    async def retract(self, tenant_id: str, feedback_id: str, *, at: datetime) -> StoredFeedback:
        """Takes feedback back, once. Raises UnknownFeedback."""

    async def of_request(self, tenant_id: str, request_id: str) -> tuple[Sequence[StoredFeedback], bool]:
        """The tenant's feedback of a request, oldest first, and whether the request is known. Raises ForeignRequest."""

    async def check_owner(self, tenant_id: str, request_ids: Sequence[str]) -> None:
        """Raises ForeignRequest when one of the requests is known to be another tenant's."""


class Desk:
    """Takes feedback in."""

    def __init__(self, store: FeedbackStore, redactor: Redactor) -> None:
        self._store, self._redactor = store, redactor

    async def submit(self, feedback: Feedback, *, received_at: datetime) -> tuple[StoredFeedback, bool]:
        """Stores checked feedback with its text redacted; nothing is stored when it cannot be redacted.

        Raises what FeedbackStore.add raises, and RedactionUnavailable.
        """
        # Asked before the text goes anywhere, and again in the transaction that stores it.
        await self._store.check_owner(feedback.tenant_id, feedback.request_ids)
        if feedback.value.text is not None:
            feedback = feedback.with_text(await self._redactor.redact(feedback.value.text))
        return await self._store.add(feedback, received_at=received_at)


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """A request whose completion was seen, and whose it is."""

    request_id: str
    tenant_id: str
    completed_at: datetime


@dataclass(frozen=True, slots=True)
class Partition:
    """Where an event was read."""

    topic: str
    number: int


class RequestRegister(Protocol):
    """The bounded memory of which request is whose."""

    async def learn(
        self, requests: Sequence[KnownRequest], next_offsets: Mapping[Partition, int], *, at: datetime
    ) -> int:
        """Remembers requests, rejects feedback that another tenant gave on them, keeps the offsets: all or nothing.

        Returns how many pieces of feedback were rejected.
        """

    async def forget(self, *, before: datetime, keep_at_most: int) -> int:
        """Drops what completed before a moment, and the oldest beyond a number. Returns how many."""

    async def next_offsets(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """The offset to read next of every partition that was read before."""
