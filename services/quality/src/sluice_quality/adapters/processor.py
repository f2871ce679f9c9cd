"""Carries events into the partitions' aggregation, what changed into the table, and what is due to the publisher."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.events import UndecodableEvent, topic_of
from sluice_kit.streams.dead_letters import DeadLetters, read
from sluice_kit.streams.holding import Holding, Publish
from sluice_kit.streams.sequence import SourceLog
from sluice_kit.streams.source import SourceEvent, Table

from sluice_quality.adapters import records, telemetry
from sluice_quality.adapters.batches import together
from sluice_quality.adapters.events import fact_of, measured
from sluice_quality.domain.facts import Fact
from sluice_quality.domain.partition import Part, Partition, Record, Rules

if TYPE_CHECKING:  # numpy comes with an extra
    from sluice_quality.domain.columns import CompletionColumns

PARTS_PER_PUBLISH = 500
_COMPLETIONS = topic_of(RequestCompleted).name


class Processor:
    """The windows of a worker. Not thread-safe: agents and timer share one event loop, and no await splits a merge."""

    def __init__(
        self,
        *,
        windows: Table,
        rules: Rules,
        dead_letters: DeadLetters,
        publish: Publish,
        source: SourceLog,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._dead_letters = dead_letters
        self._publish = publish
        self._now = now
        self.holding: Holding[Partition, Record] = Holding(
            stored=windows, records=records, source=source, take_up=self._take_up, dropped=telemetry.DROPPED
        )

    async def absorb(self, events: Sequence[SourceEvent]) -> None:
        """Merge a batch; returns when the changelog has what it changed, so that the batch may be acknowledged."""
        for partition, admitted in await self.holding.admitted(events):
            facts = await self._facts(admitted)
            async with self.holding.turn(partition):
                if self.holding.holds(partition):
                    await self._merge(partition, facts, last=admitted[-1])

    async def _merge(
        self, partition: Partition, facts: Sequence[Fact] | CompletionColumns, *, last: SourceEvent
    ) -> None:
        topic = last.message.topic
        with telemetry.BATCH_SECONDS.time():
            changes = partition.absorb(topic, facts, now=self._microseconds(), through=last.message.offset)
            await self.holding.write(changes, event=last)
        telemetry.FACTS.labels(topic).inc(len(facts))
        telemetry.WINDOWS.labels(partition.number).set(len(list(partition.windows)))
        telemetry.WAITING.labels(partition.number).set(partition.waiting)
        self.holding.report_dropped(partition)

    async def _facts(self, events: Sequence[SourceEvent]) -> list[Fact] | CompletionColumns:
        read = together(events)
        if not isinstance(read, tuple):
            return read
        found, alone = read
        for place in alone:
            found[place] = await self._fact(events[place])
        return [fact for fact in found if fact is not None]

    async def _fact(self, event: SourceEvent) -> Fact | None:
        message = event.message
        record_time = round(message.timestamp * 1_000_000)  # int() would cut a millisecond short by a microsecond
        try:
            return fact_of(read(event), offset=message.offset, record_time=record_time)
        except UndecodableEvent as error:
            await self._dead_letters.park(event, reason=error.reason)
            return None

    async def publish_due(self) -> None:
        """Publish every window whose published form is out of date."""
        now = self._microseconds()
        for partition in list(self.holding.partitions.values()):
            async with self.holding.turn(partition):
                due = partition.parts_due(now) if self.holding.holds(partition) else []
                for first in range(0, len(due), PARTS_PER_PUBLISH):
                    await self._publish_parts(partition, due[first : first + PARTS_PER_PUBLISH])

    async def _publish_parts(self, partition: Partition, parts: Sequence[Part]) -> None:
        await self._publish(*[measured(part) for part in parts])
        for part in parts:
            partition.mark_published(part)
        telemetry.PUBLISHED.inc(len(parts))

    def _take_up(self, number: int, kept: Iterable[Record]) -> Partition:
        return Partition(number, self._rules, records=kept, now=self._microseconds(), completions=_COMPLETIONS)

    def _microseconds(self) -> int:
        return int(self._now() * 1_000_000)
