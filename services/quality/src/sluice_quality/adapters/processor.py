"""Carries events into the partitions' aggregation, what changed into the table, and what is due to the publisher."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from faust.types import TP, EventT
from sluice_kit.events import UndecodableEvent

from sluice_quality.adapters import table, telemetry
from sluice_quality.adapters.dead_letters import DeadLetters, read
from sluice_quality.adapters.events import fact_of, measured
from sluice_quality.adapters.sequence import Sequencer, SourceLog
from sluice_quality.domain.facts import Fact
from sluice_quality.domain.partition import Part, Partition, Record, Rules

Publish = Callable[..., Awaitable[None]]
"""Publishes event messages."""

PARTS_PER_PUBLISH = 500


class Processor:
    """The state of a worker. Not thread-safe: agents and timer share one event loop, and no await splits a merge."""

    def __init__(
        self,
        *,
        windows: table.ConfirmedTable,
        rules: Rules,
        dead_letters: DeadLetters,
        publish: Publish,
        source: SourceLog,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = windows
        self._rules = rules
        self._dead_letters = dead_letters
        self._publish = publish
        self._source = source
        self._sequencer = Sequencer(source)
        self._aligned = False
        self._now = now
        self._recovered = asyncio.Event()
        self._partitions: dict[int, Partition] = {}
        self._loaded: dict[int, list[Record]] | None = None
        self._reported: defaultdict[int, Counter[str]] = defaultdict(Counter)

    @property
    def partitions(self) -> Mapping[int, Partition]:
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
        self._partitions.clear()
        self._loaded = None

    def resume(self, assigned: set[int]) -> None:
        """The table is recovered: take up the stored windows, also of partitions without new events."""
        self._recovered.set()
        for number in assigned:
            self._partition(number)

    async def absorb(self, events: Sequence[EventT]) -> None:
        """Merge a batch; returns when the changelog has what it changed, so that the batch may be acknowledged.

        Events buffered before a rebalance are left to the partition's new owner: writing them here would
        overwrite its windows in the changelog.
        """
        await self._recovered.wait()
        by_partition: defaultdict[int, list[EventT]] = defaultdict(list)
        for event in events:
            if self._source.owns(event.message.tp):
                by_partition[event.message.partition].append(event)
        for number, batch in by_partition.items():
            await self._absorb_partition(number, batch)

    async def align(self, assigned: Sequence[TP]) -> None:
        """Once after each assignment: read on where the windows stand."""
        if self._aligned or not self.recovered:
            return
        self._aligned = True
        for tp in assigned:
            await self._sequencer.align(self._partition(tp.partition), [tp])

    async def publish_due(self) -> None:
        """Publish every window whose published form is out of date."""
        now = self._microseconds()
        for partition in list(self._partitions.values()):
            due = partition.parts_due(now)
            for first in range(0, len(due), PARTS_PER_PUBLISH):
                await self._publish_parts(partition, due[first : first + PARTS_PER_PUBLISH])

    async def _publish_parts(self, partition: Partition, parts: Sequence[Part]) -> None:
        await self._publish(*[measured(part) for part in parts])
        for part in parts:
            partition.mark_published(part)
        telemetry.PUBLISHED.inc(len(parts))

    async def _fact(self, event: EventT) -> Fact | None:
        record_time = int(event.message.timestamp * 1_000_000)
        try:
            return fact_of(read(event), offset=event.message.offset, record_time=record_time)
        except UndecodableEvent as error:
            await self._dead_letters.park(event, reason=error.reason)
            return None

    async def _absorb_partition(self, number: int, batch: Sequence[EventT]) -> None:
        partition = self._partition(number)
        admitted = await self._sequencer.admit(partition, batch)
        facts = [fact for event in admitted if (fact := await self._fact(event)) is not None]
        # The awaits above may have let a rebalance through: what this worker knew is then somebody else's.
        if not admitted or self._partitions.get(number) is not partition:
            return
        last = admitted[-1]
        with telemetry.BATCH_SECONDS.time():
            now, topic = self._microseconds(), last.message.topic
            changes = partition.absorb(topic, facts, now=now, through=last.message.offset)
            await table.write(self._table, changes, event=last)
        self._report(topic, partition, len(facts))

    def _report(self, topic: str, partition: Partition, merged: int) -> None:
        telemetry.FACTS.labels(topic).inc(merged)
        telemetry.WINDOWS.labels(partition.number).set(len(list(partition.windows)))
        telemetry.WAITING.labels(partition.number).set(partition.waiting)
        reported = self._reported[partition.number]
        for reason, count in (partition.dropped - reported).items():
            telemetry.DROPPED.labels(reason).inc(count)
        self._reported[partition.number] = Counter(partition.dropped)

    def _partition(self, number: int) -> Partition:
        if number not in self._partitions:
            if self._loaded is None:
                self._loaded = table.load(self._table)
            self._reported.pop(number, None)
            self._partitions[number] = Partition(
                number, self._rules, records=self._loaded.pop(number, ()), now=self._microseconds()
            )
        return self._partitions[number]

    def _microseconds(self) -> int:
        return int(self._now() * 1_000_000)
