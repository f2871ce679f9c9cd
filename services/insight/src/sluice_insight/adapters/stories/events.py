"""What of an event is kept in a request's story: never a text, an embedding or a pseudonym."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.feedback_pb2 import FeedbackReceived, ReviewRequested, ReviewResolved
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.events.v1.redaction_pb2 import TextRedacted

STORY_EVENTS: Sequence[type[Message]] = (
    RequestCompleted,
    TextRedacted,
    ContentModerated,
    InferenceMeasured,
    CostRecorded,
    FeedbackReceived,
    ReviewRequested,
    ReviewResolved,
)
CLASSES: Mapping[str, type[Message]] = {one.DESCRIPTOR.name: one for one in STORY_EVENTS}

LEFT_OUT: Mapping[str, Sequence[str]] = {
    "RequestCompleted": ("redacted_prompt", "redacted_answer", "encrypted_prompt", "encrypted_answer"),
    "InferenceMeasured": ("prompt_profile.embedding", "answer_profile.embedding"),
    "FeedbackReceived": ("redacted_comment", "redacted_correction", "encrypted_text", "tags"),
}
"""Fields that are not kept, by event. Of a comment or a correction it is kept that there was one (`has_text`)."""


@dataclass(frozen=True, slots=True)
class StoryEvent:
    """One event as it is kept."""

    event_id: str
    tenant_id: str
    request_id: str
    name: str
    at_us: int
    body: bytes


def story_event(message: Any) -> StoryEvent | None:
    """The event as it is kept; None for one that belongs to no request."""
    metadata = message.metadata
    if not metadata.request_id or not metadata.event_id:
        return None
    kept = type(message)()
    kept.CopyFrom(message)
    for path in LEFT_OUT.get(message.DESCRIPTOR.name, ()):
        _clear(kept, path.split("."))
    kept.metadata.ClearField("subject_id")
    return StoryEvent(
        metadata.event_id,
        metadata.tenant_id,
        metadata.request_id,
        message.DESCRIPTOR.name,
        metadata.occurred_at.ToMicroseconds(),
        kept.SerializeToString(deterministic=True),
    )


def read(name: str, body: bytes) -> Message:
    """A kept event."""
    return CLASSES[name].FromString(body)


def _clear(message: Any, path: Sequence[str]) -> None:
    *outer, last = path
    for name in outer:
        if not message.HasField(name):
            return
        message = getattr(message, name)
    message.ClearField(last)
