"""Publishes events: into the durable outbox at once, and from there to Kafka in order, however long Kafka is away."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from google.protobuf.message import Message
from prometheus_client import Counter, Gauge
from sluice.events.v1 import mesh_pb2
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from sluice_kit import context
from sluice_kit.broker import client_options
from sluice_kit.broker_check import check_broker
from sluice_kit.broker_watch import watch_embedded_broker
from sluice_kit.events import new_event_id, now
from sluice_kit.kafka_client import closed, its_cancellations_are_errors
from sluice_kit.outbox import LOST, Loss, Outbox, OutboxRow
from sluice_kit.outbox_tables import DROPPED, REFUSED
from sluice_kit.process import describe
from sluice_kit.schema_registry import SchemaRegistry, SchemaRegistryError
from sluice_kit.settings import MeshSettings
from sluice_kit.telemetry import logger

log = logger(__name__)

DEPTH = Gauge("sluice_outbox_depth", "Events that wait to be acknowledged by Kafka.", ("producer",))
OLDEST = Gauge("sluice_outbox_oldest_seconds", "Age of the oldest event that waits.", ("producer",))
PUBLISHED = Counter("sluice_events_published_total", "Events acknowledged by Kafka.", ("topic",))
EVENTS_REFUSED = Counter(
    "sluice_events_refused_total", "Events Kafka will never take, put aside in the outbox.", ("topic",)
)
FAILURES = Counter("sluice_event_publish_failures_total", "Attempts to reach Kafka that failed.", ("error",))

BATCH_ROWS = 1000
# The embedded broker acknowledges before it writes: after a hard kill up to a second or two is gone (kafka-faust.md 1.2).
EMBEDDED_KEEP_SECONDS = 5.0
FLUSH_SECONDS = 5.0
CANCELLATIONS = 3
CANCEL_SECONDS = 2.0
TOPIC_WAIT_SECONDS = 2.0
RECONNECT_SECONDS = 0.2
# Losses are told when the outbox is this empty, so that one that is lost and drained by turns does not tell of every turn.
TELL_LOSSES_BELOW = 0.5
SCHEMA_VERSION = 1

_LOSS_REASONS = {
    DROPPED: mesh_pb2.EVENT_LOSS_REASON_OUTBOX_FULL,
    REFUSED: mesh_pb2.EVENT_LOSS_REASON_BROKER_REFUSED,
}
_RECORD_FAULTS = (MessageSizeTooLargeError, RecordListTooLargeError)
_TOPIC_FAULTS = (
    UnknownTopicOrPartitionError,
    TopicAuthorizationFailedError,
    InvalidTopicError,
    TimeoutError,
    SchemaRegistryError,
)


@dataclass(frozen=True)
class _Parked:
    """A topic that is left alone for a while: it does not exist yet, or may not be written."""

    until: float
    seconds: float


class EventPublisher:
    """`await publish(event)` returns when the event is on disk, in well under a millisecond; it never waits for Kafka."""

    def __init__(self, *, producer: str, settings: MeshSettings, outbox_path: Path | None = None) -> None:
        """`producer` is `sluice-<service>/<instance>`. Raises StartFailed when the outbox cannot be opened."""
        self._settings = settings
        name = producer.replace("/", "-")
        self._outbox = Outbox(
            outbox_path or settings.home / "outbox" / f"{name}.db",
            producer=producer,
            max_rows=settings.outbox_max_rows,
            max_bytes=settings.outbox_max_bytes,
            fsync=settings.outbox_fsync,
            when_full=settings.outbox_when_full,
        )
        self._appended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._broker_watched = False
        self._known_topics: set[str] = set()
        self._schemas = SchemaRegistry(settings)
        self._frames: dict[str, bytes] = {}
        self._parked: dict[str, _Parked] = {}
        self._oldest_created: float | None = None
        DEPTH.labels(producer).set_function(lambda: self._outbox.depth)
        OLDEST.labels(producer).set_function(lambda: time.time() - self._oldest_created if self._oldest_created else 0)

    @property
    def depth(self) -> int:
        """Events that are not acknowledged by Kafka yet."""
        return self._outbox.depth

    @property
    def has_room(self) -> bool:
        """Whether work that ends in an event should still be begun."""
        return self._outbox.has_room

    async def start(self) -> None:
        """Begin to relay. Kafka may be away."""
        if self._settings.kafka_embedded:
            # Kept rows mean that the last process ended less than 5 s after its last ack: did the broker outlive it?
            await self._outbox.call(self._outbox.tables.reopen_acknowledged)
            watch = watch_embedded_broker(self._settings, restarted=self._send_again, seen=self._see_broker)
            self._tasks.append(asyncio.create_task(watch, name="outbox-broker-watch"))
        self._tasks.append(asyncio.create_task(self._relay(), name="outbox-relay"))
        self._tasks.append(asyncio.create_task(check_broker(self._settings), name="broker-check"))

    async def stop(self) -> None:
        """Give the relay a few seconds to drain; what is left stays on disk for the next start."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._tasks and self.depth and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await _ended(self._tasks)
        if self.depth:
            log.warning("outbox.left_for_next_start", events=self.depth)
        await asyncio.to_thread(self._outbox.close)

    async def publish(self, *events: Message) -> None:
        """Complete the metadata of events and store them durably. ResourceExhausted (OUTBOX_FULL) when the disk queue is full
        and the policy is to refuse; under `drop` they are lost then, which is counted, logged and told of by EventsLost.

        The request, tenant, project, subject and trace are taken from the current context where the event has none.
        """
        for event in events:
            self._complete(event.metadata)  # type: ignore[attr-defined]
        await self._outbox.append(events)
        self._oldest_created = self._oldest_created or time.time()
        self._appended.set()

    def _complete(self, metadata: Any) -> None:
        here = context.current()
        metadata.event_id = metadata.event_id or new_event_id()
        if not metadata.HasField("occurred_at"):
            metadata.occurred_at.FromDatetime(now())
        metadata.producer = self._outbox.producer
        metadata.schema_version = metadata.schema_version or SCHEMA_VERSION
        for field in ("request_id", "tenant_id", "project_id", "subject_id", "traceparent"):
            if not getattr(metadata, field):
                setattr(metadata, field, getattr(here, field))
        metadata.synthetic = metadata.synthetic or here.synthetic

    # --- the relay ---

    async def _relay(self) -> None:
        while True:
            producer = await self._connected()
            try:
                with its_cancellations_are_errors():
                    await self._drain(producer)
            except Exception as error:
                self._note(error)
            finally:
                await closed(producer)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _connected(self) -> AIOKafkaProducer:
        """A started producer, however long that takes."""
        attempts = AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_exponential_jitter(multiplier=RECONNECT_SECONDS, max=5, jitter=0.2),
            before_sleep=self._note_attempt,
        )
        async for attempt in attempts:
            with attempt:
                producer = self._new_producer()
                try:
                    with its_cancellations_are_errors():
                        await producer.start()
                except BaseException:
                    await closed(producer)
                    raise
                return producer
        raise AssertionError("unreachable: the attempts have no end")

    def _new_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **client_options(self._settings),
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            linger_ms=10,
            max_batch_size=64 * 1024,
            request_timeout_ms=15_000,
        )

    def _note_attempt(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            self._note(error)

    def _note(self, error: BaseException) -> None:
        FAILURES.labels(type(error).__name__).inc()
        expected = isinstance(error, KafkaError | OSError)
        told = {"error": type(error).__name__} if expected else describe(error)
        log.warning("outbox.kafka_away", waiting=self.depth, **told)

    async def _drain(self, producer: AIOKafkaProducer) -> None:
        while True:
            self._appended.clear()
            await self._forget_kept()
            rows = await self._outbox.call(self._outbox.tables.pending, BATCH_ROWS, self._parked_now())
            if rows:
                self._oldest_created = rows[0].created
                await self._send(producer, rows)
            await self._tell_losses()
            if rows:
                continue
            if not self.depth:
                self._oldest_created = None
                await self._outbox.call(self._outbox.tables.shrink)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._appended.wait(), 1.0)

    async def _tell_losses(self) -> None:
        """Explain the gaps in our numbers, once there is room for it again."""
        if self._outbox.untold_losses and self._outbox.is_below(TELL_LOSSES_BELOW):
            for loss in await self._outbox.call(self._outbox.tables.tell_losses, self._loss_event):
                log.error("outbox.events_lost", topic=loss.topic, reason=loss.reason, first=loss.first, last=loss.last)

    def _loss_event(self, loss: Loss) -> Message:
        event = mesh_pb2.EventsLost(
            lost_topic=loss.topic,
            first_sequence=loss.first,
            last_sequence=loss.last,
            count=loss.last - loss.first + 1,
            reason=_LOSS_REASONS[loss.reason],
        )
        event.first_lost_at.FromDatetime(datetime.fromtimestamp(loss.since, UTC))
        event.last_lost_at.FromDatetime(datetime.fromtimestamp(loss.until, UTC))
        self._complete(event.metadata)
        return event

    async def _forget_kept(self) -> None:
        # Only while the broker is seen alive: what it lost must still be here when it comes back.
        if self._broker_watched:
            await self._outbox.call(self._outbox.tables.forget_acknowledged, time.time() - EMBEDDED_KEEP_SECONDS)

    async def _send(self, producer: AIOKafkaProducer, rows: Sequence[OutboxRow]) -> None:
        """Send rows, each topic's in order. Raises when the broker is away; what was not acknowledged is sent again later."""
        by_topic: dict[str, list[OutboxRow]] = {}
        for row in rows:
            by_topic.setdefault(row.topic, []).append(row)
        sends = (self._send_topic(producer, topic, its_rows) for topic, its_rows in by_topic.items())
        for failure in await asyncio.gather(*sends, return_exceptions=True):
            if failure is not None:
                raise failure

    async def _send_topic(self, producer: AIOKafkaProducer, topic: str, rows: Sequence[OutboxRow]) -> None:
        try:
            await self._know(producer, topic)
            results = await _sent(producer, rows, self._frames[topic])
        except _TOPIC_FAULTS as error:
            self._park(topic, error)
            return
        # Later rows may have arrived although an earlier one failed: they are sent again behind it, so that the order is kept.
        taken = [row for row, _ in takewhile(lambda pair: pair[1] is None, zip(rows, results, strict=False))]
        await self._acknowledge(topic, taken)
        failure = next((result for result in results if result is not None), None)
        if isinstance(failure, _RECORD_FAULTS):
            await self._send_alone(producer, rows[len(taken)])
        elif isinstance(failure, _TOPIC_FAULTS):
            self._park(topic, failure)
        elif failure is not None:
            raise failure

    async def _acknowledge(self, topic: str, taken: Sequence[OutboxRow]) -> None:
        if taken:
            await self._outbox.call(self._outbox.tables.acknowledge, taken, self._settings.kafka_embedded)
            PUBLISHED.labels(topic).inc(len(taken))

    async def _send_alone(self, producer: AIOKafkaProducer, row: OutboxRow) -> None:
        """A batch is refused as a whole: alone it shows whether this event is too large, or was only in too large a batch."""
        (failure,) = await _sent(producer, [row], self._frames[row.topic])
        if failure is None:
            await self._acknowledge(row.topic, [row])
        elif isinstance(failure, _RECORD_FAULTS):
            await self._refuse(row, failure)
        else:
            raise failure

    async def _know(self, producer: AIOKafkaProducer, topic: str) -> None:
        """Wait shortly for a topic that was not seen before: a missing one would hold up the others for a request timeout."""
        if topic not in self._known_topics:
            await asyncio.wait_for(producer.partitions_for(topic), TOPIC_WAIT_SECONDS)
            self._frames[topic] = self._frames.get(topic) or await self._schemas.frame(topic)
            self._known_topics.add(topic)

    def _park(self, topic: str, error: BaseException) -> None:
        before = self._parked.get(topic)
        seconds = min(before.seconds * 2, 30.0) if before else 0.5
        self._parked[topic] = _Parked(time.monotonic() + seconds, seconds)
        self._known_topics.discard(topic)
        FAILURES.labels(type(error).__name__).inc()
        log.warning("outbox.topic_refused", topic=topic, error=type(error).__name__, again_in_seconds=seconds)

    def _parked_now(self) -> list[str]:
        for topic in self._known_topics:
            self._parked.pop(topic, None)
        return [topic for topic, parked in self._parked.items() if parked.until > time.monotonic()]

    async def _refuse(self, row: OutboxRow, error: BaseException) -> None:
        await self._outbox.call(self._outbox.tables.refuse, row, type(error).__name__)
        EVENTS_REFUSED.labels(row.topic).inc()
        LOST.labels(row.topic, "broker_refused").inc()
        log.error("outbox.event_refused", topic=row.topic, row=row.id, bytes=row.size, error=type(error).__name__)

    def _see_broker(self, seen: bool) -> None:
        self._broker_watched = seen

    async def _send_again(self) -> None:
        again = await self._outbox.call(self._outbox.tables.reopen_acknowledged)
        self._appended.set()
        log.warning("outbox.broker_restarted", sent_again=again)


async def _sent(producer: AIOKafkaProducer, rows: Sequence[OutboxRow], frame: bytes) -> list[BaseException | None]:
    """Hand rows over in order and wait for the broker. One outcome a row, None for taken; ends at the first that is not handed over."""
    waiting, outcomes = [], list[BaseException | None]()
    handed_over: BaseException | None = None
    for row in rows:
        try:
            waiting.append(await producer.send(row.topic, key=row.key, value=frame + row.value, headers=row.headers))
        except KafkaError as error:
            handed_over = error
            break
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        outcomes.append(result if isinstance(result, BaseException) else None)
    return outcomes if handed_over is None else [*outcomes, handed_over]


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for them, boundedly: a client that is just connecting can swallow a cancellation."""
    pending = set(tasks)
    for _ in range(CANCELLATIONS):
        for task in pending:
            task.cancel()
        if pending:
            _, pending = await asyncio.wait(pending, timeout=CANCEL_SECONDS)
    if pending:
        log.error("outbox.relay_does_not_end", tasks=len(pending))
