"""Events on the wire: CloudEvents 1.0 Kafka binding in binary mode, topics and keys read from the protos."""

import functools
import importlib
import pkgutil
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sluice.events.v1
import uuid_utils
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from sluice.events.v1 import options_pb2

DEAD_LETTER_SUFFIX = ".dlq"
CONTENT_TYPE = b"application/protobuf"
DEFAULT_PARTITIONS = 4
DEFAULT_RETENTION_MS = 7 * 24 * 3600 * 1000

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class TopicSpec:
    """A topic as its proto declares it."""

    name: str
    key_path: str
    partitions: int
    retention_ms: int
    compacted: bool
    cleanup_policy: str
    """Kafka's `cleanup.policy`: `delete`, `compact` or `compact,delete`."""
    classification: str
    """`internal` or `confidential`."""
    message_class: type[Message] | None
    """The event; None for dead-letter topics."""


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


def new_event_id() -> str:
    """A fresh event id: UUIDv7, ordered by time."""
    return str(uuid_utils.uuid7())


def topic_of(message_class: type[Message]) -> TopicSpec:
    """The topic of an event class. ValueError when the message is no event."""
    return _topic_of_descriptor(message_class.DESCRIPTOR)


@functools.cache
def _topic_of_descriptor(descriptor: Descriptor) -> TopicSpec:
    if not _is_event(descriptor):
        raise ValueError(f"{descriptor.full_name} declares no topic: it is not an event")
    return _spec(descriptor)


def _is_event(descriptor: Descriptor) -> bool:
    return descriptor.GetOptions().HasExtension(options_pb2.topic)


def _spec(descriptor: Descriptor) -> TopicSpec:
    options = descriptor.GetOptions().Extensions[options_pb2.topic]
    cleanup = {
        options_pb2.CLEANUP_COMPACT: "compact",
        options_pb2.CLEANUP_COMPACT_AND_DELETE: "compact,delete",
    }.get(options.cleanup, "delete")
    return TopicSpec(
        name=options.name,
        key_path=options.key,
        partitions=options.partitions or DEFAULT_PARTITIONS,
        retention_ms=options.retention.ToMilliseconds() or DEFAULT_RETENTION_MS,
        compacted="compact" in cleanup,
        cleanup_policy=cleanup,
        classification=options_pb2.DataClassification.Name(options.data_classification)
        .removeprefix("DATA_CLASSIFICATION_")
        .lower(),
        message_class=GetMessageClass(descriptor),
    )


@functools.cache
def event_topics() -> tuple[TopicSpec, ...]:
    """Every event of sluice.events.v1, by topic name."""
    found = []
    for module in pkgutil.iter_modules(sluice.events.v1.__path__):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(f"sluice.events.v1.{module.name}").DESCRIPTOR
            found += [_spec(m) for m in file.message_types_by_name.values() if _is_event(m)]
    return tuple(sorted(found, key=lambda spec: spec.name))


def all_topics() -> list[TopicSpec]:
    """Every topic the mesh needs: the events' own and, for each, where unreadable records go."""
    return [topic for spec in event_topics() for topic in (spec, _dead_letter(spec))]


def _dead_letter(spec: TopicSpec) -> TopicSpec:
    return TopicSpec(
        name=spec.name + DEAD_LETTER_SUFFIX,
        key_path="",
        partitions=1,
        retention_ms=30 * 24 * 3600 * 1000,
        compacted=False,
        cleanup_policy="delete",
        classification=spec.classification,
        message_class=None,
    )


@functools.cache
def _class_of_topic(topic: str) -> type[Message] | None:
    return next((spec.message_class for spec in event_topics() if spec.name == topic), None)


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


def decode(topic: str, value: bytes | None, headers: Headers | dict[str, bytes] | None = None) -> Message:
    """The event of a record. Raises UndecodableEvent: unknown_topic, no_value, wrong_type, malformed or no_metadata."""
    message_class = _class_of_topic(topic)
    if message_class is None:
        raise UndecodableEvent("unknown_topic")
    if value is None:
        raise UndecodableEvent("no_value")
    told = dict(headers or ())
    if told.get("ce_type", topic.encode()) != topic.encode() or told.get("content-type", CONTENT_TYPE) != CONTENT_TYPE:
        raise UndecodableEvent("wrong_type")
    message = message_class()
    try:
        message.ParseFromString(value)
    except DecodeError:
        raise UndecodableEvent("malformed") from None
    if not message.metadata.event_id:  # type: ignore[attr-defined]
        raise UndecodableEvent("no_metadata")
    return message


def now() -> datetime:
    """The producer's clock, UTC."""
    return datetime.now(UTC)
