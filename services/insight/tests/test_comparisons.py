"""The newest comparisons: the newest revision of the newest window, whole, and a tenant's own only."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1 import drift_pb2, fairness_pb2
from sluice.insight.v1 import comparison_service_pb2 as pb
from sluice.insight.v1 import comparison_service_pb2_grpc as rpc
from sluice.types.v1 import metric_pb2
from sluice_insight.adapters.comparisons import Comparisons
from sluice_insight.api.comparisons import ComparisonService
from sluice_kit.interceptor import CallInterceptor

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
DRIFTED, STABLE, INSUFFICIENT = (
    drift_pb2.DRIFT_VERDICT_DRIFTED,
    drift_pb2.DRIFT_VERDICT_STABLE,
    drift_pb2.DRIFT_VERDICT_INSUFFICIENT,
)


def at(minutes: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(NOON + timedelta(minutes=minutes))
    return stamp


def drift(
    tenant: str, minutes: int, verdict: Any, *, revision: int = 1, observations: int = 60
) -> drift_pb2.DriftMeasured:
    return drift_pb2.DriftMeasured(
        series=metric_pb2.MetricSeries(tenant_id=tenant, model="m"),
        window=metric_pb2.MetricWindow(start=at(minutes)),
        part=metric_pb2.WindowPart(revision=revision),
        verdict=verdict,
        observations=observations,
    )


def fairness(tenant: str, group: str, minutes: int, *, value: float = 0.5, hours: int = 0, revision: int = 1) -> Any:
    event = fairness_pb2.FairnessMeasured(
        series=metric_pb2.MetricSeries(tenant_id=tenant),
        window=metric_pb2.MetricWindow(start=at(minutes)),
        metric="selection_rate",
        attribute="input_terms",
        group=group,
        value=value,
        revision=revision,
    )
    event.window.length.FromSeconds(hours * 3600 or 60)
    return event


@pytest_asyncio.fixture
async def stub_and_comparisons():
    comparisons = Comparisons(most_drift=50, most_fairness=50)
    server = grpc.aio.server(interceptors=[CallInterceptor()])
    rpc.add_ComparisonServiceServicer_to_server(ComparisonService(comparisons), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield rpc.ComparisonServiceStub(channel), comparisons
    await server.stop(None)


async def test_the_newest_revision_of_the_newest_window_counts_in_any_order(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    events = [
        drift("acme", 0, STABLE),
        drift("acme", 5, STABLE),
        drift("acme", 5, DRIFTED, revision=2),
        drift("acme", 0, DRIFTED, revision=9),
    ]
    for seed in range(10):
        random.Random(seed).shuffle(events)
        for event in events:
            comparisons.take(event)
        (found,) = (await stub.ListDrift(pb.ListDriftRequest())).comparisons
        assert (found.window.start, found.part.revision, found.verdict) == (at(5), 2, DRIFTED)


async def test_a_window_too_small_to_say_anything_does_not_hide_the_one_that_did(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    comparisons.take(drift("acme", 0, DRIFTED))
    comparisons.take(drift("acme", 5, INSUFFICIENT, observations=3))
    comparisons.take(drift("quiet", 5, INSUFFICIENT, observations=1))
    found = (await stub.ListDrift(pb.ListDriftRequest())).comparisons
    assert [(one.series.tenant_id, one.verdict) for one in found] == [("acme", DRIFTED), ("quiet", INSUFFICIENT)]


async def test_drifted_series_come_first_and_what_is_left_out_is_counted(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    for i in range(12):
        comparisons.take(drift(f"t{i:02}", 0, DRIFTED if i == 9 else STABLE))
    answer = await stub.ListDrift(pb.ListDriftRequest(page_size=5))
    assert [one.series.tenant_id for one in answer.comparisons] == ["t09", "t00", "t01", "t02", "t03"]
    assert (answer.left_out, answer.newest_at) == (7, at(0))


async def test_pages_follow_on_one_another_and_end(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    for i in range(12):
        comparisons.take(drift(f"t{i:02}", 0, DRIFTED if i == 9 else STABLE))
        comparisons.take(fairness(f"t{i:02}", "age", 0))
    told, groups, sizes = [], [], []
    request, asked = pb.ListDriftRequest(page_size=5), pb.ListFairnessRequest(page_size=5)
    for _ in range(3):
        answer, measured = await stub.ListDrift(request), await stub.ListFairness(asked)
        told += [one.series.tenant_id for one in answer.comparisons]
        groups += [one.series.tenant_id for one in measured.measurements]
        sizes.append((answer.left_out, measured.left_out))
        request.page_token, asked.page_token = answer.next_page_token, measured.next_page_token
    assert (request.page_token, asked.page_token, sizes) == ("", "", [(7, 7), (2, 2), (0, 0)])
    assert told[0] == "t09"
    assert sorted(told) == groups == [f"t{i:02}" for i in range(12)]
    for token in ("-1", "x", "\u0663", "9" * 10):
        with pytest.raises(grpc.aio.AioRpcError, match="page_token must come from an earlier answer"):
            await stub.ListDrift(pb.ListDriftRequest(page_token=token))


async def test_hours_and_minutes_of_fairness_are_kept_apart(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    comparisons.take(fairness("acme", "age", 0, hours=1, value=0.25))
    comparisons.take(fairness("acme", "age", 59, value=0.75))
    for is_long, value in ((True, 0.25), (False, 0.75)):
        answer = await stub.ListFairness(pb.ListFairnessRequest(long_windows=is_long))
        assert [one.value for one in answer.measurements] == [value]
    assert not (await stub.ListFairness(pb.ListFairnessRequest(metric="flag_rate", long_windows=True))).measurements


async def test_a_tenant_gets_its_own_whatever_it_asks_for(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    for tenant in ("acme", "globex"):
        comparisons.take(drift(tenant, 0, STABLE))
        comparisons.take(fairness(tenant, "age", 0))
    mine = (("x-sluice-tenant-id", "acme"),)
    for asked in ("", "acme", "globex"):
        found = await stub.ListDrift(pb.ListDriftRequest(tenant_id=asked), metadata=mine)
        assert [one.series.tenant_id for one in found.comparisons] == ["acme"]
        groups = await stub.ListFairness(pb.ListFairnessRequest(tenant_id=asked), metadata=mine)
        assert [one.series.tenant_id for one in groups.measurements] == ["acme"]
    assert len((await stub.ListDrift(pb.ListDriftRequest(tenant_id="globex"))).comparisons) == 1


async def test_memory_is_bounded_and_the_quietest_series_goes(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    for i in range(60):
        comparisons.take(drift(f"t{i:02}", 0, STABLE))
        comparisons.take(drift("t00", i, STABLE, revision=i + 1))
    found = {one.series.tenant_id for one in (await stub.ListDrift(pb.ListDriftRequest(page_size=1000))).comparisons}
    assert len(found) == 50
    assert "t00" in found
