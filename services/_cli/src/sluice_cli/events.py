"""The mesh's events, live: a plain consumer without a group, so that looking changes nothing."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from sluice_kit.broker import client_options, install_empty_fetch_guard
from sluice_kit.events import DEAD_LETTER_SUFFIX, TopicSpec, UndecodableEvent, all_topics, decode, event_topics
from sluice_kit.kafka_client import closed
from sluice_kit.settings import MeshSettings

from sluice_cli.mesh import demo_env
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem

ATTRIBUTES = ("id", "source", "type", "time", "subject", "sequence", "dataschema", "dataclassification")
"""CloudEvents attributes, in the order they are printed."""


@dataclass(frozen=True)
class SeenEvent:
    """A record of an event topic: its message, or why it is none."""

    topic: str
    partition: int
    offset: int
    headers: Mapping[str, bytes]
    message: Message | None
    error: str = ""

    def as_json(self, opened: Callable[[Message], Mapping[str, Any]] | None = None) -> str:
        """One line: the CloudEvents attributes and the event as protobuf's JSON; of a broken record its place and the reason.

        `opened` gives what stands in the place of fields, such as decrypted texts.
        """
        if self.message is None:
            told: dict[str, Any] = {
                "error": self.error,
                "topic": self.topic,
                "partition": self.partition,
                "offset": self.offset,
            }
            return json.dumps(told | {"headers": _texts(self.headers)}, ensure_ascii=False)
        texts = _texts(self.headers)
        attributes = {name: texts[f"ce_{name}"] for name in ATTRIBUTES if f"ce_{name}" in texts}
        traceparent = {"traceparent": texts["traceparent"]} if "traceparent" in texts else {}
        data = MessageToDict(self.message, preserving_proto_field_name=True)
        data |= opened(self.message) if opened else {}
        return json.dumps(attributes | traceparent | {"data": data}, ensure_ascii=False)


def _texts(headers: Mapping[str, bytes]) -> dict[str, str]:
    return {name: value.decode(errors="replace") for name, value in headers.items()}


def topics_named(names: Sequence[str]) -> list[TopicSpec]:
    """Topics by type (`sluice.gateway.request_completed.v1`, also with `.dlq`) or event name (`RequestCompleted`), any case.

    Without names all events, not the dead letters.
    """
    by_name = {spec.name.lower(): spec for spec in all_topics()}
    events = {spec.message_class.DESCRIPTOR.name: spec for spec in event_topics() if spec.message_class}
    by_name |= {name.lower(): spec for name, spec in events.items()}
    unknown = [name for name in names if name.lower() not in by_name]
    if unknown:
        raise MeshProblem(f"There is no event {', '.join(unknown)}; there are {', '.join(sorted(events))}.")
    return [by_name[name.lower()] for name in names] or list(event_topics())


def connection(home: Home) -> MeshSettings:
    """Where the broker is: from the environment, else from the demo.env of the mesh of this home."""
    known = {} if os.environ.get("SLUICE_KAFKA_BOOTSTRAP") else demo_env.read(home)
    os.environ.update({name: value for name, value in known.items() if name.startswith("SLUICE_KAFKA")})
    return MeshSettings()


async def follow(
    settings: MeshSettings,
    topics: Sequence[TopicSpec],
    *,
    from_beginning: bool,
    live: bool = True,
    on_start: Callable[[], None] = lambda: None,
) -> AsyncGenerator[SeenEvent, None]:
    """Events as they come; with live=False those that are there, and then the end; on_start when it reads. MeshProblem when Kafka does not answer."""
    install_empty_fetch_guard(settings)
    consumer = AIOKafkaConsumer(
        **client_options(settings),
        enable_auto_commit=False,
        request_timeout_ms=20_000,
        # On assignment the client looks for a first position by itself, at the same time as we seek: both must go the same way.
        auto_offset_reset="earliest" if from_beginning else "latest",
    )
    try:
        partitions = await asyncio.wait_for(_partitions(settings, topics), 20)
        await asyncio.wait_for(consumer.start(), 20)
    except (KafkaError, OSError, TimeoutError):
        await closed(consumer)
        raise MeshProblem(
            f"Kafka at {settings.kafka_bootstrap} does not answer: is the mesh running (`sluice mesh status`)?"
        ) from None
    try:
        ends = await _assign(consumer, partitions, from_beginning=from_beginning)
        on_start()
        async for seen in _records(consumer, None if live else ends):
            yield seen
    finally:
        with contextlib.suppress(KafkaError):
            await consumer.stop()


async def _assign(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], *, from_beginning: bool
) -> dict[TopicPartition, int]:
    consumer.assign(partitions)
    ends: dict[TopicPartition, int] = await consumer.end_offsets(partitions)
    starts = await consumer.beginning_offsets(partitions) if from_beginning else ends
    for partition, offset in starts.items():
        consumer.seek(partition, offset)
    return ends


async def _partitions(settings: MeshSettings, topics: Sequence[TopicSpec]) -> list[TopicPartition]:
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=20_000)
    try:
        await admin.start()
        # Asking for a topic that is not there makes the embedded broker create it; so only those that are.
        present = set(await admin.list_topics())
        wanted = [spec.name for spec in topics if spec.name in present]
        told = await admin.describe_topics(wanted) if wanted else []
    finally:
        await admin.close()
    if not told:
        raise MeshProblem("Kafka has none of these topics: was the mesh ever started on it?")
    return [
        TopicPartition(topic["topic"], partition["partition"]) for topic in told for partition in topic["partitions"]
    ]


async def _records(
    consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int] | None
) -> AsyncGenerator[SeenEvent, None]:
    while True:
        if ends is not None and not [p for p, end in ends.items() if await consumer.position(p) < end]:
            return
        batches = await consumer.getmany(timeout_ms=500, max_records=1000)
        for record in sorted((r for batch in batches.values() for r in batch), key=lambda r: r.timestamp):
            yield _seen(record)


def _seen(record: ConsumerRecord) -> SeenEvent:
    headers = dict(record.headers)
    place = (record.topic, record.partition, record.offset, headers)
    if record.topic.endswith(DEAD_LETTER_SUFFIX):
        return SeenEvent(
            *place, message=None, error=headers.get("sluice_error_reason", b"dead letter").decode(errors="replace")
        )
    try:
        return SeenEvent(*place, message=decode(record.topic, record.value, headers))
    except UndecodableEvent as error:
        return SeenEvent(*place, message=None, error=error.reason)
