"""What somebody says about an answer, and what becomes of it."""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid5

MOST_PER_REQUEST = 1_000
_SAID = ("kind", "thumb", "rating", "text", "other_request_id", "preference")

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
    sealed_text: bytes | None = None
    """The redacted text, encrypted; text is then None."""

    @property
    def has_text(self) -> bool:
        """Whether its kind is one of text; the text itself may have been erased."""
        return self.kind in (Kind.COMMENT, Kind.CORRECTION)


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

    def with_sealed_text(self, sealed: bytes) -> "Feedback":
        return replace(self, value=replace(self.value, text=None, sealed_text=sealed))

    def digest(self) -> str:
        """Digest of what was said, but for a sealed text: a digest of a short text could be guessed back.

        A text in clear is part of it, and must be redacted.
        """
        said = [self.request_id, *(getattr(self.value, name) for name in _SAID), self.source, *self.tags]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def event_id(self, *, is_retraction: bool) -> str:
        """Id of the event that tells of it: the same however often it is sent."""
        fact = "retracted" if is_retraction else "received"
        return str(uuid5(_EVENT_NAMESPACE, json.dumps([self.tenant_id, self.feedback_id, fact])))


REQUEST_OWNER = "request-"
"""Begins the name of a key that stands for a request and not for a person."""


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
class ReadFeedback:
    """Feedback as it is shown; `left_out` says why it has no text, and is empty otherwise."""

    stored: StoredFeedback
    left_out: str = ""


class StoreUnavailable(Exception):
    """The database cannot be reached now; trying again later may help."""


class RedactionUnavailable(Exception):
    """The text could not be redacted now; without that it is not stored."""


class KeysUnavailable(Exception):
    """The key store cannot be asked now; without it no text is stored."""


class TextGone(Exception):
    """A sealed text cannot be read; the message is a code: ERASED, UNREADABLE or KEY_STORE_UNAVAILABLE."""


class CaptureRefused(Exception):
    """The tenant captures no text, so none is taken."""


class ForeignRequest(Exception):
    """The request is known to be another tenant's."""


class ContentDiffers(Exception):
    """The feedback id is taken, with other content."""


class TooMuchFeedback(Exception):
    """The request has MOST_PER_REQUEST pieces of feedback already."""


class UnknownFeedback(Exception):
    """The tenant has no feedback of this id."""
