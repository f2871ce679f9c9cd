"""A read model over a file, at a clock of its own, and a synthetic log of many days: what the tests of the history live on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.types.v1.metric_pb2 import MetricPoint
from sluice_insight.adapters.forgetting import Forgetting
from sluice_insight.adapters.history import DAY, HOUR, History
from sluice_insight.api.metrics import InsightService
from sluice_insight.consumer import Feed
from sluice_insight.domain.board import MINUTE, Board
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.horizon import Horizon
from sluice_insight.domain.watch import Watchers
from sluice_kit.consumer import ConsumedEvent

BEGIN = 1_760_000_040_000_000 - 1_760_000_040_000_000 % DAY + 7 * HOUR
STEP = 37 * MINUTE
TENANTS = ("acme", "globex", "initech")
EVER = 10_000 * DAY
METRICS = (
    "quality.requests", "quality.success_ratio", "quality.feedback_score", "quality.latency_seconds.p95",
    "quality.latency_seconds.mean", "cost.nano_units", "cost.records",
)  # fmt: skip


def quality(rng: random.Random, at: int, tenant: str, partition: int, revision: int) -> QualityMeasured:
    event = QualityMeasured()
    event.series.tenant_id, event.series.model = tenant, f"model-{rng.randrange(2)}" if revision == 0 else "model-0"
    event.window.start.FromMicroseconds(at)
    event.window.length.FromMicroseconds(MINUTE)
    event.part.part_key = f"quality|{tenant}|{at}|{partition}"
    event.part.source_partition, event.part.revision, event.part.closed = partition, revision, revision > 1
    event.part.complete_up_to.FromMicroseconds(at)
    event.requests.requests = revision + rng.randrange(9)
    event.requests.succeeded = rng.randrange(event.requests.requests + 1)
    event.feedback.received, event.feedback.positive, event.feedback.negative = 2, rng.randrange(-1, 3), 1
    sketch = event.requests.latency_microseconds
    sketch.relative_accuracy = 0.01
    sketch.bucket_indexes.extend(sorted(rng.sample(range(500, 900), 5)))
    sketch.bucket_counts.extend(rng.randrange(1, 5) for _ in range(5))
    sketch.sum = rng.randrange(10**6)
    return event


def row(rng: random.Random, at: int, tenant: str) -> CostRecorded:
    event = CostRecorded(model="model-0")
    event.metadata.tenant_id, event.metadata.event_id = tenant, f"row-{at}-{tenant}"
    event.metadata.occurred_at.FromMicroseconds(at + rng.randrange(MINUTE))
    event.amount.currency_code = rng.choice(("USD", "EUR"))
    event.amount.nano_units = rng.randrange(-5, 1000)
    return event


def log(days: int, seed: int = 5) -> list[list[Message]]:
    """Two partitions: for every step and tenant two revisions of a minute, the second an hour of event time later, and a ledger row."""
    rng, partitions = random.Random(seed), [list[tuple[int, Message]](), list[tuple[int, Message]]()]
    for at in range(BEGIN, BEGIN + days * DAY, STEP):
        for number, events in enumerate(partitions):
            for tenant in TENANTS:
                minute = at - at % MINUTE
                events.append((at, quality(rng, minute, tenant, number, 1)))
                events.append((at + HOUR, quality(rng, minute, tenant, number, 2)))
            events.append((at, row(rng, minute + number * MINUTE, rng.choice(TENANTS))))
    return [[event for _, event in sorted(events, key=lambda one: one[0])] for events in partitions]


def moment(event: Message) -> int:
    start: int = (
        event.metadata.occurred_at if isinstance(event, CostRecorded) else event.window.start  # type: ignore[attr-defined]
    ).ToMicroseconds()
    return start


class Insight:
    """One life of the read model over a file, at a clock of its own."""

    def __init__(self, path: Path | None, *, now: int, days: int = 31, most_parts: int = 100_000, series: int = 100):
        self.now = now
        self.history = History(path, days=days, most_series=series, now=now, most_parts=most_parts) if path else None
        keep = DAY if path else EVER
        horizon = Horizon(keep, self.history.folded_up_to if self.history else None)
        self.board, self.costs = Board(history=keep, horizon=horizon), Costs(history=keep, horizon=horizon)
        watchers = Watchers(limit=1)
        self.feed = Feed(board=self.board, costs=self.costs, watchers=watchers, now=lambda: self.now / 1e6)
        self.ends: dict[tuple[str, int], int] = {}
        self.service = InsightService(
            board=self.board, watchers=watchers, history=self.history, now=lambda: self.now / 1e6
        )
        self.most_parts = 0
        if self.history:
            self.forgetting = Forgetting(
                board=self.board, costs=self.costs, horizon=horizon, history=self.history, ends=self._ends,
                positions=lambda: self.feed.positions, reached=lambda: self.feed.reached, now=lambda: self.now / 1e6,
            )  # fmt: skip

    async def _ends(self) -> dict[tuple[str, int], int]:
        return self.ends

    async def read(self, partition: int, events: Sequence[Message], *, offset: int = 0, live: bool = False) -> None:
        """Reads a stretch of a partition; with `live` the clock goes along, and old minutes are folded on the way."""
        folded = 0
        for number, event in enumerate(events, offset):
            if live:
                self.now = max(self.now, moment(event) + 2 * MINUTE)
            await self.feed.handle([consumed(event, partition, number)])
            self.most_parts = max(self.most_parts, len(self.board))
            if number - folded > 60:
                folded = number
                await self.fold()

    async def fold(self) -> None:
        if self.history:
            await self.forgetting.round()

    async def answers(self, metrics: Sequence[str] = METRICS, **more: Any) -> list[MetricPoint]:
        request = pb.QueryMetricsRequest(page_size=10_000)
        request.query.metrics.extend(metrics)
        request.query.group_by.append(pb.DIMENSION_TENANT)
        request.query.window.FromMicroseconds(more.get("window", DAY))
        request.query.filters.extend(more.get("filters", ()))
        if "hop" in more:
            request.query.hop.FromMicroseconds(more["hop"])
        request.end_time.FromMicroseconds(more.get("end", self.now))
        request.start_time.FromMicroseconds(more.get("start", self.now - 31 * DAY))
        points: list[MetricPoint] = []
        while True:
            answer = await self.service.QueryMetrics(request, None)  # type: ignore[arg-type]
            points.extend(answer.points)
            request.page_token = answer.next_page_token
            if not answer.next_page_token:
                # Counts of two currencies have the same unit: nothing puts the one before the other.
                return sorted(points, key=lambda point: point.SerializeToString(deterministic=True))

    def close(self) -> None:
        if self.history:
            self.history.close()


def consumed(event: Message, partition: int, offset: int) -> ConsumedEvent:
    event_id = event.metadata.event_id  # type: ignore[attr-defined]
    return ConsumedEvent(
        message=event, topic="", partition=partition, offset=offset, key=b"", headers={}, event_id=event_id, timestamp_ms=0
    )  # fmt: skip


async def all_minutes(partitions: Sequence[Sequence[Message]], now: int) -> Insight:
    """A board that forgets nothing: what the answers must be."""
    whole = Insight(None, now=now)
    for number, events in enumerate(partitions):
        await whole.read(number, events)
    return whole


async def both(life: Insight, partitions: Sequence[Sequence[Message]], cuts: Sequence[int], begin: int = 0) -> None:
    """Both partitions live, in turns, up to the cuts; every end is known."""
    sizes = [begin, begin]
    for cut in cuts:
        for number, events in enumerate(partitions):
            life.ends["", number] = min(cut, len(events))
            await life.read(number, events[sizes[number] : cut], offset=sizes[number], live=True)
            sizes[number] = max(sizes[number], min(cut, len(events)))
    await life.fold()


def drift(at: int, verdict: int) -> DriftMeasured:
    event = DriftMeasured(verdict=verdict, observations=80)  # type: ignore[arg-type]
    event.series.tenant_id = "acme"
    event.window.start.FromMicroseconds(at)
    event.window.length.FromMicroseconds(5 * MINUTE)
    event.part.part_key, event.part.revision = f"drift|{at}", 80
    return event
