"""Comparisons: the newest revision of the newest window and of those before it, whole, and a tenant's own only."""

import random
from dataclasses import dataclass
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
from sluice_insight.adapters.sources import Sources
from sluice_insight.adapters.watermark import Watermark
from sluice_insight.api.comparisons import ComparisonService
from sluice_insight.consumer import Feed
from sluice_insight.domain.board import MINUTE, Board
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.part import Part, Series
from sluice_insight.domain.watch import Watchers
from sluice_insight.domain.windows import Windows
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.events import topic_of
from sluice_kit.interceptor import CallInterceptor


@dataclass(frozen=True)
class Kept:
    key: tuple[str, ...]
    rank: tuple[int, int, bool]


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


@pytest.fixture
def board_and_sources() -> tuple[Board, Sources]:
    return Board(history=24 * 60 * MINUTE), Sources(now=NOON.timestamp)


@pytest_asyncio.fixture
async def stub_and_comparisons(board_and_sources: tuple[Board, Sources]):
    comparisons = Comparisons(most_drift=50, most_fairness=50, most_in_windows=50, most_in_drift_windows=18)
    board, sources = board_and_sources
    server = grpc.aio.server(interceptors=[CallInterceptor()])
    rpc.add_ComparisonServiceServicer_to_server(
        ComparisonService(comparisons, Watermark(board, sources, now=NOON.timestamp)), server
    )
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


