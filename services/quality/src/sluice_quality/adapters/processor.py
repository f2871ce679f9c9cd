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
        owns: Callable[[TP], bool],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = windows
        self._rules = rules
        self._dead_letters = dead_letters
        self._publish = publish
        self._owns = owns
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
            if self._owns(event.message.tp):
                by_partition[event.message.partition].append(event)
        for number, batch in by_partition.items():
            facts = [fact for event in batch if (fact := await self._fact(event)) is not None]
            if self._owns(batch[-1].message.tp):
                await self._merge(number, batch, facts)

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

    async def _merge(self, number: int, batch: Sequence[EventT], facts: Sequence[Fact]) -> None:
        topic = batch[-1].message.topic
        with telemetry.BATCH_SECONDS.time():
            partition = self._partition(number)
            changes = partition.absorb(topic, facts, now=self._microseconds())
            await table.write(self._table, changes, event=batch[-1])
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
