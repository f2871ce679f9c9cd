"""A record as its consumer takes it: the event in it and where it stood, or why there is none."""

from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from sluice_kit.events import UndecodableEvent, decode


@dataclass(frozen=True)
class ConsumedEvent:
    """An event and where it stood."""

    message: Message
    topic: str
    partition: int
    offset: int
    key: bytes
    headers: dict[str, bytes]
    event_id: str
    timestamp_ms: int
    value: bytes = field(default=b"", repr=False)
    """The record's bytes as they came."""


@dataclass(frozen=True)
class Taken:
    """A fetched record, read."""

    record: Any
    """aiokafka's ConsumerRecord."""
    event: ConsumedEvent | None
    fault: str = ""
    """Why there is no event in it: a code of UndecodableEvent."""


def take(record: Any) -> Taken:
    """Read a fetched record."""
    try:
        message: Any = decode(record.topic, record.value, list(record.headers))
    except UndecodableEvent as error:
        return Taken(record, None, error.reason)
    return Taken(
        record,
        ConsumedEvent(
            message=message,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key or b"",
            headers=dict(record.headers),
            event_id=message.metadata.event_id,
            timestamp_ms=record.timestamp,
            value=record.value,
        ),
    )
