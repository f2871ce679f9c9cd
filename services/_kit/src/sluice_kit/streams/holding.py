"""What a worker holds: the partitions that are assigned to it, taken up from the table once that is recovered."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import prometheus_client

from sluice_kit.streams.records import Records, load
from sluice_kit.streams.sequence import Frontier, Sequencer, SourceLog
from sluice_kit.streams.source import Place, SourceEvent, Table

Publish = Callable[..., Awaitable[None]]
"""Publishes event messages."""

TELL_SECONDS = 10.0
"""So often the broker is told how far all is stored: what stands still for minutes is an alarm (`mesh.standstill`)."""


class Aggregation(Frontier, Protocol):
    """A partition of a service: a frontier with something behind it."""

    number: int
    dropped: Counter[str]
    """Facts that count nowhere, by reason."""


AggregationT = TypeVar("AggregationT", bound=Aggregation)
RecordT = TypeVar("RecordT")


class Holding(Generic[AggregationT, RecordT]):
    """The state of a worker. Not thread-safe: agents and timer share one event loop, and no await splits a merge."""

    def __init__(
        self,
        *,
        stored: Table,
        records: Records[RecordT],
        source: SourceLog,
        take_up: Callable[[int, Iterable[RecordT]], AggregationT],
        dropped: prometheus_client.Counter,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`take_up` makes a partition of its number and what is stored of it; `dropped` counts by reason."""
        self._table = stored
        self._records = records
        self._source = source
        self._take_up = take_up
        self._dropped = dropped
        self._sequencer = Sequencer(source, now=now)
        self._aligned = False
        self._now = now
        self._told_at: float | None = None
        self._recovered = asyncio.Event()
        self._partitions: dict[int, AggregationT] = {}
        self._loaded: dict[int, list[RecordT]] | None = None
        self._reported: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def partitions(self) -> Mapping[int, AggregationT]:
        """What this worker is working on."""
        return self._partitions

    @property
    def recovered(self) -> bool:
        """True while the table holds what the changelog holds."""
        return self._recovered.is_set()

    def pause(self) -> None:
        """The assignment is about to change: what is known may soon be another worker's."""
        self._recovered.clear()
        self._aligned = False
        self._told_at = None
        self._sequencer.reassigned()
        self._partitions.clear()
        self._loaded = None

    def resume(self, assigned: set[int]) -> None:
        """The table is recovered: take up what is stored, also of partitions without new events."""
        self._recovered.set()
        for number in assigned:
            self._partition(number)

    def holds(self, partition: AggregationT) -> bool:
        """False when an await let a rebalance through: what this worker knew is then somebody else's."""
        return self._partitions.get(partition.number) is partition

    def turn(self, partition: AggregationT) -> asyncio.Lock:
        """To be held from a merge until the changelog has it, and while publishing.

        What is published before the changelog has it may be lost with this process; its successor merges the topics in
        another order and gives the same revision to other content (seen after a kill -9 on a busy machine).
        """
        return self._turns[partition.number]

    async def align(self, assigned: Sequence[Place]) -> None:
        """To be called now and then. Once after each assignment: read on where the stored state stands. Later: what was sought
        then, or since, and did not come, is sought again."""
        if not self.recovered:
            return
        if self._aligned:
            await self._sequencer.seek_again()
            return
        self._aligned = True
        try:
            await self._sequencer.align({tp: self._partition(tp.partition) for tp in assigned})
        except BaseException:
            self._aligned = False
            raise

    async def tell(self, assigned: Sequence[Place]) -> None:
        """To be called now and then: the broker is told how far all is stored, soon after an assignment and every ten seconds.

        Faust's own commits can stop for good, for it commits only what follows without a gap on what it has committed. (Seen after a
        kill -9 while the broker stood still: all merged and stored, and the commit of one partition 122 behind until the end, which
        `mesh.standstill` takes for a worker that does not read.)
        """
        now = self._now()
        if self._told_at is not None and now - self._told_at < TELL_SECONDS:
            return
        stored: dict[Place, int] = {}
        for tp in assigned:
            # Nothing is taken up here: awaits let a rebalance through, and while partitions move the table is not to be read.
            partition = self._partitions.get(tp.partition)
            if partition is None:
                continue
            async with self.turn(partition):  # what is merged may not be stored yet
                offset = partition.next_offset(tp.topic)
                if self.holds(partition) and offset is not None:
                    stored[tp] = offset
        if stored:
            self._told_at = now
            await self._source.commit(stored)

    async def admitted(self, events: Sequence[SourceEvent]) -> list[tuple[AggregationT, list[SourceEvent]]]:
        """Events that follow on what is stored, by partition.

        Events buffered before a rebalance are left to the partition's new owner: writing them here would
        overwrite its windows in the changelog.
        """
        await self._recovered.wait()
        # Asked once for each partition: for each event it was a fifteenth of what a Faust worker did.
        owned = {tp for tp in {event.message.tp for event in events} if self._source.owns(tp)}
        by_partition: defaultdict[int, list[SourceEvent]] = defaultdict(list)
        for event in events:
            if event.message.tp in owned:
                by_partition[event.message.partition].append(event)
        found = []
        # All before the first await: while partitions move the table is not to be read.
        for partition, batch in [(self._partition(number), batch) for number, batch in by_partition.items()]:
            admitted = await self._sequencer.admit(partition, batch) if self.holds(partition) else []
            if admitted:
                found.append((partition, admitted))
        return found

    async def write(self, changes: Mapping[str, RecordT | None], *, event: SourceEvent) -> None:
        """Store changes; returns when the changelog has them, so that the event may be acknowledged."""
        encode = self._records.encode
        await self._table.apply(
            {key.encode(): None if record is None else encode(record) for key, record in changes.items()}, event=event
        )

    def report_dropped(self, partition: AggregationT) -> None:
        """Count what the partition dropped since the last report."""
        reported = self._reported[partition.number]
        for reason, count in (partition.dropped - reported).items():
            self._dropped.labels(reason).inc(count)
        self._reported[partition.number] = Counter(partition.dropped)

    def _partition(self, number: int) -> AggregationT:
        if number not in self._partitions:
            if self._loaded is None:
                self._loaded = load(self._table, self._records)
            self._reported.pop(number, None)
            self._partitions[number] = self._take_up(number, self._loaded.pop(number, ()))
        return self._partitions[number]


AnyHolding = Holding[Any, Any]
