"""Consumes events at least once: commit after the work, poison aside, nothing lost when the broker or the handler is away."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from google.protobuf.message import Message
from prometheus_client import Counter
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from sluice_kit.broker import client_options, install_empty_fetch_guard
from sluice_kit.errors import Unavailable
from sluice_kit.events import DEAD_LETTER_SUFFIX, UndecodableEvent, decode, topic_of
from sluice_kit.process import describe
from sluice_kit.settings import MeshSettings
from sluice_kit.telemetry import logger

log = logger(__name__)

CONSUMED = Counter("sluice_events_consumed_total", "Events handled.", ("topic",))
DEAD_LETTERS = Counter("sluice_events_dead_lettered_total", "Records put on a dead-letter topic.", ("topic", "reason"))

ATTEMPTS = 5
Handler = Callable[[Sequence["ConsumedEvent"]], Awaitable[None]]
StartingOffsets = Callable[[set[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]


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


class EventConsumer:
    """Hands batches of events to `handle`, each partition in order, and commits when it returns.

    A handler that raises `sluice_kit.errors.Unavailable` (its database is away) is tried again for ever; any other error is
    tried five times, then event by event, and an event that still fails goes to `<topic>.dlq` with the reason in its headers.
    `starting_offsets` is asked on every assignment: its positions win over the committed ones (a database that keeps its own).
    """

    def __init__(
        self,
        *,
        service: str,
        group: str,
        events: Sequence[type[Message]],
        handle: Handler,
        settings: MeshSettings,
        starting_offsets: StartingOffsets | None = None,
        batch_size: int = 500,
        batch_wait_ms: int = 200,
    ) -> None:
        self._group, self._handle, self._settings = group, handle, settings
        self._topics = [topic_of(event).name for event in events]
        self._instance_id = f"{service}-{settings.instance}"
        self._starting_offsets = starting_offsets
        self._batch_size, self._batch_wait_ms = batch_size, batch_wait_ms
        self._dead_letters: AIOKafkaProducer | None = None
        self.ready = asyncio.Event()
        """Set when partitions were assigned for the first time."""

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until stop is set. A broker that is away is waited for."""
        install_empty_fetch_guard(self._settings)
        pause = 0.2
        while not stop.is_set():
            try:
                async with self._consumer() as consumer:
                    pause = 0.2
                    await self._consume(consumer, stop)
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("consumer.broker_away", group=self._group, error=type(error).__name__)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
                pause = min(pause * 2, 5.0)

    @contextlib.asynccontextmanager
    async def _consumer(self) -> Any:
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            group_id=self._group,
            group_instance_id=self._instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=15_000,
            heartbeat_interval_ms=3_000,
            max_poll_interval_ms=300_000,
        )
        consumer.subscribe(self._topics, listener=_Assignment(consumer, self._starting_offsets, self.ready))
        self._dead_letters = AIOKafkaProducer(**client_options(self._settings), acks="all", enable_idempotence=True)
        try:
            await consumer.start()
            await self._dead_letters.start()
            yield consumer
        finally:
            for client in (consumer, self._dead_letters):
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    await asyncio.wait_for(client.stop(), 10)

    async def _consume(self, consumer: AIOKafkaConsumer, stop: asyncio.Event) -> None:
        while not stop.is_set():
            records = await consumer.getmany(timeout_ms=self._batch_wait_ms, max_records=self._batch_size)
            flat = [record for partition in records.values() for record in partition]
            if not flat:
                continue
            events = await self._decoded(flat)
            if events:
                await self._handled(events)
            # After a rebalance the partitions are somebody else's: the events come again there, and are known by their ids.
            with contextlib.suppress(CommitFailedError, IllegalStateError):
                await consumer.commit({tp: batch[-1].offset + 1 for tp, batch in records.items() if batch})

    async def _decoded(self, records: Sequence[Any]) -> list[ConsumedEvent]:
        events = []
        for record in records:
            try:
                message = decode(record.topic, record.value, list(record.headers))
            except UndecodableEvent as error:
                await self._bury(record.topic, record, error.reason)
                continue
            events.append(_consumed(record, message))
        return events

    async def _handled(self, events: Sequence[ConsumedEvent]) -> None:
        try:
            await self._with_retries(events)
        except Exception as error:
            log.error("consumer.batch_failed", group=self._group, events=len(events), **describe(error))
            for event in events:
                await self._handled_alone(event)
        for event in events:
            CONSUMED.labels(event.topic).inc()

    async def _handled_alone(self, event: ConsumedEvent) -> None:
        try:
            await self._with_retries([event])
        except Exception as error:
            await self._bury(event.topic, event, f"handler_failed:{type(error).__name__}")

    async def _with_retries(self, events: Sequence[ConsumedEvent]) -> None:
        wait = wait_exponential_jitter(multiplier=0.1, max=5)
        for_ever = AsyncRetrying(retry=retry_if_exception_type(Unavailable), wait=wait, reraise=True)
        bounded = AsyncRetrying(
            retry=retry_if_not_exception_type((Unavailable, asyncio.CancelledError)),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait,
            reraise=True,
        )
        async for outer in for_ever:
            with outer:
                async for inner in bounded.copy():
                    with inner:
                        await self._handle(events)

    async def _bury(self, topic: str, record: Any, reason: str) -> None:
        """Put a record on its dead-letter topic, acknowledged before the source offset is committed."""
        assert self._dead_letters is not None
        value = record.value if not isinstance(record, ConsumedEvent) else record.message.SerializeToString()
        headers = record.headers.items() if isinstance(record.headers, dict) else record.headers
        told = {
            "sluice_error_reason": reason,
            "sluice_source_topic": topic,
            "sluice_source_partition": str(record.partition),
            "sluice_source_offset": str(record.offset),
            "sluice_group": self._group,
        }
        await self._dead_letters.send_and_wait(
            topic + DEAD_LETTER_SUFFIX,
            key=record.key,
            value=value,
            headers=[*headers, *((k, v.encode()) for k, v in told.items())],
        )
        DEAD_LETTERS.labels(topic, reason.split(":")[0]).inc()
        log.error("consumer.dead_letter", topic=topic, partition=record.partition, offset=record.offset, reason=reason)


def _consumed(record: Any, message: Any) -> ConsumedEvent:
    return ConsumedEvent(
        message=message,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key or b"",
        headers=dict(record.headers),
        event_id=message.metadata.event_id,
        timestamp_ms=record.timestamp,
    )


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(
        self, consumer: AIOKafkaConsumer, starting_offsets: StartingOffsets | None, ready: asyncio.Event
    ) -> None:
        self._consumer, self._starting_offsets, self._ready = consumer, starting_offsets, ready

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Nothing to do: a batch is committed before the next one is fetched."""

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Start where the handler's own store says, else at the committed offset."""
        if self._starting_offsets is not None and assigned:
            for partition, offset in (await self._starting_offsets(set(assigned))).items():
                self._consumer.seek(partition, offset)
        self._ready.set()
