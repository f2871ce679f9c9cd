"""The watermark of every producer, and what a withheld event does to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.mesh_pb2 import EventsLost
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.insight.v1.insight_service_pb2_grpc import InsightServiceStub, add_InsightServiceServicer_to_server
from sluice_insight import consumer
from sluice_insight.adapters.sources import GRACE_SECONDS, SourceGauges, Sources
from sluice_insight.adapters.watermark import Watermark
from sluice_insight.api.metrics import SERVICE_NAME, InsightService
from sluice_insight.consumer import Feed
from sluice_insight.domain.board import MINUTE, Board
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.watch import Watchers
from sluice_insight.settings import InsightSettings
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.events import topic_of
from sluice_kit.server import GrpcServer

BEGAN = 1_760_000_040
COST = "sluice-cost/0#aaaaaaaa"
RECORDED = topic_of(CostRecorded).name
DAY = 24 * 60 * MINUTE


class Mesh:
    """A read model whose clock is set by hand."""

    def __init__(self) -> None:
        self.clock = float(BEGAN)
        self.sources = Sources(now=lambda: self.clock)
        self.board, self.watchers = Board(history=DAY), Watchers(limit=3)
        self.feed = Feed(
            board=self.board,
            costs=Costs(history=DAY),
            watchers=self.watchers,
            sources=self.sources,
            now=lambda: self.clock,
        )
        self.stub: InsightServiceStub
        self.offset = 0

    async def charge(self, *numbers: int, written: int = 0, producer: str = COST, event_id: str = "") -> None:
        """Ledger rows of 5 nano-units with these numbers, a second apart; written when they happened or at a moment."""
        for number in numbers:
            event = CostRecorded(source_event_id=f"event-{number}", model="small", charge_kind="inference")
            event.amount.currency_code, event.amount.nano_units = "USD", 5
            event.metadata.producer, event.metadata.producer_sequence = producer, number
            event.metadata.event_id, event.metadata.tenant_id = event_id or f"{producer}-{number}", "acme"
            event.metadata.occurred_at.FromSeconds(BEGAN + number)
            partition = len(event_id) % 4 if event_id else number % 4
            await self._handle(event, RECORDED, partition, (written or BEGAN + number) * 1000)

    async def lose(self, first: int, last: int, *, topic: str = RECORDED, number: int = 1) -> None:
        """The producer says that these will never come."""
        event = EventsLost(lost_topic=topic, first_sequence=first, last_sequence=last, count=last - first + 1)
        event.metadata.producer, event.metadata.producer_sequence = COST, number
        event.metadata.event_id = f"lost-{number}"
        event.last_lost_at.FromSeconds(BEGAN + last)
        await self._handle(event, topic_of(EventsLost).name, 0, (BEGAN + last) * 1000)

    async def measure(self, at: int) -> None:
        """A window of quality that says it is complete up to a moment."""
        event = QualityMeasured()
        event.window.start.FromSeconds(BEGAN)
        event.window.length.FromMicroseconds(MINUTE)
        event.part.part_key, event.part.revision = "quality|acme", at
        event.part.complete_up_to.FromSeconds(at)
        await self._handle(event, topic_of(QualityMeasured).name, 0, at * 1000)

    async def _handle(
        self, event: CostRecorded | QualityMeasured | EventsLost, topic: str, partition: int, written_ms: int
    ) -> None:
        self.offset += 1
        await self.feed.handle(
            [
                ConsumedEvent(
                    message=event, topic=topic, partition=partition, offset=self.offset, key=b"", headers={},
                    event_id=event.metadata.event_id, timestamp_ms=written_ms,
                )
            ]
        )  # fmt: skip

    async def source(self, producer: str = COST) -> pb.Source:
        answer = await self.stub.ListSources(pb.ListSourcesRequest())
        return next(source for source in answer.sources if (source.topic, source.producer) == (RECORDED, producer))

    async def query(self, metric: str) -> pb.QueryMetricsResponse:
        request = pb.QueryMetricsRequest(query=pb.MetricQuery(metrics=[metric]))
        request.start_time.FromSeconds(BEGAN - 3600)
        request.end_time.FromSeconds(BEGAN + 3600)
        return await self.stub.QueryMetrics(request)


@pytest.fixture()
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh()
    settings = InsightSettings(grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=0.1)
    server = GrpcServer(service="insight", settings=settings)
    service = InsightService(board=made.board, watchers=made.watchers, sources=made.sources, now=lambda: made.clock)
    add_InsightServiceServicer_to_server(service, server.grpc)
    await server.start(service_names=[SERVICE_NAME])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        made.stub = InsightServiceStub(channel)
        yield made
    await server.stop()


def gaps() -> float:
    return REGISTRY.get_sample_value("sluice_events_gaps_total", {"topic": RECORDED}) or 0.0


async def test_a_source_is_complete_up_to_its_last_event_however_its_partitions_come(mesh: Mesh) -> None:
    await mesh.charge(1, 5, 3, 2, 4)
    source = await mesh.source()
    assert (source.begins_at_sequence, source.last_sequence, source.complete_up_to_sequence) == (1, 5, 5)
    assert (source.complete_up_to.seconds, source.missing_count) == (BEGAN + 5, 0)


async def test_a_withheld_event_holds_the_watermark_back_until_it_comes(mesh: Mesh) -> None:
    await mesh.measure(BEGAN + 60)
    await mesh.charge(1, 2, 3, 5, 6)
    source = await mesh.source()
    assert (source.complete_up_to_sequence, source.complete_up_to.seconds) == (3, BEGAN + 3)
    assert [(hole.first, hole.last) for hole in source.missing] == [(4, 4)]
    assert (await mesh.query("cost.records")).complete_up_to.seconds == BEGAN + 3
    await mesh.charge(4)
    assert (await mesh.source()).missing_count == 0
    assert (await mesh.query("cost.records")).complete_up_to.seconds == BEGAN + 60


async def test_the_common_watermark_is_that_of_the_producer_who_is_furthest_behind(mesh: Mesh) -> None:
    await mesh.measure(BEGAN + 60)
    await mesh.charge(1, 2, 9)
    await mesh.charge(1, 7, producer="sluice-cost/1#bbbbbbbb")
    assert (await mesh.query("cost.records")).complete_up_to.seconds == BEGAN + 1


async def test_a_gap_is_counted_once_and_only_when_it_lasts(mesh: Mesh) -> None:
    before = gaps()
    await mesh.charge(1, 2, 5)
    await mesh.charge(6)
    assert gaps() == before
    mesh.clock += GRACE_SECONDS + 1
    await mesh.charge(7)
    await mesh.charge(8)
    assert gaps() == before + 2
    await mesh.charge(3)
    mesh.clock += GRACE_SECONDS + 1
    await mesh.charge(9)
    assert gaps() == before + 2
    assert (await mesh.source()).missing_count == 1


async def test_what_was_deleted_from_the_topic_before_the_start_is_no_gap(mesh: Mesh) -> None:
    await mesh.charge(90, 40, 70, written=BEGAN - 100)
    await mesh.charge(91, 92)
    source = await mesh.source()
    assert (source.begins_at_sequence, source.complete_up_to_sequence, source.missing_count) == (91, 92, 0)
    await mesh.charge(94)
    assert (await mesh.source()).missing_count == 1


async def test_a_producer_without_any_history_begins_with_the_first_number_seen(mesh: Mesh) -> None:
    await mesh.charge(501, 500, 502)
    source = await mesh.source()
    assert (source.begins_at_sequence, source.complete_up_to_sequence, source.missing_count) == (500, 502, 0)


async def test_an_event_that_comes_again_at_another_offset_is_counted_once(mesh: Mesh) -> None:
    await mesh.charge(1, 2, 2, 1, 2)
    values = {point.metric: point.value for point in (await mesh.query("cost.nano_units")).points}
    assert values == {"cost.nano_units": 10}
    assert (await mesh.source()).repeated_count == 3


async def test_rows_are_counted_where_the_broker_gave_offsets_anew(mesh: Mesh) -> None:
    await mesh.charge(4, 8, 12)
    # The embedded broker died and lost the last two, which come again from their outbox behind two new ones; all is read from the beginning.
    mesh.offset = 0
    await mesh.charge(4, 16, 20, 8, 12)
    values = {point.metric: point.value for point in (await mesh.query("cost.nano_units")).points}
    assert values == {"cost.nano_units": 25}


async def test_reading_all_again_counts_nothing_twice_however_long_ago_it_was(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "ROWS_REMEMBERED", 2)
    for _ in range(2):
        mesh.offset = 0
        await mesh.charge(*range(4, 80, 4))
    assert sum(point.value for point in (await mesh.query("cost.records")).points) == 19


async def test_a_row_that_is_published_again_under_another_number_is_counted_once(mesh: Mesh) -> None:
    await mesh.charge(1, 2, event_id="row")
    await mesh.charge(1, event_id="row", producer="sluice-cost/0#bbbbbbbb")
    await mesh.charge(3)
    values = {point.metric: point.value for point in (await mesh.query("cost.nano_units")).points}
    assert values == {"cost.nano_units": 10}
    source = await mesh.source()
    assert (source.last_sequence, source.missing_count, source.repeated_count) == (3, 0, 0)


async def test_an_event_that_cannot_be_read_is_no_copy_when_it_is_tried_again(mesh: Mesh) -> None:
    event = QualityMeasured()
    event.metadata.producer, event.metadata.producer_sequence = "sluice-quality/0#cccccccc", 1
    event.requests.latency_microseconds.bucket_indexes.append(3)  # and no count for it
    for _ in range(2):
        with pytest.raises(ValueError, match="zip"):
            await mesh._handle(event, topic_of(QualityMeasured).name, 0, BEGAN * 1000)


async def test_what_a_producer_says_it_lost_holds_nothing_back(mesh: Mesh) -> None:
    before = gaps()
    await mesh.measure(BEGAN + 60)
    await mesh.charge(1, 2, 3, 7, 8)
    assert (await mesh.query("cost.records")).complete_up_to.seconds == BEGAN + 3
    await mesh.lose(4, 5)
    source = await mesh.source()
    assert [(hole.first, hole.last) for hole in source.missing] == [(6, 6)]
    assert (source.complete_up_to_sequence, source.lost_count) == (5, 2)
    assert (await mesh.query("cost.records")).complete_up_to.seconds == BEGAN + 5
    await mesh.lose(6, 6, number=2)
    source = await mesh.source()
    assert (source.complete_up_to_sequence, source.missing_count, source.lost_count) == (8, 0, 3)
    assert (await mesh.query("cost.records")).complete_up_to.seconds == BEGAN + 60
    mesh.clock += GRACE_SECONDS + 1
    await mesh.charge(9)
    assert gaps() == before


async def test_a_loss_may_be_told_of_before_its_neighbours_come_and_twice(mesh: Mesh) -> None:
    await mesh.lose(2, 3)
    await mesh.lose(2, 3)
    await mesh.charge(1, written=BEGAN - 100)
    await mesh.charge(4)
    source = await mesh.source()
    assert (source.begins_at_sequence, source.complete_up_to_sequence) == (2, 4)
    assert (source.missing_count, source.lost_count) == (0, 2)


async def test_losses_on_topics_that_are_not_read_here_make_no_source(mesh: Mesh) -> None:
    await mesh.lose(1, 9, topic="sluice.gateway.request_completed.v1")
    topics = {source.topic for source in (await mesh.stub.ListSources(pb.ListSourcesRequest())).sources}
    assert topics == {topic_of(EventsLost).name}


async def test_prometheus_sees_the_watermark_of_every_source(mesh: Mesh) -> None:
    await mesh.charge(1, 2, 5)
    registry = CollectorRegistry()
    registry.register(SourceGauges(mesh.sources))
    assert (
        registry.get_sample_value("sluice_insight_complete_up_to_seconds", {"topic": RECORDED, "producer": COST})
        == BEGAN + 2
    )
    assert registry.get_sample_value("sluice_insight_missing_events", {"topic": RECORDED}) == 2


async def test_a_loss_of_an_impossible_time_is_refused_each_time_it_is_tried_and_those_after_it_count(
    mesh: Mesh,
) -> None:
    event = EventsLost(lost_topic=RECORDED, first_sequence=2, last_sequence=3, count=2)
    event.metadata.producer, event.metadata.producer_sequence, event.metadata.event_id = COST, 1, "lost-1"
    event.last_lost_at.seconds = 2**62
    for _ in range(2):  # the second must not pass for a copy: only what fails again and again is a dead letter
        with pytest.raises(ValueError, match="Timestamp is not valid"):
            await mesh._handle(event, topic_of(EventsLost).name, 0, BEGAN * 1000)
    await mesh.charge(1, written=BEGAN - 100)
    await mesh.charge(4)
    assert (await mesh.source()).missing_count == 2


async def test_alerts_are_complete_up_to_the_minute_that_was_judged_and_no_later_than_what_is_missing() -> None:
    mesh, judged = Mesh(), [0]
    watermark = Watermark(mesh.board, mesh.sources, judged=lambda: judged[0], now=lambda: mesh.clock)
    service = InsightService(
        board=mesh.board, watchers=mesh.watchers, sources=mesh.sources, watermark=watermark, now=lambda: mesh.clock
    )

    async def complete() -> float | None:
        answer = await service.ListAlerts(pb.ListAlertsRequest(), None)  # type: ignore[arg-type]
        return answer.complete_up_to.ToSeconds() - BEGAN if answer.HasField("complete_up_to") else None

    await mesh.measure(BEGAN + 300)
    assert await complete() is None, "no rule was judged here"
    judged[0] = (BEGAN + 240) * 1_000_000
    assert await complete() == 240
    await mesh.charge(1, 2, 4)
    assert await complete() == 2, "it was judged over less than all"
    await mesh.charge(3)
    assert await complete() == 240