async def test_a_window_of_drift_that_is_over_is_told_as_it_was(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    events = [
        drift("acme", 0, DRIFTED), drift("acme", 5, STABLE), drift("acme", 5, DRIFTED, revision=2), drift("globex", 5, STABLE),
        drift("acme", 10, STABLE), drift("acme", 15, INSUFFICIENT, observations=3),
    ]  # fmt: skip
    for seed in range(5):
        random.Random(seed).shuffle(events)
        for event in events:
            comparisons.take(event)
    asked = pb.ListDriftRequest(window_start=at(5), start_time=at(10))
    answer = await stub.ListDrift(asked)
    assert [(one.series.tenant_id, one.part.revision, one.verdict) for one in answer.comparisons] == [
        ("acme", 2, DRIFTED), ("globex", 1, STABLE),
    ]  # fmt: skip
    assert (answer.newest_at, answer.left_out, answer.older_count) == (at(5), 0, 0)
    told = [(one.start, one.drifted_count) for one in answer.windows]
    assert told == [(at(10), 0), (at(5), 1), (at(0), 1)]
    newest = await stub.ListDrift(pb.ListDriftRequest())
    assert [(one.start, one.drifted_count) for one in newest.windows] == told
    assert newest.comparisons[0].window.start == at(10)
    asked.tenant_id = "globex"
    of_one = await stub.ListDrift(asked)
    assert [(one.start, one.drifted_count) for one in of_one.windows] == [(at(5), 0)]
    asked.window_start.CopyFrom(at(10))
    assert not (await stub.ListDrift(asked)).comparisons
    asked.window_start.CopyFrom(Timestamp(seconds=10**15))
    with pytest.raises(grpc.aio.AioRpcError, match="must be a time"):
        await stub.ListDrift(asked)


async def test_of_windows_of_drift_a_tenant_sees_its_own_and_the_oldest_go(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    for minutes in range(0, 60, 5):
        for tenant in ("acme", "globex"):
            comparisons.take(drift(tenant, minutes, STABLE))
    mine = (("x-sluice-tenant-id", "acme"),)
    answer = await stub.ListDrift(pb.ListDriftRequest(tenant_id="globex", window_start=at(55)), metadata=mine)
    assert [one.series.tenant_id for one in answer.comparisons] == ["acme"]
    assert [one.start for one in answer.windows] == [at(minutes) for minutes in range(55, 10, -5)]


async def test_drifted_series_come_first_and_what_is_left_out_is_counted(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    for i in range(12):
        comparisons.take(drift(f"t{i:02}", 0, DRIFTED if i == 9 else STABLE))
    answer = await stub.ListDrift(pb.ListDriftRequest(page_size=5))
    assert [one.series.tenant_id for one in answer.comparisons] == ["t09", "t00", "t01", "t02", "t03"]
    assert (answer.left_out, answer.newest_at) == (7, at(0))


async def test_only_series_that_were_seen_since_are_listed_and_the_others_counted(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    comparisons.take(drift("gone", 0, DRIFTED))
    comparisons.take(drift("quiet", 0, DRIFTED))  # says nothing any more of what comes now
    comparisons.take(drift("quiet", 60, INSUFFICIENT, observations=3))
    comparisons.take(drift("busy", 55, STABLE))
    answer = await stub.ListDrift(pb.ListDriftRequest(start_time=at(55)))
    told = [(one.series.tenant_id, one.verdict) for one in answer.comparisons]
    assert (told, answer.older_count) == ([("busy", STABLE), ("quiet", INSUFFICIENT)], 1)
    answer = await stub.ListDrift(pb.ListDriftRequest())
    told = [(one.series.tenant_id, one.verdict) for one in answer.comparisons]
    assert (told, answer.older_count) == ([("gone", DRIFTED), ("quiet", DRIFTED), ("busy", STABLE)], 0)
    answer = await stub.ListDrift(pb.ListDriftRequest(tenant_id="busy", start_time=at(100)))
    assert (len(answer.comparisons), answer.older_count) == (0, 1)


async def test_series_without_any_text_come_last(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    comparisons.take(drift("alias", 0, INSUFFICIENT, observations=0))
    empty_now = drift("empty-now", 0, INSUFFICIENT, observations=0)
    empty_now.reference.observations = 200
    comparisons.take(empty_now)
    comparisons.take(drift("few", 0, INSUFFICIENT, observations=3))
    comparisons.take(drift("judged-by-outcomes", 0, STABLE, observations=0))
    comparisons.take(drift("moved", 0, DRIFTED))
    found = (await stub.ListDrift(pb.ListDriftRequest())).comparisons
    order = ["moved", "judged-by-outcomes", "empty-now", "few", "alias"]
    assert [one.series.tenant_id for one in found] == order


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


def hour(tenant: str, group: str, hours: int, **more: Any) -> Any:
    return fairness(tenant, group, 60 * hours, hours=1, **more)


async def test_a_window_that_is_over_is_told_as_it_was_measured(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    restated = hour("acme", "age", 1, value=0.75, revision=2)
    restated.verdict = fairness_pb2.FAIRNESS_VERDICT_DISPARATE
    events = [hour("acme", "age", i, value=i / 10) for i in range(3)] + [
        hour("acme", "religion", 1, value=0.5), restated, fairness("acme", "age", 60, value=0.9),
    ]  # fmt: skip
    for seed in range(5):
        random.Random(seed).shuffle(events)
        for event in events:
            comparisons.take(event)
    asked = pb.ListFairnessRequest(long_windows=True, window_start=at(60))
    answer = await stub.ListFairness(asked)
    assert [(one.group, one.value) for one in answer.measurements] == [("age", 0.75), ("religion", 0.5)]
    assert answer.measurements[0] == restated
    told = [(one.start, one.disparate_count) for one in answer.windows]
    assert told == [(at(120), 0), (at(60), 1), (at(0), 0)]
    newest = await stub.ListFairness(pb.ListFairnessRequest(long_windows=True))
    assert [(one.start, one.disparate_count) for one in newest.windows] == told
    assert [one.value for one in newest.measurements if one.group == "age"] == [0.2]
    asked.long_windows = False
    minute = await stub.ListFairness(asked)
    assert [one.value for one in minute.measurements] == [0.9]
    assert [one.start for one in minute.windows] == [at(60)]


async def test_a_window_that_is_not_kept_has_nothing_and_says_which_are(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    comparisons.take(hour("acme", "age", 1))
    answer = await stub.ListFairness(pb.ListFairnessRequest(long_windows=True, window_start=at(0)))
    assert (list(answer.measurements), [one.start for one in answer.windows]) == ([], [at(60)])
    of_another = await stub.ListFairness(pb.ListFairnessRequest(long_windows=True, metric="flag_rate"))
    assert not of_another.windows
    endless = Timestamp(seconds=10**15)
    with pytest.raises(grpc.aio.AioRpcError, match="must be a time"):
        await stub.ListFairness(pb.ListFairnessRequest(window_start=endless))


async def test_of_windows_that_are_over_a_tenant_sees_its_own_too(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    for hours, tenant in ((0, "acme"), (1, "globex"), (2, "acme"), (2, "globex")):
        comparisons.take(hour(tenant, "age", hours))
    mine = (("x-sluice-tenant-id", "acme"),)
    asked = pb.ListFairnessRequest(tenant_id="globex", long_windows=True, window_start=at(120))
    answer = await stub.ListFairness(asked, metadata=mine)
    assert [one.series.tenant_id for one in answer.measurements] == ["acme"]
    assert [one.start for one in answer.windows] == [at(120), at(0)]


async def test_pages_of_a_window_follow_on_one_another_and_windows_are_told_once(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons
    for i in range(7):
        comparisons.take(hour(f"t{i}", "age", 0))
    asked, told, windows = pb.ListFairnessRequest(long_windows=True, window_start=at(0), page_size=3), [], []
    for _ in range(3):
        answer = await stub.ListFairness(asked)
        told += [one.series.tenant_id for one in answer.measurements]
        windows.append(len(answer.windows))
        asked.page_token = answer.next_page_token
    assert (told, windows, asked.page_token) == ([f"t{i}" for i in range(7)], [1, 0, 0], "")


async def test_a_window_is_kept_whole_or_not_at_all(stub_and_comparisons) -> None:
    stub, comparisons = stub_and_comparisons  # keeps 50 measurements in windows
    groups = [f"g{i:02}" for i in range(20)]
    for hours in range(3):
        for group in groups:
            comparisons.take(hour("acme", group, hours))
    comparisons.take(hour("acme", "g00", 0, revision=2))  # of the one that had to go
    answer = await stub.ListFairness(pb.ListFairnessRequest(long_windows=True))
    assert [one.start for one in answer.windows] == [at(120), at(60)]
    for window in answer.windows:
        found = await stub.ListFairness(pb.ListFairnessRequest(long_windows=True, window_start=window.start))
        assert [one.group for one in found.measurements] == groups


def test_of_windows_the_newest_so_many_are_kept_whatever_their_order() -> None:
    starts = list(range(20))
    for seed in range(10):
        random.Random(seed).shuffle(starts)
        windows: Windows[Kept] = Windows(most=5, limit=1_000)
        for start in starts:
            windows.put(Kept(("a",), (start, 1, True)))
        assert [start for start, _ in windows.each(lambda _: True)] == [19, 18, 17, 16, 15]


def part(
    family: str, minutes: int, *, complete: int, partition: int = 0, closed: bool = False, revision: int = 1
) -> Part:
    return Part(
        key=f"{family}|{minutes}|{partition}", family=family, series=Series(), start=at(minutes).ToMicroseconds(), length=MINUTE,
        partition=partition, revision=revision, closed=closed, complete_up_to=at(complete).ToMicroseconds(),
    )  # fmt: skip


def missing(topic_of_event: Any, *, first: int) -> list[ConsumedEvent]:
    """Events of a producer, of which the third is not there."""
    found = []
    for number in (1, 2, 4):
        event = topic_of_event()
        event.metadata.producer, event.metadata.producer_sequence = "sluice-drift/0#aaaaaaaa", number
        event.metadata.occurred_at.CopyFrom(at(first + number))
        written = int(NOON.timestamp() * 1000) + 60_000
        topic = topic_of(topic_of_event).name
        found.append(ConsumedEvent(event, topic, 0, number, b"", {}, f"e{number}", written))
    return found


async def test_every_comparison_says_up_to_when_it_is_complete(stub_and_comparisons, board_and_sources) -> None:
    stub, _ = stub_and_comparisons
    board, sources = board_and_sources
    for answer in (await stub.ListDrift(pb.ListDriftRequest()), await stub.ListFairness(pb.ListFairnessRequest())):
        assert not answer.HasField("complete_up_to"), "nothing was seen"
    now = int(NOON.timestamp() * 1e6)
    # The slowest partition of the family, and of no other one.
    for one in (
        part("drift", -5, complete=-1),
        part("drift", -5, complete=-2, partition=1),
        part("quality", -20, complete=-20),
    ):
        board.put(one, now=now)
    assert (await stub.ListDrift(pb.ListDriftRequest())).complete_up_to == at(-2)
    for event in missing(drift_pb2.DriftMeasured, first=-30):
        sources.see(event)
    assert (await stub.ListDrift(pb.ListDriftRequest())).complete_up_to == at(-28)


async def test_fairness_is_complete_up_to_the_first_window_that_is_not_compared_yet(
    stub_and_comparisons, board_and_sources
) -> None:
    stub, _ = stub_and_comparisons
    board, sources = board_and_sources
    now = int(NOON.timestamp() * 1e6)

    async def complete() -> Timestamp:
        return (await stub.ListFairness(pb.ListFairnessRequest())).complete_up_to

    board.put(part("fairness", -9, complete=-7), now=now)
    board.put(part("fairness", -8, complete=-7), now=now)
    assert await complete() == at(-9)
    board.put(part("fairness", -9, complete=-6, closed=True, revision=2), now=now)
    assert await complete() == at(-8)
    board.put(part("fairness", -8, complete=-5, closed=True, revision=2), now=now)
    assert await complete() == at(-5)
    board.put(part("fairness", -7, complete=-5), now=now)
    board.forget(at(-6).ToMicroseconds())
    assert await complete() == at(-5), "what is forgotten holds nothing back"
    for event in missing(fairness_pb2.FairnessMeasured, first=-30):
        sources.see(event)
    assert await complete() == at(-28)


async def test_what_could_not_be_read_is_no_copy_of_itself_when_it_is_tried_again(board_and_sources) -> None:
    class Stubborn(Comparisons):
        failures = 1

        def read(self, event: Any) -> Any:
            if self.failures:
                self.failures -= 1
                raise TypeError("another release's series")
            return super().read(event)

    board, sources = board_and_sources
    comparisons = Stubborn()
    day = 24 * 60 * MINUTE
    feed = Feed(
        board=board, costs=Costs(history=day), watchers=Watchers(limit=1), sources=sources, comparisons=comparisons
    )
    event = fairness("acme", "age", 0)
    event.metadata.producer, event.metadata.producer_sequence = "sluice-fairness/0#aaaaaaaa", 1
    topic, written = topic_of(type(event)).name, int(NOON.timestamp() * 1000)
    consumed = [ConsumedEvent(event, topic, 0, 1, b"", {}, "e1", written)]
    with pytest.raises(TypeError):
        await feed.handle(consumed)
    await feed.handle(consumed)
    assert [one.event.group for one in comparisons.fairness.find(lambda _: True)] == ["age"]
