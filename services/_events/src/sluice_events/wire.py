"""Events on the wire: CloudEvents 1.0 Kafka binding in binary mode. Producers and consumers of the mesh use this very code."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, Message

from sluice_events.framing import message_bytes
from sluice_events.topics import TopicSpec, event_topics, topic_of

CONTENT_TYPE = b"application/protobuf"

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class EncodedEvent:
    """A Kafka record."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


class UndecodableEvent(Exception):
    """A record that is no event of its topic. `reason` is a short code; the message holds nothing of the record."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def encode(event: Message) -> EncodedEvent:
    """The Kafka record of an event whose metadata is complete. ValueError when the event has no id."""
    spec = topic_of(type(event))
    metadata: Any = event.metadata  # type: ignore[attr-defined]
    if not metadata.event_id:
        raise ValueError(f"{spec.name}: an event needs an id before it is encoded")
    return EncodedEvent(
        spec.name, _key(event, spec.key_path), event.SerializeToString(deterministic=True), _headers(spec, metadata)
    )


def _key(event: Message, path: str) -> bytes:
    value: Any = event
    for name in path.split("."):
        value = getattr(value, name)
    # A fact about no request still needs a key, or compaction and ordering by key would not apply to it.
    return (value or event.metadata.event_id).encode()  # type: ignore[attr-defined]


def _headers(spec: TopicSpec, metadata: Any) -> Headers:
    attributes = {
        "ce_specversion": "1.0",
        "ce_id": metadata.event_id,
        "ce_source": metadata.producer,
        "ce_type": spec.name,
        "ce_time": metadata.occurred_at.ToJsonString(),
        "ce_subject": metadata.request_id,
        "ce_dataschema": f"urn:sluice:{spec.message_class.DESCRIPTOR.full_name}" if spec.message_class else "",
        "ce_sequence": str(metadata.producer_sequence) if metadata.producer_sequence else "",
        "ce_dataclassification": spec.classification,
        "traceparent": metadata.traceparent,
    }
    return [("content-type", CONTENT_TYPE), *((key, value.encode()) for key, value in attributes.items() if value)]


@functools.cache
def _class_of_topic(topic: str) -> type[Message] | None:
    return next((spec.message_class for spec in event_topics() if spec.name == topic), None)


def decode(
    topic: str, value: bytes | None, headers: Iterable[tuple[str, bytes]] | Mapping[str, bytes] | None = None
) -> Message:
    """The event of a record, in a schema registry's frame or without.

    Raises UndecodableEvent: unknown_topic, no_value, wrong_type, malformed or no_metadata.
    """
    message_class = _class_of_topic(topic)
    if message_class is None:
        raise UndecodableEvent("unknown_topic")
    if value is None:
        raise UndecodableEvent("no_value")
    told = dict(headers or ())
    if "ce_type" in told and told["ce_type"] != topic.encode():
        raise UndecodableEvent("wrong_type")
    if told.get("content-type", CONTENT_TYPE) != CONTENT_TYPE:
        raise UndecodableEvent("wrong_type")
    try:
        message: Message = message_class.FromString(message_bytes(value))
    except (DecodeError, ValueError):
        raise UndecodableEvent("malformed") from None
    if not message.metadata.event_id:  # type: ignore[attr-defined]
        raise UndecodableEvent("no_metadata")
    return message
