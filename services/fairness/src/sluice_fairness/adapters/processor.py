"""Carries events into the partitions, what changed into the table, and what is due to the publisher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from sluice_kit.events import UndecodableEvent
from sluice_kit.streams.dead_letters import DeadLetters, read
from sluice_kit.streams.holding import Holding, Publish
from sluice_kit.streams.sequence import SourceLog
from sluice_kit.streams.source import SourceEvent, Table

from sluice_fairness.adapters import records, telemetry
from sluice_fairness.adapters.events import fact_of
from sluice_fairness.adapters.published import counted, measured
from sluice_fairness.domain.board import Frame, Tally
from sluice_fairness.domain.facts import StoryFact
from sluice_fairness.domain.measuring import Judging, Measurement, measure
from sluice_fairness.domain.partition import Partition, Record, Rules

PARTS_PER_PUBLISH = 200


class Processor:
    """The windows of a worker. Not thread-safe: agents and timer share one event loop, and no await splits a merge."""

    def __init__(
        self,
        *,
        windows: Table,
        rules: Rules,
        judging: Judging,
        dead_letters: DeadLetters,
        publish: Publish,
        source: SourceLog,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._judging = judging
        self._dead_letters = dead_letters
        self._publish = publish
        self._now = now
        self.holding: Holding[Partition, Record] = Holding(
            stored=windows, records=records, source=source, take_up=self._take_up, dropped=telemetry.DROPPED
        )

    async def absorb(self, events: Sequence[SourceEvent]) -> None:
        """Merge a batch; returns when the changelog has what it changed, so that the batch may be acknowledged."""
        for partition, admitted in await self.holding.admitted(events):
            facts = [fact for event in admitted if (fact := await self._fact(event)) is not None]
            async with self.holding.turn(partition):
                if self.holding.holds(partition):
                    await self._merge(partition, facts, last=admitted[-1])

    async def _merge(self, partition: Partition, facts: Sequence[StoryFact | Tally], *, last: SourceEvent) -> None:
        topic = last.message.topic
        with telemetry.BATCH_SECONDS.time():
            changes = partition.absorb(topic, facts, now=self._microseconds(), through=last.message.offset)
            await self.holding.write(changes, event=last)
        telemetry.FACTS.labels(topic).inc(len(facts))
        telemetry.WINDOWS.labels(partition.number).set(len(list(partition.windows)))
        telemetry.REQUESTS.labels(partition.number).set(partition.requests)
        self.holding.report_dropped(partition)

    async def _fact(self, event: SourceEvent) -> StoryFact | Tally | None:
        record_time = round(event.message.timestamp * 1_000_000)  # int() would cut some short by a microsecond
        try:
            return fact_of(read(event), owner=event.message.partition, record_time=record_time)
        except UndecodableEvent as error:
            await self._dead_letters.park(event, reason=error.reason)
            return None

    async def publish_due(self) -> None:
        """Publish every window whose published form is out of date, and measure every merged one that is complete."""
        now = self._microseconds()
        for partition in list(self.holding.partitions.values()):
            async with self.holding.turn(partition):
                if self.holding.holds(partition):
                    await self._publish_parts(partition, now)
            if self.holding.holds(partition):
                for frame in partition.frames_due(now):
                    await self._publish_measurements(partition, frame)

    async def _publish_parts(self, partition: Partition, now: int) -> None:
        due = partition.parts_due(now)
        for first in range(0, len(due), PARTS_PER_PUBLISH):
            parts = due[first : first + PARTS_PER_PUBLISH]
            await self._publish(*[counted(part) for part in parts])
            for part in parts:
                partition.mark_published(part)
            telemetry.PUBLISHED.inc(len(parts))

    async def _publish_measurements(self, partition: Partition, frame: Frame) -> None:
        # In a thread and out of the turn: a frame is a copy, and the first one imports Fairlearn for seconds.
        with telemetry.MEASURE_SECONDS.time():
            found: list[Measurement] = await asyncio.to_thread(measure, frame, self._judging)
        if found:
            await self._publish(*[measured(each, frame, self._judging) for each in found])
        partition.mark_measured(frame)
        for each in found:
            telemetry.MEASURED.labels(each.verdict.value or "none").inc()

    def _take_up(self, number: int, kept: Iterable[Record]) -> Partition:
        return Partition(number, self._rules, records=kept, now=self._microseconds())

    def _microseconds(self) -> int:
        return int(self._now() * 1_000_000)
