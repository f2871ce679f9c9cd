"""Consumes events at least once: commit after the work, poison aside, nothing lost when the broker or the handler is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from google.protobuf.message import Message
from opentelemetry import trace
from prometheus_client import Counter, Gauge
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential_jitter,
)

from sluice_kit import telemetry
from sluice_kit.broker import client_options, install_empty_fetch_guard
from sluice_kit.errors import Unavailable
from sluice_kit.events import DEAD_LETTER_SUFFIX, UndecodableEvent, decode, topic_of
from sluice_kit.process import describe
from sluice_kit.settings import MeshSettings

log = telemetry.logger(__name__)

CONSUMED = Counter("sluice_events_consumed_total", "Events handled.", ("group", "topic"))
DEAD_LETTERS = Counter("sluice_events_dead_lettered_total", "Records put on a dead-letter topic.", ("topic", "reason"))
LAG = Gauge("sluice_events_consumer_lag", "Records behind the end of the partition.", ("group", "topic", "partition"))

BATCH_ATTEMPTS = 5
# One by one an event gets less: 500 events that all fail must be done with well before max_poll_interval (5 minutes),
# or the group would take the partition away, nothing would be committed, and it would begin anew for ever.
EVENT_ATTEMPTS = 3
ASSIGNMENT_POLL_SECONDS = 0.05
# OpenTelemetry's own default limit of links in a span.
TRACED_EVENTS = 128
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
    value: bytes = field(default=b"", repr=False)
    """The record's bytes as they came."""


class _Stopped(Exception):
    """The consumer was told to stop while its handler's store is away."""


