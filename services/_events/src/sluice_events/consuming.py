"""Reads events from Kafka: typed, at least once, in order per key."""

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Literal, cast

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from google.protobuf.message import Message

from sluice_events.closing import stopped
from sluice_events.event import E, Event, Poison, PoisonRecord, TopicMissing
from sluice_events.position import Positions, Start
from sluice_events.topics import TopicSpec, topic_of
from sluice_events.wire import UndecodableEvent, decode

log = logging.getLogger("sluice_events")

OnPoison = Literal["raise", "skip"] | Callable[[Poison], Awaitable[None] | None]

# The group takes partitions away from a reader that does not come back for five minutes: that is the time for this many events.
BATCH_RECORDS = 100
WAIT_MS = 500
COMMIT_SECONDS = 1.0
SETTLE_POLL_SECONDS = 0.05
ASSIGN_SECONDS = 30.0
STOP_SECONDS = 10.0


def consume(
    event: type[E],
    *more: type[E],
    bootstrap: str,
    group: str | None = None,
    start: Start = "beginning",
    follow: bool = True,
    synthetic: bool = False,
    on_poison: OnPoison = "raise",
    **kafka: Any,
) -> AsyncGenerator[Event[E], None]:
    """Events of these classes as they come; the loop body's end takes an event, and what was taken is committed.

    group: readers of one group share the partitions and go on where the group stopped; without one every event that Kafka still
    has is read and nothing is remembered. start: where to begin in partitions of which the group remembers nothing: `beginning`,
    `end`, or the first record written at a moment. follow=False: end at what is there now. synthetic=True: also the mesh's
    self-test probes. on_poison: what to do with a record that is no event: `raise` PoisonRecord, `skip` it (a warning is logged)
    or call a function with it. Everything else goes to aiokafka's consumer (`security_protocol`, `ssl_context`, ...).

    Raises ValueError for a class that is no event, an empty group or a start without time zone, TopicMissing, and aiokafka's KafkaError when the
    broker cannot be reached at the start.
    """
    topics = [topic_of(one) for one in (event, *more)]
    if isinstance(start, datetime) and start.tzinfo is None:
        raise ValueError("start has no time zone: say datetime(..., tzinfo=UTC)")
    if start not in ("beginning", "end") and not isinstance(start, datetime):
        raise ValueError(f"start is {start!r}; it may be 'beginning', 'end' or a datetime")
    if group == "":
        raise ValueError("group is empty: name it, or leave it out to read without one")
    if on_poison not in ("raise", "skip") and not callable(on_poison):
        raise ValueError(f"on_poison is {on_poison!r}; it may be 'raise', 'skip' or a function")
    reader = _Reader(topics, group=group, start=start, follow=follow, synthetic=synthetic, on_poison=on_poison)
    return cast(AsyncGenerator[Event[E], None], reader.events(bootstrap, kafka))


