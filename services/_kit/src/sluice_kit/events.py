"""What a producer adds to the wire format of `sluice_events`: ids and a clock. The format itself is written once, there."""

from datetime import UTC, datetime

import uuid_utils
from sluice_events.seen import SeenIds
from sluice_events.topics import DEAD_LETTER_SUFFIX, TopicSpec, all_topics, event_topics, topic_of
from sluice_events.wire import CONTENT_TYPE, EncodedEvent, Headers, UndecodableEvent, decode, encode

__all__ = [
    "CONTENT_TYPE",
    "DEAD_LETTER_SUFFIX",
    "EncodedEvent",
    "Headers",
    "SeenIds",
    "TopicSpec",
    "UndecodableEvent",
    "all_topics",
    "decode",
    "encode",
    "event_topics",
    "new_event_id",
    "now",
    "topic_of",
]


def new_event_id() -> str:
    """A fresh event id: UUIDv7, ordered by time."""
    return str(uuid_utils.uuid7())


def now() -> datetime:
    """The producer's clock, UTC."""
    return datetime.now(UTC)
