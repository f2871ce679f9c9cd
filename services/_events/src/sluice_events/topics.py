"""Topics as the protos declare them: name, key, partitions, retention, clean-up, classification."""

import functools
import importlib
import pkgutil
from dataclasses import dataclass

import sluice.events.v1
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from sluice.events.v1 import options_pb2

DEAD_LETTER_SUFFIX = ".dlq"
DEAD_LETTER_RETENTION_MS = 30 * 24 * 3600 * 1000
DEFAULT_PARTITIONS = 4
DEFAULT_RETENTION_MS = 7 * 24 * 3600 * 1000


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


def topic_of(message_class: type[Message]) -> TopicSpec:
    """The topic of an event class. ValueError when the message is no event."""
    if not (isinstance(message_class, type) and issubclass(message_class, Message)):
        raise ValueError(f"{message_class!r} is no event class, such as sluice.events.v1.gateway_pb2.RequestCompleted")
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
        retention_ms=DEAD_LETTER_RETENTION_MS,
        compacted=False,
        cleanup_policy="delete",
        classification=spec.classification,
        message_class=None,
    )