class EventConsumer:
    """Hands batches of events to `handle`, each partition in order, and commits when it returns.

    A handler that raises `sluice_kit.errors.Unavailable` (its database is away) is tried again for ever; any other error is
    tried five times, then event by event, and an event that still fails goes to `<topic>.dlq` with the reason in its headers.
    `starting_offsets` is asked on every assignment: its positions win over the committed ones (a database that keeps its own).
    No event is handled before it has answered.
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
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()
        """Set when partitions were assigned for the first time."""

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until stop is set. A broker that is away is waited for."""
        install_empty_fetch_guard(self._settings)
        self._stop = stop
        pause = 0.2
        while not stop.is_set():
            try:
                async with self._connected() as (consumer, assignment):
                    pause = 0.2
                    await self._consume(consumer, assignment)
            except _Stopped:
                return
            except Exception as error:
                # Whatever a client library raises, a consumer that ended in silence would be worse than one that goes on trying.
                expected = isinstance(error, KafkaError | OSError)
                told = {"error": type(error).__name__} if expected else describe(error)
                log.warning("consumer.interrupted", group=self._group, again_in_seconds=pause, **told)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), pause)
                pause = min(pause * 2, 5.0)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[AIOKafkaConsumer, "_Assignment"]]:
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
        assignment = _Assignment(consumer, self._starting_offsets, self.ready)
        consumer.subscribe(self._topics, listener=assignment)
        self._dead_letters = AIOKafkaProducer(**client_options(self._settings), acks="all", enable_idempotence=True)
        try:
            await consumer.start()
            await self._dead_letters.start()
            yield consumer, assignment
        finally:
            for client in (consumer, self._dead_letters):
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    await asyncio.wait_for(client.stop(), 10)

    async def _consume(self, consumer: AIOKafkaConsumer, assignment: "_Assignment") -> None:
        while not self._stop.is_set():
            assignment.raise_failure()
            if not assignment.settled:
                await asyncio.sleep(ASSIGNMENT_POLL_SECONDS)
                continue
            generation = assignment.generation
            records = await consumer.getmany(timeout_ms=self._batch_wait_ms, max_records=self._batch_size)
            if generation != assignment.generation:
                assignment.put_back(records)
                continue
            flat = [record for partition in records.values() for record in partition]
            if not flat:
                continue
            events = await self._decoded(flat)
            if events:
                with self._span(events):
                    await self._handled(events)
            # After a rebalance the partitions are somebody else's: the events come again there, and are known by their ids.
            with contextlib.suppress(CommitFailedError, IllegalStateError):
                await consumer.commit({tp: batch[-1].offset + 1 for tp, batch in records.items() if batch})
            self._measure(consumer, records)

    def _measure(self, consumer: AIOKafkaConsumer, records: Mapping[TopicPartition, Sequence[Any]]) -> None:
        for tp, batch in records.items():
            end = consumer.highwater(tp) if tp in consumer.assignment() else None
            if end is not None and batch:
                LAG.labels(self._group, tp.topic, tp.partition).set(max(0, end - batch[-1].offset - 1))

    def _span(self, events: Sequence[ConsumedEvent]) -> contextlib.AbstractContextManager[Any]:
        """A span of the batch, linked with the traces of its events, so that a request can be followed to its consumers."""
        if self._settings.otlp_endpoint is None:
            return contextlib.nullcontext()
        parents = (event.message.metadata.traceparent for event in events[:TRACED_EVENTS])  # type: ignore[attr-defined]
        found = (trace.get_current_span(telemetry.extract({"traceparent": p})).get_span_context() for p in parents if p)
        return telemetry.tracer().start_as_current_span(
            f"process {self._group}",
            kind=trace.SpanKind.CONSUMER,
            links=[trace.Link(context) for context in found if context.is_valid],
            attributes={
                "messaging.system": "kafka",
                "messaging.consumer.group.name": self._group,
                "messaging.batch.message_count": len(events),
            },
            record_exception=False,
            set_status_on_exception=False,
        )

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
            await self._with_retries(events, BATCH_ATTEMPTS)
        except _Stopped:
            raise
        except Exception as error:
            log.error("consumer.batch_failed", group=self._group, events=len(events), **describe(error))
            for event in events:
                await self._handled_alone(event)
        for event in events:
            CONSUMED.labels(self._group, event.topic).inc()

    async def _handled_alone(self, event: ConsumedEvent) -> None:
        try:
            await self._with_retries([event], EVENT_ATTEMPTS)
        except _Stopped:
            raise
        except Exception as error:
            await self._bury(event.topic, event, f"handler_failed:{type(error).__name__}")

    async def _with_retries(self, events: Sequence[ConsumedEvent], attempts: int) -> None:
        while_away = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_when_event_set(self._stop),  # type: ignore[arg-type]  # it asks is_set() only
            wait=wait_exponential_jitter(multiplier=0.1, max=2, jitter=0.1),
            before_sleep=self._note_away,
            reraise=True,
        )
        try:
            async for attempt in while_away:
                with attempt:
                    await self._tried(events, attempts)
        except Unavailable:
            raise _Stopped from None

    async def _tried(self, events: Sequence[ConsumedEvent], attempts: int) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Exception) and not isinstance(error, Unavailable)),
            stop=stop_after_attempt(attempts),
            wait=wait_exponential_jitter(multiplier=0.05, max=1, jitter=0.05),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                await self._handle(events)

    def _note_away(self, state: RetryCallState) -> None:
        log.warning("consumer.handler_unavailable", group=self._group, attempt=state.attempt_number)

    async def _bury(self, topic: str, record: Any, reason: str) -> None:
        """Put a record on its dead-letter topic, acknowledged before the source offset is committed."""
        assert self._dead_letters is not None
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
            value=record.value,
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
        value=record.value,
    )


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Positions the consumer where the handler's own store says.

    aiokafka fetches while the store is asked, and goes on when that fails: so the loop asks here when it may fetch, and what
    it must put back.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, starting_offsets: StartingOffsets | None, ready: asyncio.Event
    ) -> None:
        self._consumer, self._starting_offsets, self._ready = consumer, starting_offsets, ready
        self._starts: Mapping[TopicPartition, int] = {}
        self._failure: Exception | None = None
        self.settled = starting_offsets is None
        self.generation = 0

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """A batch is committed before the next one is fetched, so there is nothing to save."""
        if self._starting_offsets is not None:
            self.settled = False
            self.generation += 1

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Start where the handler's own store says, else at the committed offset."""
        try:
            if self._starting_offsets is not None and assigned:
                self._starts = await self._starting_offsets(set(assigned))
                for partition, offset in self._starts.items():
                    self._consumer.seek(partition, offset)
        except Exception as error:
            self._failure = error
            return
        self.settled = True
        self._ready.set()

    def raise_failure(self) -> None:
        """The store did not say where to start: begin again, for guessing would lose or repeat events."""
        if self._failure is not None:
            raise self._failure

    def put_back(self, records: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """Fetch these again: they came while the partitions were given out anew."""
        for partition, batch in records.items():
            with contextlib.suppress(IllegalStateError):  # no longer ours
                self._consumer.seek(partition, self._starts.get(partition, batch[0].offset))
