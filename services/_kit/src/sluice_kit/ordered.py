"""Reads what topics hold, up to an end fixed beforehand, in one order that is the same for every reading.

Each partition in its own order, the partitions merged by (timestamp, topic, partition): it depends on the records alone, not
on which answer came first. So a projection that is rebuilt twice from the same range is rebuilt by the same steps.
"""

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from sluice_kit.broker import client_options, install_empty_fetch_guard
from sluice_kit.errors import Unavailable
from sluice_kit.kafka_client import closed
from sluice_kit.settings import MeshSettings

# Records held per partition while others are waited for.
_AHEAD = 4_000
_RESUME_BELOW = 1_000
# The same in bytes of values, for records may be as large as a megabyte.
_AHEAD_BYTES = 16 << 20
_RESUME_BELOW_BYTES = 4 << 20
_REQUEST_MS = 20_000


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of a partition: from `start`, inclusive, to `end`, exclusive."""

    start: int
    end: int


Spans = Mapping[TopicPartition, Span]


class OrderedReader:
    """A consumer without a group: reading changes nothing. Use `opened`."""

    def __init__(self, consumer: AIOKafkaConsumer, settings: MeshSettings) -> None:
        self._consumer, self._settings = consumer, settings

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, settings: MeshSettings) -> AsyncIterator["OrderedReader"]:
        """Connected; Unavailable when the broker does not answer."""
        install_empty_fetch_guard(settings)
        consumer = AIOKafkaConsumer(
            **client_options(settings),
            enable_auto_commit=False,
            request_timeout_ms=_REQUEST_MS,
            # On assignment the client looks for a first position by itself, at the same time as we seek: both from the start.
            auto_offset_reset="earliest",
        )
        try:
            await asyncio.wait_for(consumer.start(), 20)
        except (KafkaError, OSError, TimeoutError):
            await closed(consumer)
            raise Unavailable(
                f"Kafka at {settings.kafka_bootstrap} does not answer: is the mesh running (`sluice mesh status`)?"
            ) from None
        try:
            yield cls(consumer, settings)
        finally:
            await closed(consumer)

    async def spans(self, topics: Sequence[str]) -> dict[TopicPartition, Span]:
        """What the partitions of these topics hold now; a topic that does not exist has none."""
        partitions = await self._partitions(topics)
        if not partitions:
            return {}
        starts = await self._consumer.beginning_offsets(partitions)
        ends = await self._consumer.end_offsets(partitions)
        return {partition: Span(starts[partition], ends[partition]) for partition in sorted(partitions)}

    async def first_timestamps(self, spans: Spans) -> dict[TopicPartition, int]:
        """Timestamp (ms) of the first record that each partition holds; empty partitions are left out."""
        filled = {partition: span for partition, span in spans.items() if span.start < span.end}
        found = await self._consumer.offsets_for_times(dict.fromkeys(filled, 0)) if filled else {}
        return {partition: told.timestamp for partition, told in found.items() if told is not None}

    async def offsets_at(self, spans: Spans, moment_ms: int) -> dict[TopicPartition, Span]:
        """The spans from the first record at or after a moment on."""
        if not spans:
            return {}
        found = await self._consumer.offsets_for_times(dict.fromkeys(spans, moment_ms))
        told = {partition: at.offset for partition, at in found.items() if at is not None}
        return {
            partition: Span(min(max(span.start, told.get(partition, span.end)), span.end), span.end)
            for partition, span in spans.items()
        }

    async def records(self, spans: Spans, *, silence_seconds: float = 60.0) -> AsyncGenerator[ConsumerRecord, None]:
        """Every record of the spans. Unavailable when the broker gives nothing for `silence_seconds` while it is asked."""
        merge = _Merge({partition: span for partition, span in spans.items() if span.start < span.end})
        if not merge.open:
            return
        self._consumer.assign(sorted(merge.open))
        for partition in merge.open:
            self._consumer.seek(partition, spans[partition].start)
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            for record in merge.ready():
                yield record
                heard = loop.time()  # not before: what the caller does with a record is no silence of the broker
            if not merge.open:
                return
            self._keep_level(merge)
            if batches := await self._consumer.getmany(timeout_ms=500, max_records=_AHEAD):
                merge.take(batches)
                heard = loop.time()
            await self._note_ends(merge)
            if loop.time() - heard > silence_seconds:
                raise Unavailable(f"Kafka gave no record for {silence_seconds:.0f} s before the end of the range.")

    def _keep_level(self, merge: "_Merge") -> None:
        """Fetch no more of a partition that is far ahead of the one that is waited for."""
        paused = self._consumer.paused()
        full = [p for p in merge.partitions if merge.holds(p, records=_AHEAD, size=_AHEAD_BYTES)]
        self._consumer.pause(*[p for p in full if p not in paused])
        low = [p for p in paused if not merge.holds(p, records=_RESUME_BELOW, size=_RESUME_BELOW_BYTES)]
        self._consumer.resume(*low)

    async def _note_ends(self, merge: "_Merge") -> None:
        # The last offsets of a range may hold no record (compaction, transactions): only the position tells the end.
        for partition in list(merge.open):
            merge.reach(partition, await self._consumer.position(partition))

    async def _partitions(self, topics: Sequence[str]) -> list[TopicPartition]:
        admin = AIOKafkaAdminClient(**client_options(self._settings), request_timeout_ms=_REQUEST_MS)
        await admin.start()
        try:
            # Asking for a topic that is not there makes the embedded broker create it; so only those that are.
            present = set(await admin.list_topics())
            wanted = sorted(set(topics) & present)
            told = await admin.describe_topics(wanted) if wanted else []
        finally:
            await admin.close()
        return [TopicPartition(topic["topic"], each["partition"]) for topic in told for each in topic["partitions"]]


class _Merge:
    """The records of several partitions that wait for one another."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._queues: dict[TopicPartition, deque[ConsumerRecord]] = {partition: deque() for partition in spans}
        self._sizes = dict.fromkeys(spans, 0)
        self._heads: list[tuple[int, str, int]] = []
        self.open = set(spans)
        """Partitions of which more is to come."""

    @property
    def partitions(self) -> Iterable[TopicPartition]:
        """All of them."""
        return self._queues

    def holds(self, partition: TopicPartition, *, records: int, size: int) -> bool:
        """Whether as many records of it wait, or as many bytes of values; false for a partition that is not merged."""
        return len(self._queues.get(partition, ())) >= records or self._sizes.get(partition, 0) >= size

    def take(self, batches: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """More of some partitions; what lies beyond a span is left out."""
        for partition, batch in batches.items():
            queue = self._queues[partition]
            was_empty = not queue
            span = self._spans[partition]
            inside = [record for record in batch if span.start <= record.offset < span.end]
            queue.extend(inside)
            self._sizes[partition] += sum(_size(record) for record in inside)
            if was_empty and queue:
                self._push(partition)

    def reach(self, partition: TopicPartition, position: int) -> None:
        """The consumer stands here."""
        if position >= self._spans[partition].end:
            self.open.discard(partition)

    def ready(self) -> Iterator[ConsumerRecord]:
        """What comes next, as long as no open partition could still give something earlier."""
        if any(not self._queues[partition] for partition in self.open):
            return
        while self._heads:
            _, topic, number = heapq.heappop(self._heads)
            partition = TopicPartition(topic, number)
            queue = self._queues[partition]
            record = queue.popleft()
            self._sizes[partition] -= _size(record)
            yield record
            if queue:
                self._push(partition)
            elif partition in self.open:
                return

    def _push(self, partition: TopicPartition) -> None:
        record = self._queues[partition][0]
        heapq.heappush(self._heads, (record.timestamp, partition.topic, partition.partition))


def _size(record: ConsumerRecord) -> int:
    return len(record.value or b"")
