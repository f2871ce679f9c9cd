"""Feeds the board from the measured events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from aiokafka import TopicPartition
from google.protobuf.message import Message
from prometheus_client import Counter
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice_kit import broker
from sluice_kit.consumer import ConsumedEvent, EventConsumer
from sluice_kit.health import HealthBoard
from sluice_kit.settings import MeshSettings

from sluice_insight.adapters.events import charge_of, drift_part, quality_part
from sluice_insight.adapters.sources import Sources
from sluice_insight.domain.board import Board
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.part import Part
from sluice_insight.domain.watch import Watchers

EVENTS: Sequence[type[Message]] = (QualityMeasured, DriftMeasured, CostRecorded)

TOPICS_WAIT_SECONDS = 600.0
"""The broker may start after us."""

PARTS = Counter("sluice_insight_parts", "Parts of windows read.", ["family"])


class Feed:
    """Handles batches of measured events."""

    def __init__(
        self,
        *,
        board: Board,
        costs: Costs,
        watchers: Watchers,
        sources: Sources | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._sources = sources or Sources(now=now)
        self._board = board
        self._costs = costs
        self._watchers = watchers
        self._now = now

    async def handle(self, events: Sequence[ConsumedEvent]) -> None:
        """Take a batch in. Reading an event again changes nothing."""
        now = int(self._now() * 1_000_000)
        for event in events:
            # A copy under the same number stands at another offset: a ledger row would be added up twice.
            part = self._part(event, now) if self._sources.see(event) else None
            if part is not None and self._board.put(part, now=now):
                PARTS.labels(part.family).inc()
                self._watchers.notice(part.family, part.start)
        self._sources.watch()

    def _part(self, event: ConsumedEvent, now: int) -> Part | None:
        message = event.message
        if isinstance(message, QualityMeasured):
            return quality_part(message)
        if isinstance(message, DriftMeasured):
            return drift_part(message)
        if isinstance(message, CostRecorded) and not message.metadata.synthetic:
            return self._costs.add(charge_of(message, partition=event.partition, offset=event.offset), now=now)
        return None


async def from_the_beginning(partitions: set[TopicPartition]) -> Mapping[TopicPartition, int]:
    """The board lives in memory: every start reads what the topics still hold."""
    return dict.fromkeys(partitions, 0)


async def consume(consumer: EventConsumer, settings: MeshSettings, stop: asyncio.Event) -> None:
    """Consume until stop is set, once the topics are there (the embedded broker would make them with one partition)."""
    ready = asyncio.create_task(broker.ensure_topics(settings, wait_seconds=TOPICS_WAIT_SECONDS))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((ready, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        ready.cancel()
        return
    stopped.cancel()
    await ready
    await consumer.run(stop)


async def follow_readiness(consumer: EventConsumer, health: HealthBoard) -> None:
    """Not serving until the consumer has its partitions: an empty board would look like a mesh without traffic."""
    health.set("kafka", False)
    await consumer.ready.wait()
    health.set("kafka", True)