class _Reader:
    def __init__(
        self,
        topics: list[TopicSpec],
        *,
        group: str | None,
        start: Start,
        follow: bool,
        synthetic: bool,
        on_poison: OnPoison,
    ) -> None:
        self._topics = [topic.name for topic in topics]
        self._compacted = {topic.name for topic in topics if topic.compacted}
        self._group, self._start, self._follow = group, start, follow
        self._synthetic, self._on_poison = synthetic, on_poison

    async def events(self, bootstrap: str, kafka: dict[str, Any]) -> AsyncGenerator[Event[Message], None]:
        async with self._connected(bootstrap, kafka) as (consumer, positions):
            committed_at = time.monotonic()
            async for batch in self._batches(consumer, positions):
                generation = positions.generation
                for record in batch:
                    if generation != positions.generation:
                        break  # given out anew: what is not done is fetched again by whoever has the partition now
                    event = await self._event(record)
                    if event is not None:
                        yield event
                    if generation == positions.generation:
                        positions.done(record)
                    if time.monotonic() - committed_at > COMMIT_SECONDS:
                        await positions.commit()
                        committed_at = time.monotonic()
                if not batch:
                    await positions.commit()  # nothing to do: a good moment

    @contextlib.asynccontextmanager
    async def _connected(
        self, bootstrap: str, kafka: dict[str, Any]
    ) -> AsyncIterator[tuple[AIOKafkaConsumer, Positions]]:
        options = {
            "bootstrap_servers": bootstrap,
            "group_id": self._group,
            "enable_auto_commit": False,
            # Also where the committed offset was deleted by retention: go on with the oldest there is, never with the newest.
            "auto_offset_reset": "earliest",
        }
        consumer = AIOKafkaConsumer(**(options | kafka))
        positions = Positions(consumer, group=self._group, start=self._start)
        try:
            await consumer.start()
            await self._subscribe(consumer, positions)
            yield consumer, positions
        finally:
            # A broker that is away must not keep a program from ending: what was not committed comes again.
            try:
                with contextlib.suppress(KafkaError, TimeoutError):
                    await asyncio.wait_for(positions.commit(), STOP_SECONDS)
            finally:
                await stopped(consumer, seconds=STOP_SECONDS)

    async def _subscribe(self, consumer: AIOKafkaConsumer, positions: Positions) -> None:
        # Asked before subscribing: brokers that create topics by themselves would make them with the wrong partitions.
        missing = sorted(set(self._topics) - await consumer.topics())
        if missing:
            raise TopicMissing(
                f"Kafka has no topic {', '.join(missing)}: is it the mesh's broker, and was the mesh ever started?"
            )
        if self._group is not None:
            consumer.subscribe(self._topics, listener=positions)
            return
        await _assign_all(consumer, self._topics)
        await positions.on_partitions_assigned(consumer.assignment())

    async def _batches(self, consumer: AIOKafkaConsumer, positions: Positions) -> AsyncIterator[list[ConsumerRecord]]:
        ends: dict[TopicPartition, int] | None = None
        while True:
            positions.raise_failure()
            if not positions.settled:
                await asyncio.sleep(SETTLE_POLL_SECONDS)
                continue
            generation = positions.generation
            if not self._follow:
                ends = ends or await consumer.end_offsets(consumer.assignment())
                if await _is_at(consumer, ends):
                    return
            records = await consumer.getmany(timeout_ms=WAIT_MS, max_records=BATCH_RECORDS)
            if generation != positions.generation:
                positions.put_back(records)
                continue
            yield [record for batch in records.values() for record in batch]

    async def _event(self, record: ConsumerRecord) -> Event[Message] | None:
        """The event of a record; None for one that is left out."""
        headers = dict(record.headers)
        if record.value is None and record.topic in self._compacted:
            return None  # a tombstone: compaction will forget this key
        try:
            message = decode(record.topic, record.value, headers)
        except UndecodableEvent as error:
            await self._take_aside(record, headers, error.reason)
            return None
        if message.metadata.synthetic and not self._synthetic:  # type: ignore[attr-defined]
            return None
        return Event(
            data=message,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key or b"",
            recorded_at=datetime.fromtimestamp(record.timestamp / 1000, UTC),
            headers=headers,
        )

    async def _take_aside(self, record: ConsumerRecord, headers: dict[str, bytes], reason: str) -> None:
        place = (record.topic, record.partition, record.offset)
        poison = Poison(reason, *place, key=record.key or b"", value=record.value, headers=headers)
        if self._on_poison == "raise":
            raise PoisonRecord(poison)
        if callable(self._on_poison):
            taken = self._on_poison(poison)
            if inspect.isawaitable(taken):
                await taken
        else:
            log.warning("passed over a record that is no event: %s, partition %d, offset %d: %s", *place, reason)


async def _assign_all(consumer: AIOKafkaConsumer, topics: list[str]) -> None:
    """Take every partition there is now. A subscription would begin all of them anew whenever a topic gets one more."""
    consumer.subscribe(topics)
    async with asyncio.timeout(ASSIGN_SECONDS):
        while {partition.topic for partition in consumer.assignment()} != set(topics):
            await asyncio.sleep(SETTLE_POLL_SECONDS)
    partitions = list(consumer.assignment())
    consumer.unsubscribe()
    consumer.assign(partitions)


async def _is_at(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    """True when everything up to these offsets was fetched, of the partitions we have."""
    for partition in consumer.assignment():
        if await consumer.position(partition) < ends.get(partition, 0):
            return False
    return True
