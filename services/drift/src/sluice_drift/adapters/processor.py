"""Carries observations into the partitions' series, what changed into the table, and what is due to the publisher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import msgspec
from sluice_kit.streams.holding import Holding, Publish
from sluice_kit.streams.sequence import SourceLog
from sluice_kit.streams.source import SourceEvent, Table

from sluice_drift.adapters import records, telemetry
from sluice_drift.adapters.events import measured
from sluice_drift.adapters.records import decode_sent
from sluice_drift.adapters.router import Router
from sluice_drift.domain.causes import causes_of
from sluice_drift.domain.comparison import Comparer, Detection
from sluice_drift.domain.observation import Observation, Pin
from sluice_drift.domain.partition import Partition, Record, Rules


class Processor:
    """The series of a worker. Not thread-safe: agents and timer share one event loop, and no await splits a merge."""

    def __init__(
        self,
        *,
        windows: Table,
        rules: Rules,
        detection: Detection,
        publish: Publish,
        source: SourceLog,
        router: Router,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._detection = detection
        self._comparer = Comparer(detection, rules.trailing)
        self._publish = publish
        self._router = router
        self._now = now
        self.holding: Holding[Partition, Record] = Holding(
            stored=windows, records=records, source=source, take_up=self._take_up, dropped=telemetry.DROPPED
        )

    async def route(self, events: Sequence[SourceEvent]) -> None:
        """Send the observations of events on to the owners of their series; returns when the broker has them."""
        for partition, admitted in await self.holding.admitted(events):
            last = admitted[-1]
            if not await self._write(partition, partition.rewound, event=last):
                continue
            await self._router.route(admitted, partition.place)
            await self._write(
                partition, partial(partition.advance, last.message.topic, last.message.offset), event=last
            )

    async def absorb(self, events: Sequence[SourceEvent]) -> None:
        """Merge a batch of records of the internal topic; returns when the changelog has what it changed."""
        for partition, admitted in await self.holding.admitted(events):
            observations = [each for event in admitted for each in _sent(event)]
            async with self.holding.turn(partition):
                if self.holding.holds(partition):
                    await self._merge(partition, observations, last=admitted[-1])

    async def _write(
        self, partition: Partition, changed: Callable[[], Mapping[str, Record | None]], *, event: SourceEvent
    ) -> bool:
        """Store what changed, in the partition's turn; False when it is another worker's by then."""
        async with self.holding.turn(partition):
            if not self.holding.holds(partition):
                return False
            if changes := changed():
                await self.holding.write(changes, event=event)
            return True

    async def _merge(
        self, partition: Partition, observations: Sequence[Observation | Pin], *, last: SourceEvent
    ) -> None:
        changes = partition.absorb(observations, now=self._microseconds())
        changes |= partition.advance(last.message.topic, last.message.offset)
        await self.holding.write(changes, event=last)
        telemetry.OBSERVATIONS.inc(len(observations))
        telemetry.WINDOWS.labels(partition.number).set(len(list(partition.windows)))
        self.holding.report_dropped(partition)

    async def publish_due(self) -> None:
        """Compare and publish every window whose published form is out of date."""
        for partition in list(self.holding.partitions.values()):
            async with self.holding.turn(partition):
                if self.holding.holds(partition):
                    await self._publish_partition(partition)

    async def _publish_partition(self, partition: Partition) -> None:
        for due in partition.due(self._microseconds()):
            with telemetry.COMPARE_SECONDS.time():
                comparison = self._comparer.compare(due.window, due.reference, due.before)
                causes = causes_of(due.window, due.reference, comparison)
            await self._publish(measured(due, comparison, causes, false_alarm_rate=self._detection.false_alarm_rate))
            partition.mark_published(due)
            telemetry.PUBLISHED.inc()
            await asyncio.sleep(0)  # a comparison takes milliseconds: let heartbeats through between two

    def _take_up(self, number: int, kept: Iterable[Record]) -> Partition:
        return Partition(number, self._rules, records=kept, now=self._microseconds())

    def _microseconds(self) -> int:
        return int(self._now() * 1_000_000)


def _sent(event: SourceEvent) -> Sequence[Observation | Pin]:
    try:
        return decode_sent(event.message.value or b"")
    except msgspec.DecodeError:
        # Only this service writes here; a record it cannot read is a stranger's, and nobody waits for it.
        telemetry.DROPPED.labels("unreadable").inc()
        return []
