"""Carries observations into the partitions' series, what changed into the table, and what is due to the publisher."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from faust.types import TP, EventT

from sluice_drift.adapters import table, telemetry
from sluice_drift.adapters.events import measured
from sluice_drift.adapters.records import decode_observations
from sluice_drift.adapters.router import Router
from sluice_drift.adapters.sequence import Sequencer, SourceLog
from sluice_drift.domain.comparison import Comparer, Detection
from sluice_drift.domain.observation import Observation
from sluice_drift.domain.partition import Partition, Record, Rules

Publish = Callable[..., Awaitable[None]]
"""Publishes event messages."""


class Processor:
    """The state of a worker. Not thread-safe: agents and timer share one event loop, and no await splits a merge."""

    def __init__(
        self,
        *,
        windows: table.ConfirmedTable,
        rules: Rules,
        detection: Detection,
        publish: Publish,
        source: SourceLog,
        router: Router,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._table = windows
        self._rules = rules
        self._detection = detection
        self._comparer = Comparer(detection)
        self._publish = publish
        self._source = source
        self._router = router
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

    async def route(self, events: Sequence[EventT]) -> None:
        """Send the observations of events on to the owners of their series; returns when the broker has them."""
        for partition, admitted in await self._admitted(events):
            await self._router.route(admitted)
            last = admitted[-1]
            if self._holds(partition):
                changes = partition.advance(last.message.topic, last.message.offset)
                await table.write(self._table, changes, event=last)

    async def absorb(self, events: Sequence[EventT]) -> None:
        """Merge a batch of records of the internal topic; returns when the changelog has what it changed."""
        for partition, admitted in await self._admitted(events):
            observations = [each for event in admitted for each in _observations(event)]
            last = admitted[-1]
            if self._holds(partition):
                changes = partition.absorb(observations, now=self._microseconds())
                changes |= partition.advance(last.message.topic, last.message.offset)
                await table.write(self._table, changes, event=last)
                self._report(partition, len(observations))

    def _holds(self, partition: Partition) -> bool:
        # An await may have let a rebalance through: what this worker knew is then somebody else's.
        return self._partitions.get(partition.number) is partition

    async def align(self, assigned: Sequence[TP]) -> None:
        """Once after each assignment: read on where the stored state stands."""
        if self._aligned or not self.recovered:
            return
        self._aligned = True
        for tp in assigned:
            await self._sequencer.align(self._partition(tp.partition), [tp])

    async def _admitted(self, events: Sequence[EventT]) -> list[tuple[Partition, list[EventT]]]:
        """Events that follow on what is stored, by partition.

        Events buffered before a rebalance are left to the partition's new owner: writing them here would
        overwrite its windows in the changelog.
        """
        await self._recovered.wait()
        by_partition: defaultdict[int, list[EventT]] = defaultdict(list)
        for event in events:
            if self._source.owns(event.message.tp):
                by_partition[event.message.partition].append(event)
        found = []
        for number, batch in by_partition.items():
            partition = self._partition(number)
            admitted = await self._sequencer.admit(partition, batch)
            if admitted:
                found.append((partition, admitted))
        return found

    async def publish_due(self) -> None:
        """Compare and publish every window whose published form is out of date."""
        for partition in list(self._partitions.values()):
            for due in partition.due(self._microseconds()):
                with telemetry.COMPARE_SECONDS.time():
                    comparison = self._comparer.compare(due.window, due.reference)
                rate = self._detection.false_alarm_rate
                await self._publish(measured(due, comparison, false_alarm_rate=rate))
                partition.mark_published(due)
                telemetry.PUBLISHED.inc()
                await asyncio.sleep(0)  # a comparison takes milliseconds: let heartbeats through between two

    def _report(self, partition: Partition, merged: int) -> None:
        telemetry.OBSERVATIONS.inc(merged)
        telemetry.WINDOWS.labels(partition.number).set(len(list(partition.windows)))
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


def _observations(event: EventT) -> list[Observation]:
    try:
        return decode_observations(event.message.value or b"")
    except msgspec.DecodeError:
        # Only this service writes here; a record it cannot read is a stranger's, and nobody waits for it.
        telemetry.DROPPED.labels("unreadable").inc()
        return []
