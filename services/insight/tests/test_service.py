"""InsightService over real gRPC, fed with events as the processors publish them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from urllib.parse import quote

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry, generate_latest
from sluice.events.v1 import drift_pb2
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.fairness_pb2 import FairnessCounted
from sluice.events.v1.probe_pb2 import ProbeMeasured
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.insight.v1.insight_service_pb2_grpc import InsightServiceStub, add_InsightServiceServicer_to_server
from sluice.types.v1 import metric_pb2
from sluice_insight.adapters.exposition import DRIFT, EXPOSED, LiveWindows
from sluice_insight.api.metrics import SERVICE_NAME, InsightService
from sluice_insight.consumer import Feed
from sluice_insight.domain.board import MINUTE, Board
from sluice_insight.domain.catalogue import METRICS
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.watch import Watchers
from sluice_insight.settings import InsightSettings
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.server import GrpcServer

NOW = 1_760_000_040.0
START = int(NOW) * 1_000_000


class Mesh:
    """A read model with its server, and a way to publish to it."""

    def __init__(self) -> None:
        day = 24 * 60 * MINUTE
        self.board, self.watchers = Board(history=day), Watchers(limit=3)
        self.feed = Feed(board=self.board, costs=Costs(history=day), watchers=self.watchers, now=lambda: NOW)
        self.stub: InsightServiceStub
        self.offset = 0

    async def publish(self, *events: Message) -> None:
        await self.feed.handle([self._consumed(event) for event in events])

    def _consumed(self, event: Message) -> ConsumedEvent:
        self.offset += 1
        return ConsumedEvent(
            message=event, topic="", partition=0, offset=self.offset, key=b"", headers={}, event_id="", timestamp_ms=0
        )


@pytest.fixture()
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh()
    settings = InsightSettings(grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=0.1)
    server = GrpcServer(service="insight", settings=settings)
    service = InsightService(board=made.board, watchers=made.watchers, now=lambda: NOW)
    add_InsightServiceServicer_to_server(service, server.grpc)
    await server.start(service_names=[SERVICE_NAME])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        made.stub = InsightServiceStub(channel)
        yield made
    await server.stop()


def quality(
    partition: int, requests: int, *, revision: int, tenant: str = "acme", model: str = "small"
) -> QualityMeasured:
    event = QualityMeasured()
    event.series.tenant_id, event.series.model = tenant, model
    event.window.start.FromMicroseconds(START)
    event.window.length.FromMicroseconds(MINUTE)
    event.part.part_key = f"quality|{tenant}|{model}|{partition}"
    event.part.source_partition, event.part.revision = partition, revision
    event.part.complete_up_to.FromMicroseconds(START + 1)
    event.requests.requests = requests
    event.requests.succeeded = requests - 1
    event.requests.failed = 1
    sketch = event.requests.latency_microseconds
    sketch.relative_accuracy = 0.01
    sketch.bucket_indexes.extend([600, 700])
    sketch.bucket_counts.extend([requests - 1, 1])
    sketch.sum = requests * 1000
    return event


def drift(*, minute: int = 0, closed: bool = True) -> DriftMeasured:
    event = DriftMeasured(verdict=drift_pb2.DRIFT_VERDICT_DRIFTED, observations=80)
    event.series.tenant_id, event.series.model = "acme", "small"
    event.window.start.FromMicroseconds(START + minute * MINUTE)
    event.window.length.FromMicroseconds(5 * MINUTE)
    event.part.part_key, event.part.revision, event.part.closed = f"drift|acme|small|{minute}", 80, closed
    feature = event.features.add(feature="prompt.language", statistic="chi_squared", value=30.0, p_value=0.0002)
    feature.verdict = drift_pb2.DRIFT_VERDICT_DRIFTED
    feature.population_stability_index, feature.observations = 0.4, 80
    return event


def asked(*metrics: str, **selection: object) -> pb.QueryMetricsRequest:
    request = pb.QueryMetricsRequest(query=pb.MetricQuery(metrics=metrics, **selection))  # type: ignore[arg-type]
    request.end_time.FromMicroseconds(START + 10 * MINUTE)
    return request


async def test_partitions_are_merged_and_a_newer_revision_replaces_an_older_one(mesh: Mesh) -> None:
    await mesh.publish(quality(0, 10, revision=10), quality(0, 20, revision=20), quality(1, 5, revision=5))
    await mesh.publish(quality(0, 10, revision=10))
    answer = await mesh.stub.QueryMetrics(
        asked("quality.requests", "quality.failed_ratio", "quality.latency_seconds.p50")
    )
    values = {point.metric: point for point in answer.points}
    assert values["quality.requests"].value == 25
    ratio = values["quality.failed_ratio"]
    assert (ratio.value, ratio.sample_count) == (2 / 25, 25)
    assert 0 < ratio.lower < ratio.value < ratio.upper < 0.3
    assert values["quality.latency_seconds.p50"].value == pytest.approx(0.161, rel=0.02)
    assert answer.complete_up_to.ToMicroseconds() == START + 1


async def test_a_point_carries_its_series_window_unit_and_revision(mesh: Mesh) -> None:
    await mesh.publish(quality(0, 10, revision=10))
    request = asked("quality.requests", group_by=[pb.DIMENSION_TENANT, pb.DIMENSION_MODEL])
    [point] = (await mesh.stub.QueryMetrics(request)).points
    assert (point.series.tenant_id, point.series.model, point.unit) == ("acme", "small", "1")
    assert (point.window.start.ToMicroseconds(), point.window.length.seconds, point.revision) == (START, 60, 10)
    assert not point.closed


async def test_who_asks_for_a_tenant_gets_that_tenants_values_only(mesh: Mesh) -> None:
    row = CostRecorded(model="small")
    row.metadata.tenant_id, row.amount.currency_code, row.amount.nano_units = "globex", "USD", 500
    row.metadata.occurred_at.FromMicroseconds(START)
    await mesh.publish(quality(0, 10, revision=10), quality(0, 5, revision=5, tenant="globex"), drift(), row)
    names = ("quality.requests", "drift.drifted", "cost.records")

    async def seen(tenant: str, **selection: object) -> list[tuple[str, float]]:
        answer = await mesh.stub.QueryMetrics(asked(*names, **selection), metadata=(("x-sluice-tenant-id", tenant),))
        return [(point.metric, point.value) for point in answer.points]

    assert await seen("acme") == [("drift.drifted", 1), ("quality.requests", 10)]
    assert await seen("globex") == [("cost.records", 1), ("quality.requests", 5)]
    both = pb.DimensionFilter(dimension=pb.DIMENSION_TENANT, values=["acme", "globex"])
    assert await seen("globex", filters=[both]) == [("cost.records", 1), ("quality.requests", 5)]
    assert await seen("globex", filters=[pb.DimensionFilter(dimension=pb.DIMENSION_TENANT, values=["acme"])]) == []
    assert ("quality.requests", 15) in await seen("")
    request = pb.WatchMetricsRequest(query=pb.MetricQuery(metrics=["quality.requests"]))
    request.history.seconds = 3600
    watch = mesh.stub.WatchMetrics(request, metadata=(("x-sluice-tenant-id", "globex"),))
    assert [point.value for point in (await watch.read()).update.points] == [5]
    await until(lambda: len(mesh.watchers) == 1)
    await mesh.publish(quality(0, 11, revision=11), quality(0, 6, revision=6, tenant="globex"))
    assert [point.value for point in (await watch.read()).update.points] == [6]
    watch.cancel()


FIELDS = {
    pb.DIMENSION_TENANT: "tenant_id",
    pb.DIMENSION_PROJECT: "project_id",
    pb.DIMENSION_MODEL: "model",
    pb.DIMENSION_ROUTE: "route",
    pb.DIMENSION_PROMPT_VERSION: "prompt_version",
    pb.DIMENSION_EXPERIMENT_ARM: "experiment_arm",
    pb.DIMENSION_REDACTION_POLICY: "redaction_policy",
}


def series_apart() -> tuple[list[QualityMeasured], dict[str, int]]:
    """One series, and for each field one that is another in that field alone; by field the requests of the latter."""
    events, requests = [], {name: 10 + 2**place for place, name in enumerate(FIELDS.values())}
    for other in ("", *requests):
        event = quality(0, requests.get(other, 1), revision=1)
        event.part.part_key = f"quality|{other}"
        for name in FIELDS.values():
            setattr(event.series, name, f"{'other' if name == other else 'one'} {name}")
        events.append(event)
    return events, requests


# Redaction policies are of `probe.recall*` alone: the next test.
@pytest.mark.parametrize(
    "dimension", [each for each in FIELDS if each != pb.DIMENSION_REDACTION_POLICY], ids=pb.Dimension.Name
)
async def test_each_dimension_groups_and_filters_by_its_own_field(mesh: Mesh, dimension: pb.Dimension) -> None:
    events, requests = series_apart()
    await mesh.publish(*events)
    field = FIELDS[dimension]
    grouped = (await mesh.stub.QueryMetrics(asked("quality.requests", group_by=[dimension]))).points
    rest = 1 + sum(requests.values()) - requests[field]
    assert [(point.series, point.value) for point in grouped] == [
        (metric_pb2.MetricSeries(**{field: f"one {field}"}), rest),
        (metric_pb2.MetricSeries(**{field: f"other {field}"}), requests[field]),
    ]
    for value, counted in ((f"one {field}", rest), (f"other {field}", requests[field])):
        only = pb.DimensionFilter(dimension=dimension, values=[value])
        chosen = (await mesh.stub.QueryMetrics(asked("quality.requests", filters=[only]))).points
        assert [(point.series, point.value) for point in chosen] == [(metric_pb2.MetricSeries(), counted)]


def test_no_dimension_is_left_out() -> None:
    assert list(FIELDS) == pb.Dimension.values()[1:]


async def test_recall_is_grouped_and_filtered_by_redaction_policy(mesh: Mesh) -> None:
    event = ProbeMeasured()
    event.window.start.FromMicroseconds(START)
    event.window.length.FromMicroseconds(MINUTE)
    event.part.part_key, event.part.revision, event.part.closed = "probe|1", 1, True
    event.part.complete_up_to.FromMicroseconds(START)
    event.detections.add(kind="EMAIL_ADDRESS", redaction_policy="default@1", sought=10, found=10)
    event.detections.add(kind="EMAIL_ADDRESS", redaction_policy="strict@2", sought=10, found=5)
    await mesh.publish(event)
    policy = pb.DIMENSION_REDACTION_POLICY
    grouped = (await mesh.stub.QueryMetrics(asked("probe.recall", "probe.recall_lowest", group_by=[policy]))).points
    assert [(point.metric, point.series.redaction_policy, point.value) for point in grouped] == [
        ("probe.recall", "default@1", 1.0),
        ("probe.recall", "strict@2", 0.5),
        ("probe.recall_lowest", "default@1", 1.0),
        ("probe.recall_lowest", "strict@2", 0.5),
    ]
    only = pb.DimensionFilter(dimension=policy, values=["strict@2"])
    chosen = (await mesh.stub.QueryMetrics(asked("probe.recall", filters=[only]))).points
    assert [(point.series, point.value) for point in chosen] == [(metric_pb2.MetricSeries(), 0.5)]


async def test_pages_follow_one_another(mesh: Mesh) -> None:
    await mesh.publish(*[quality(0, 5, revision=5, tenant=f"tenant-{n}") for n in range(5)])
    request = asked("quality.requests", group_by=[pb.DIMENSION_TENANT])
    request.page_size = 2
    seen: list[str] = []
    while True:
        answer = await mesh.stub.QueryMetrics(request)
        seen += [point.series.tenant_id for point in answer.points]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    assert seen == [f"tenant-{n}" for n in range(5)]


def with_window(seconds: int) -> pb.QueryMetricsRequest:
    request = asked("quality.requests")
    request.query.window.seconds = seconds
    return request


def backwards() -> pb.QueryMetricsRequest:
    request = asked("quality.requests")
    request.start_time.FromMicroseconds(START + 20 * MINUTE)
    return request


@pytest.mark.parametrize(
    ("request_", "field", "hint"),
    [
        (pb.QueryMetricsRequest(), "query.metrics", "at least one"),
        (asked("quality.happiness"), "query.metrics", "quality.requests"),
        (asked("quality.requests", group_by=[0]), "query.group_by", "DIMENSION_TENANT"),
        (asked("quality.requests", filters=[pb.DimensionFilter(dimension=99)]), "query.filters", "DIMENSION_TENANT"),
        (
            asked("quality.requests", group_by=[pb.DIMENSION_REDACTION_POLICY]),
            "query.group_by",
            "of probe.recall* alone",
        ),
        (
            asked("probe.recall", "quality.requests", group_by=[pb.DIMENSION_REDACTION_POLICY]),
            "query.group_by",
            "ask for quality.requests by itself",
        ),
        (
            asked("quality.requests", filters=[pb.DimensionFilter(dimension=7, values=["default@1"])]),
            "query.filters",
            "of probe.recall* alone",
        ),
        (
            asked("quality.requests", filters=[pb.DimensionFilter(dimension=pb.DIMENSION_TENANT)]),
            "query.filters",
            "at least one value of DIMENSION_TENANT",
        ),
        (with_window(61), "query.window", "whole number of minutes"),
        (with_window(0), "query.window", "whole number of minutes"),
        (with_window(10**9), "query.window", "at most a day"),
        (backwards(), "start_time", "before end_time"),
        (
            pb.QueryMetricsRequest(query=pb.MetricQuery(metrics=["cost.records"]), page_token="-1"),
            "page_token",
            "earlier",
        ),
    ],
    ids=[
        "none",
        "metric",
        "group",
        "filter",
        "policy",
        "policies",
        "by-policy",
        "empty",
        "61s",
        "0s",
        "years",
        "range",
        "token",
    ],
)
async def test_bad_questions_get_a_clear_answer(
    mesh: Mesh, request_: pb.QueryMetricsRequest, field: str, hint: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mesh.stub.QueryMetrics(request_)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert hint in (caught.value.details() or "")
    status = rpc_status.from_call(caught.value)  # type: ignore[arg-type]
    violation = error_details_pb2.BadRequest()
    assert any(detail.Unpack(violation) for detail in status.details)
    assert violation.field_violations[0].field == field


@pytest.mark.parametrize("family", sorted({name.partition(".")[0] for name in METRICS} | {"no"}))
async def test_the_longest_error_fits_into_the_trailers_that_grpc_lets_through(mesh: Mesh, family: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="unknown metric; known are: ") as caught:
        await mesh.stub.QueryMetrics(asked(f"{family}.happiness"))
    trailers = sum(len(key) + len(value) for key, value in caught.value.trailing_metadata() or ())
    # Above 8,192 bytes gRPC turns away the answer at random; binary values are a third longer on the wire.
    assert 4 / 3 * trailers + len(quote(caught.value.details() or "")) < 8_000


async def test_a_watcher_sees_history_then_changes(mesh: Mesh) -> None:
    await mesh.publish(quality(0, 10, revision=10))
    request = pb.WatchMetricsRequest(query=pb.MetricQuery(metrics=["quality.requests"]))
    request.history.seconds = 3600
    watch = mesh.stub.WatchMetrics(request)
    first = await watch.read()
    assert [point.value for point in first.update.points] == [10]
    await until(lambda: len(mesh.watchers) == 1)
    for revision in range(11, 40):
        await mesh.publish(quality(0, revision, revision=revision))
    second = await watch.read()
    assert [point.value for point in second.update.points] == [39]
    assert second.update.coalesced == 28
    watch.cancel()
    await until(lambda: len(mesh.watchers) == 0)


async def test_a_watcher_too_many_is_told_to_come_back(mesh: Mesh) -> None:
    request = pb.WatchMetricsRequest(query=pb.MetricQuery(metrics=["quality.requests"]))
    request.history.seconds = 60
    watches = [mesh.stub.WatchMetrics(request) for _ in range(3)]
    for watch in watches:
        await watch.read()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mesh.stub.WatchMetrics(request).read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for watch in watches:
        watch.cancel()


async def test_drift_and_cost_are_answered_too(mesh: Mesh) -> None:
    cost = CostRecorded(model="small")
    cost.metadata.tenant_id = "acme"
    cost.metadata.occurred_at.FromMicroseconds(START + 1)
    cost.amount.currency_code, cost.amount.nano_units = "USD", 1_500
    await mesh.publish(drift(), cost, cost)
    answer = await mesh.stub.QueryMetrics(
        asked("drift.drifted", "drift.prompt.language.psi", "cost.nano_units", "cost.records")
    )
    values = {point.metric: (point.value, point.unit, point.verdict) for point in answer.points}
    assert values == {
        "cost.nano_units": (3_000, "nano-USD", ""),
        "cost.records": (2, "1", ""),
        "drift.drifted": (1, "1", "drifted"),
        "drift.prompt.language.psi": (0.4, "nats", "drifted"),
    }


async def test_there_are_no_alerts_yet(mesh: Mesh) -> None:
    assert not (await mesh.stub.ListAlerts(pb.ListAlertsRequest())).alerts


async def test_prometheus_sees_a_bounded_number_of_series_and_nothing_is_left_out(mesh: Mesh) -> None:
    await mesh.publish(*[quality(0, 10 + n, revision=1, model=f"model-{n}") for n in range(100)], drift())
    registry = CollectorRegistry()
    registry.register(LiveWindows(board=mesh.board, limit=5, now=lambda: NOW + 60))
    text = generate_latest(registry).decode()
    requests = [line for line in text.splitlines() if line.startswith("sluice_insight_quality_requests{")]
    assert len(requests) == 6
    assert sum(float(line.rsplit(" ", 1)[1]) for line in requests) == sum(10 + n for n in range(100))
    assert any('tenant="other"' in line for line in requests)
    named = Counter(line.split("{")[0] for line in text.splitlines() if not line.startswith("#"))
    assert set(named) <= {f"sluice_insight_{name.replace('.', '_')}" for name in (*EXPOSED, *DRIFT)}
    assert max(named.values()) == 6


async def test_prometheus_sees_drift_of_closed_windows_only(mesh: Mesh) -> None:
    registry = CollectorRegistry()
    registry.register(LiveWindows(board=mesh.board, limit=5, now=lambda: NOW + 400))
    labels = {"tenant": "acme", "model": "small", "unit": "1"}

    def drifted() -> float | None:
        return registry.get_sample_value("sluice_insight_drift_drifted", labels)

    await mesh.publish(drift(closed=False))
    assert drifted() is None
    stable = drift()
    stable.part.revision, stable.verdict = 90, drift_pb2.DRIFT_VERDICT_STABLE
    await mesh.publish(stable, drift(minute=5, closed=False))
    assert drifted() == 0, "the open one after it says nothing yet"
    later = drift(minute=5)
    later.part.revision = 90
    await mesh.publish(later)
    assert drifted() == 1


async def until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_fairness_is_answered_by_group_merged_over_partitions(mesh: Mesh) -> None:
    await mesh.publish(*[fairness(partition, judged=20, blocked=4 + partition) for partition in range(2)])
    name = "fairness.input_terms.religion.block_rate"
    [point] = (await mesh.stub.QueryMetrics(asked(name))).points
    assert (point.value, point.sample_count, point.unit) == (9 / 40, 40, "ratio")
    assert point.lower < point.value < point.upper
    assert not (await mesh.stub.QueryMetrics(asked("fairness.input_terms.age.block_rate"))).points


def fairness(partition: int, *, judged: int, blocked: int) -> FairnessCounted:
    event = FairnessCounted(policy="general@3")
    event.series.tenant_id, event.series.model = "acme", "small"
    event.window.start.FromMicroseconds(START)
    event.window.length.FromMicroseconds(MINUTE)
    event.part.part_key = f"fairness|acme|small|{partition}"
    event.part.source_partition, event.part.revision = partition, judged
    event.groups.add(
        attribute="input_terms", group="religion", judged=judged, blocked=blocked, allowed=judged - blocked
    )
    event.groups.add(attribute="input_terms", group="none", judged=1000, allowed=1000)
    return event


@pytest.mark.parametrize("hop", [0, 30, 7 * 60, 3600 + 60, 300])
async def test_a_hop_that_does_not_fit_is_refused_with_what_would(mesh: Mesh, hop: int) -> None:
    query = pb.MetricQuery(metrics=["quality.requests"])
    query.window.seconds, query.hop.seconds = 7200, hop
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await mesh.stub.QueryMetrics(pb.QueryMetricsRequest(query=query))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "divides the window" in caught.value.details()


async def test_hopping_windows_end_within_the_range_that_is_asked_for(mesh: Mesh) -> None:
    await mesh.publish(quality(0, 7, revision=1))
    query = pb.MetricQuery(metrics=["quality.requests"])
    query.window.seconds, query.hop.seconds = 300, 60
    request = pb.QueryMetricsRequest(query=query)
    request.start_time.FromMicroseconds(START)
    request.end_time.FromMicroseconds(START + 2 * MINUTE)
    points = (await mesh.stub.QueryMetrics(request)).points
    assert [point.value for point in points] == [7.0, 7.0]
    assert [point.window.start.ToMicroseconds() for point in points] == [START - 4 * MINUTE, START - 3 * MINUTE]
    assert {point.window.length.seconds for point in points} == {300}


async def test_a_watcher_gets_every_window_that_a_minute_is_in(mesh: Mesh) -> None:
    query = pb.MetricQuery(metrics=["quality.requests"])
    query.window.seconds, query.hop.seconds = 180, 60
    watch = mesh.stub.WatchMetrics(pb.WatchMetricsRequest(query=query))
    reading = asyncio.ensure_future(watch.read())
    deadline = asyncio.get_running_loop().time() + 5
    while not len(mesh.watchers) and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.01)
    await mesh.publish(quality(0, 7, revision=1))
    update = (await asyncio.wait_for(reading, 10)).update
    assert [(START - p.window.start.ToMicroseconds()) // MINUTE for p in update.points] == [2, 1, 0]
    watch.cancel()


async def test_judging_has_a_score_with_its_count_and_no_part_in_the_callers_cost(mesh: Mesh) -> None:
    event = quality(0, 10, revision=10)
    event.judgements.judged, event.judgements.unusable, event.judgements.score_sum_milli = 2, 1, 7_000
    row = CostRecorded(charge_kind="judge", model="small")
    row.metadata.occurred_at.FromMicroseconds(START)
    row.metadata.tenant_id, row.amount.currency_code, row.amount.nano_units = "acme", "USD", 500
    await mesh.publish(event, row)
    names = ("quality.judge_score", "quality.judged_answers", "quality.judge_failed_ratio", "cost.nano_units")
    points = (await mesh.stub.QueryMetrics(asked(*names))).points
    assert {point.metric: (point.value, point.sample_count) for point in points} == {
        "quality.judge_score": (3.5, 2),
        "quality.judged_answers": (2.0, 3),
        "quality.judge_failed_ratio": (pytest.approx(1 / 3), 3),
    }
