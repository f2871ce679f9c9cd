"""The plain runner's reading: group membership, batches of events, and the committed offsets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import KafkaError

from sluice_kit.assignment import range_assignor
from sluice_kit.kafka_client import closed, its_cancellations_are_errors
from sluice_kit.streams import second_reader
from sluice_kit.streams.options import Rhythm, WorkerOptions
from sluice_kit.streams.source import Handle
from sluice_kit.telemetry import logger

log = logger(__name__)

COMMIT_SECONDS = 1.0
RELEASE_SECONDS = 5.0
"""For so long a rebalance waits for what is in hand: half of the session timeout."""
POLL_MS = 100


class PlainRecord:
    """A record in the form that processors read: a SourceEvent, and the SourceMessage in it."""

    __slots__ = ("headers", "key", "offset", "partition", "timestamp", "topic", "tp", "value")

    def __init__(self, tp: TopicPartition, record: Any) -> None:
        self.tp = tp
        self.topic, self.partition = tp
        self.offset, self.key, self.value, self.headers = record.offset, record.key, record.value, record.headers
        self.timestamp: float = record.timestamp / 1000

    @property
    def message(self) -> PlainRecord:
        """One object is both: two would take longer to make than to merge."""
        return self


def fetch_plain_records() -> None:
    """Make the consumers of this process give PlainRecords. aiokafka's own ConsumerRecord has eleven fields that take half
    of the time that a consumer needs for a record; where its private hook is gone they are converted."""
    if hasattr(PartitionRecords, "_consumer_record"):
        PartitionRecords._consumer_record = lambda _, tp, record: PlainRecord(tp, record)


class PlainLog:
    """The consumer, as a SourceLog."""

    def __init__(self, client: Mapping[str, Any]) -> None:
        """`client`: aiokafka's options, for the second reader."""
        self.consumer: AIOKafkaConsumer | None = None
        self._client = client

    @property
    def _used(self) -> AIOKafkaConsumer:
        assert self.consumer is not None, "the log is used before the runner runs"
        return self.consumer

    def owns(self, tp: Any) -> bool:
        """True when the partition is assigned to this worker."""
        return tp in self._used.assignment()

    async def seek(self, tp: Any, offset: int) -> None:
        """Read on from an offset."""
        self._used.seek(tp, offset)

    async def bounds(self, *tps: Any) -> Mapping[Any, tuple[int, int]]:
        """First offset held, and the one after the last, of each of these partitions."""
        first, last = await self._used.beginning_offsets(tps), await self._used.end_offsets(tps)
        return {tp: (first[tp], last[tp]) for tp in tps}

    async def next_held(self, tp: Any, offset: int) -> int | None:
        """Offset of the first record at or after this one; the end where there is none; None where that cannot be said."""
        return await second_reader.next_held(self._client, tp, offset)

    async def commit(self, positions: Mapping[Any, int]) -> None:
        """Tell the broker up to where all is stored."""
        with contextlib.suppress(KafkaError):
            await self._used.commit(dict(positions))


