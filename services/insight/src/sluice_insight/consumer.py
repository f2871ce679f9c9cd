"""Feeds the board from the measured events."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from aiokafka import TopicPartition
from google.protobuf.message import Message
from prometheus_client import Counter
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.fairness_pb2 import FairnessCounted, FairnessMeasured
from sluice.events.v1.mesh_pb2 import EventsLost
from sluice.events.v1.probe_pb2 import ProbeMeasured
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice_kit import broker
from sluice_kit.consumer import ConsumedEvent, EventConsumer
from sluice_kit.events import SeenIds, topic_of
from sluice_kit.health import HealthBoard
from sluice_kit.settings import MeshSettings

from sluice_insight.adapters.comparisons import Comparisons
from sluice_insight.adapters.events import charge_of, drift_part, fairness_part, quality_part
from sluice_insight.adapters.probes import probe_parts
from sluice_insight.adapters.sources import Sources
from sluice_insight.domain.board import Board
from sluice_insight.domain.costs import Charge, Costs
from sluice_insight.domain.part import Part
from sluice_insight.domain.watch import Watchers

MEASURED: Sequence[type[Message]] = (
    QualityMeasured, DriftMeasured, FairnessCounted, FairnessMeasured, CostRecorded, ProbeMeasured,
)  # fmt: skip
EVENTS: Sequence[type[Message]] = (*MEASURED, EventsLost)
MINUTED: Sequence[type[Message]] = tuple(event for event in MEASURED if event is not FairnessMeasured)
"""Those that minutes are made of."""
COUNTED = frozenset(topic_of(event).name for event in MEASURED)
"""Topics whose gaps are explained by what their producers say."""

ROWS_REMEMBERED = 20_000
"""Ledger rows of a partition that are known by their ids. The ledger tells a row again when it was killed between telling and
noting it, which are at most 500 rows at a time; a row has one key, and so comes again on its partition."""

TOPICS_WAIT_SECONDS = 600.0
"""The broker may start after us."""

Fact = Part | Charge | EventsLost | tuple[Part, ...] | None

TOO_OLD = Counter("sluice_insight_too_old", "Parts and ledger rows that came too late: not in the history.", ["family"])
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
        comparisons: Comparisons | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._sources = sources or Sources(now=now)
        self._comparisons = comparisons or Comparisons()
        self._board = board
        self._costs = costs
        self._watchers = watchers
        self._now = now
        self._began_ms = int(now() * 1_000)
        self._rows: defaultdict[int, SeenIds] = defaultdict(lambda: SeenIds(ROWS_REMEMBERED))
        self.positions: dict[tuple[str, int], int] = {}
        """The offset after the last that was read, by topic and partition."""
        self.reached: dict[tuple[str, int], int] = {}
        """The newest window start that was read, by topic and partition."""

    async def handle(self, events: Sequence[ConsumedEvent]) -> None:
        """Take a batch in. Reading an event again changes nothing."""
        now = int(self._now() * 1_000_000)
        for event in events:
            # First: an event that cannot be read must not pass for a copy of itself when it is tried again.
            fact, keep = _fact(event), self._comparisons.read(event.message)
            if self._is_new(event):
                self._take(fact, now)
                keep()
                self._note(fact, event, now)
            self.positions[event.topic, event.partition] = event.offset + 1
        self._sources.watch()

    def _is_new(self, event: ConsumedEvent) -> bool:
        """False for a copy: read again, standing at another offset under its number, or published again under another one.

        Never by offset: the embedded broker gives the offsets of records that it lost to others.
        Windows need only the first: of a part the newest revision counts, however often it comes.
        """
        if not self._sources.see(event):
            return False
        is_known_by_id = isinstance(event.message, CostRecorded) and event.event_id
        return not is_known_by_id or self._rows[event.partition].is_new(event.event_id)

    def _note(self, fact: Fact, event: ConsumedEvent, now: int) -> None:
        """How far a partition has come in event time, and what came too late."""
        place = event.topic, event.partition
        reached = self.reached.get(place, 0)
        first = reached - self._board.history
        # What was told since this start no life before has read: if its hour is folded, it stands nowhere. Behind what its
        # own partition had reached it need not be, for that stood still while the others went on.
        if event.timestamp_ms > self._began_ms:
            first = max(first, self._board.begins_at(now))
        if fact is None and isinstance(
            event.message, CostRecorded
        ):  # a row that counts nowhere is later than those before
            self.reached[place] = max(event.message.metadata.occurred_at.ToMicroseconds(), reached)
        for one in fact if isinstance(fact, tuple) else (fact,):
            if isinstance(one, Part | Charge):
                start = one.at if isinstance(one, Charge) else one.start
                self.reached[place] = max(start, self.reached.get(place, 0))
                if start < first:
                    TOO_OLD.labels("cost" if isinstance(one, Charge) else one.family).inc()

    def _take(self, fact: Fact, now: int) -> None:
        if isinstance(fact, EventsLost):
            numbers = fact.first_sequence, fact.last_sequence
            at = fact.last_lost_at.ToMicroseconds()
            self._sources.lose(fact.lost_topic, fact.metadata.producer, numbers, at=at)
            return
        for part in fact if isinstance(fact, tuple) else (fact,):
            self._put(self._costs.add(part, now=now) if isinstance(part, Charge) else part, now)

    def _put(self, part: Part | None, now: int) -> None:
        if part is not None and self._board.put(part, now=now):
            PARTS.labels(part.family).inc()
            self._watchers.notice(part.family, part.start)


def _fact(event: ConsumedEvent) -> Fact:
    """What an event tells; None for what counts nowhere. Raises ValueError for one that contradicts itself."""
    message = event.message
    if isinstance(message, QualityMeasured):
        return quality_part(message)
    if isinstance(message, DriftMeasured):
        return drift_part(message)
    if isinstance(message, FairnessCounted):
        return fairness_part(message)
    if isinstance(message, ProbeMeasured):
        return probe_parts(message)
    if isinstance(message, CostRecorded) and not message.metadata.synthetic and message.charge_kind != "judge":
        return charge_of(message, partition=event.partition)
    if isinstance(message, EventsLost) and message.lost_topic in COUNTED:
        message.last_lost_at.ToMicroseconds()
        return message
    if isinstance(message, FairnessMeasured):
        message.window.start.ToMicroseconds()
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