class Reading(ConsumerRebalanceListener):  # type: ignore[misc]
    """Reads the sources as a static member of the group, and hands over batches, those of several partitions at once."""

    def __init__(
        self,
        options: WorkerOptions,
        handlers: Mapping[str, tuple[Handle, Rhythm]],
        *,
        revoke: Callable[[], None],
        take_up: Callable[[Sequence[TopicPartition]], Awaitable[None]],
    ) -> None:
        """`revoke` forgets what is known of the partitions; `take_up` recovers them, and reads on where that stands."""
        self._options, self._handlers, self._revoke, self._take_up = options, handlers, revoke, take_up
        self._in_hand: set[asyncio.Task[None]] = set()
        self._taken_up = asyncio.Event()
        self._assigned = asyncio.Event()
        self._revocations = 0
        self._done: dict[TopicPartition, int] = {}
        self._committed_at = 0.0
        self.consumer = AIOKafkaConsumer(
            **options.client,
            group_id=options.group,
            # Static membership: a restart needs no rebalance, and the embedded broker loses the group without it.
            group_instance_id=f"{options.group}-{options.instance}",
            # Same numbers of partitions for all topics: by ranges, all that belongs to a request goes to one worker.
            partition_assignment_strategy=[range_assignor(options.instance)],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            max_partition_fetch_bytes=4 << 20,
        )

    @property
    def assigned(self) -> list[TopicPartition] | None:
        """The source partitions of this worker; None while they are being given out anew."""
        return sorted(self.consumer.assignment()) if self._taken_up.is_set() else None

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """What is in hand is ended while the partitions are still ours; then everything is forgotten."""
        self._taken_up.clear()
        self._assigned.clear()
        self._revocations += 1
        if self._in_hand:
            await asyncio.wait(self._in_hand, timeout=RELEASE_SECONDS)
        await self._commit()
        self._done.clear()
        self._revoke()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Taken up by the loop, not here: the heartbeats of a member begin only when this returns."""
        self._assigned.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Read until stop is set, then end what is in hand and leave. Raises what a handler raises."""
        self.consumer.subscribe(list(self._handlers), listener=self)
        try:
            with its_cancellations_are_errors():
                await self.consumer.start()
                while not stop.is_set():
                    if not self._taken_up.is_set():
                        await self._settle()
                        continue
                    batches = await self._collect(stop)
                    if batches and self._taken_up.is_set():
                        await self._hand_over(batches)
                    await self._commit_now_and_then()
                await self._commit()
        finally:
            await closed(self.consumer)

    async def _settle(self) -> None:
        """Take up the partitions, unless they are given out once more meanwhile."""
        try:
            await asyncio.wait_for(self._assigned.wait(), POLL_MS / 1000)
        except TimeoutError:
            return
        self._assigned.clear()
        places, before = sorted(self.consumer.assignment()), self._revocations
        await self._take_up(places)
        # aiokafka shows the old assignment until the new one is there: taken away meanwhile, it would pass for taken up, and what
        # is given out next, which may be the very same, would never be.
        if self._revocations == before and sorted(self.consumer.assignment()) == places:
            self._taken_up.set()
            log.info("stream.ready", app=self._options.group, partitions=sorted({tp.partition for tp in places}))

    async def _collect(self, stop: asyncio.Event) -> dict[TopicPartition, list[Any]]:
        """What comes within the rhythm's seconds of the first record, or its number of records for each partition."""
        rhythm = next(iter(self._handlers.values()))[1]
        limit = rhythm.batch_size * self._options.partitions
        found: dict[TopicPartition, list[Any]] = {}
        count, until = 0, 0.0
        while not stop.is_set() and self._taken_up.is_set():
            wait = POLL_MS if not count else max(0, min(POLL_MS, int((until - time.monotonic()) * 1000)))
            for place, records in (await self.consumer.getmany(timeout_ms=wait, max_records=limit - count)).items():
                found.setdefault(place, []).extend(records)
                count += len(records)
                until = until or time.monotonic() + rhythm.batch_seconds
            if not count or count >= limit or time.monotonic() >= until:
                break
        return found

    async def _hand_over(self, batches: Mapping[TopicPartition, Sequence[Any]]) -> None:
        tasks = [asyncio.create_task(self._handle(place, records)) for place, records in batches.items()]
        self._in_hand = set(tasks)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            self._in_hand = set()

    async def _handle(self, place: TopicPartition, records: Sequence[Any]) -> None:
        handle, _ = self._handlers[place.topic]
        if not isinstance(records[0], PlainRecord):
            records = [PlainRecord(place, record) for record in records]
        await handle(records)
        self._done[place] = records[-1].offset + 1

    async def _commit_now_and_then(self) -> None:
        if time.monotonic() - self._committed_at >= COMMIT_SECONDS:
            await self._commit()

    async def _commit(self) -> None:
        """Only advice, as under Faust: the truth is the frontier that is stored beside the windows."""
        self._committed_at = time.monotonic()
        held = self.consumer.assignment()
        done = {place: offset for place, offset in self._done.items() if place in held}
        if done:
            with contextlib.suppress(KafkaError):
                await self.consumer.commit(done)
                self._done = {place: offset for place, offset in self._done.items() if offset != done.get(place)}
