"""A month of metrics by event time: hours and days say what minutes said, through restarts, and memory stays that of a day."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from google.protobuf.message import Message
from sluice.events.v1 import drift_pb2
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.fairness_pb2 import FairnessMeasured
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.types.v1.metric_pb2 import MetricPoint
from sluice_insight.adapters.forgetting import BUSY_SECONDS, FOLD_SECONDS, LOST, Forgetting
from sluice_insight.adapters.history import DAY, HOUR, History
from sluice_insight.api.metrics import InsightService
from sluice_insight.consumer import MEASURED, MINUTED, Feed
from sluice_insight.domain.board import MINUTE, Board
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.horizon import Horizon
from sluice_insight.domain.watch import Watchers
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import InvalidInput

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


@pytest.fixture(scope="module")
def month() -> list[list[Message]]:
    return log(34)


async def all_minutes(partitions: Sequence[Sequence[Message]], now: int) -> Insight:
    """A board that forgets nothing: what the answers must be."""
    whole = Insight(None, now=now)
    for number, events in enumerate(partitions):
        await whole.read(number, events)
    return whole


@pytest.fixture()
async def lives(tmp_path: Path) -> AsyncIterator[Iterator[Insight]]:
    """Lives over one file, each opened where the last ended."""
    made: list[Insight] = []

    def start(now: int, **more: Any) -> Insight:
        if made:
            made[-1].close()
        made.append(Insight(tmp_path / "history.db", now=now, **more))
        return made[-1]

    yield start  # type: ignore[misc]
    if made:
        made[-1].close()


async def both(life: Insight, partitions: Sequence[Sequence[Message]], cuts: Sequence[int], begin: int = 0) -> None:
    """Both partitions live, in turns, up to the cuts; every end is known."""
    sizes = [begin, begin]
    for cut in cuts:
        for number, events in enumerate(partitions):
            life.ends["", number] = min(cut, len(events))
            await life.read(number, events[sizes[number] : cut], offset=sizes[number], live=True)
            sizes[number] = max(sizes[number], min(cut, len(events)))
    await life.fold()


async def test_hours_and_days_of_a_month_say_what_its_minutes_said_through_restarts(lives: Any, month: Any) -> None:
    third, size = max(map(len, month)) // 3, max(map(len, month))
    life = lives(BEGIN)
    await both(life, month, range(0, third, 200))
    for until in (2 * third, size + 200):
        life = lives(life.now)
        # A restart reads everything again, one partition before the other, and folds meanwhile.
        life.ends = {("", number): len(events[:third]) for number, events in enumerate(month)}
        for number in (1, 0):
            await life.read(number, month[number][:third])
        await both(life, month, range(third, until, 200), begin=third)
        third = until
    whole = await all_minutes(month, life.now)
    for window, hop in ((DAY, DAY), (HOUR, HOUR), (6 * HOUR, HOUR)):
        expected = await whole.answers(window=window, hop=hop)
        assert await life.answers(window=window, hop=hop) == expected
        assert len({point.window.start.seconds for point in expected}) >= 31 * DAY // hop


async def test_memory_holds_little_more_than_a_day_and_the_file_little_more_than_a_month(
    lives: Any, month: Any
) -> None:
    life = lives(BEGIN)
    await both(life, month, range(0, max(map(len, month)) + 50, 50))
    a_day = DAY // STEP * (2 * len(TENANTS) + 2)
    assert life.most_parts < 1.4 * a_day
    assert len(life.board) < 1.2 * a_day
    left = await life.answers(("quality.requests",), start=BEGIN - DAY)
    oldest = min(point.window.start.ToMicroseconds() for point in left)
    assert BEGIN < oldest == (life.history.folded_up_to - 32 * DAY) // DAY * DAY


async def test_a_lost_file_is_filled_again_from_what_the_topics_hold(lives: Any, month: Any, tmp_path: Path) -> None:
    now = max(moment(event) for event in month[0])
    life = lives(now)
    life.ends = {("", number): len(events) for number, events in enumerate(month)}
    sizes = list(map(len, month))
    for cut in range(0, max(sizes), 200):  # a consumer reads its partitions in turns
        for number, events in enumerate(month):
            await life.read(number, events[cut : cut + 200], offset=cut)
        await life.fold()
    await life.fold()
    assert await life.answers() == await (await all_minutes(month, now)).answers()
    assert life.most_parts < sum(sizes) / 10


class Over(Exception):
    """The end of a life without an end."""


async def test_a_start_folds_along_while_it_reads_and_rests_when_it_has_caught_up(lives: Any) -> None:
    partitions = log(9)
    life = lives(BEGIN + 9 * DAY)
    life.ends = {("", number): len(events) for number, events in enumerate(partitions)}
    waits: list[float] = []

    async def read_on(seconds: float) -> None:
        begin = 100 * len(waits)
        waits.append(seconds)
        if begin > max(map(len, partitions)) + 300:
            raise Over
        for number, events in enumerate(partitions):
            for offset, event in enumerate(events[begin : begin + 100], begin):
                await life.feed.handle([consumed(event, number, offset)])
        life.most_parts = max(life.most_parts, len(life.board))

    life.forgetting.sleep = read_on
    with pytest.raises(Over):
        await life.forgetting.for_ever()
    assert waits[0] == waits[1] == BUSY_SECONDS
    assert waits[-1] == FOLD_SECONDS
    assert life.most_parts < 2 * DAY // STEP * (2 * len(TENANTS) + 2)
    assert await life.answers() == await (await all_minutes(partitions, life.now)).answers()


@pytest.mark.parametrize("broken", ["disk", "ends"])
async def test_memory_is_bounded_while_nothing_can_be_moved_and_a_short_failure_loses_nothing(
    lives: Any, broken: str
) -> None:
    partitions = log(7)
    life, lost = lives(BEGIN), LOST._value.get()
    fold, ends, failing = life.history.fold, life.forgetting.ends, range(20, 121)
    life.ends = {("", number): len(events) for number, events in enumerate(partitions)}
    rounds, size = 0, max(map(len, partitions)) // 140 + 1

    async def fails(*_: Any, **__: Any) -> Any:
        raise sqlite3.OperationalError("disk I/O error") if broken == "disk" else KafkaConnectionError()

    async def read_on(seconds: float) -> None:
        nonlocal rounds
        for number, events in enumerate(partitions):
            await life.read(number, events[rounds * size : (rounds + 1) * size], offset=rounds * size, live=True)
        rounds += 1
        down = rounds in failing or rounds == 10  # one failure alone, and five days of them
        life.history.fold = fails if down and broken == "disk" else fold
        life.forgetting.ends = fails if down and broken == "ends" else ends
        if rounds == 19:
            assert LOST._value.get() == lost
        if rounds > 141:
            raise Over

    life.fold = no_fold
    life.forgetting.sleep = read_on
    with pytest.raises(Over):
        await life.forgetting.for_ever()
    assert LOST._value.get() - lost == pytest.approx(76, abs=30)
    assert life.most_parts < 2.3 * DAY // STEP * (2 * len(TENANTS) + 2)
    recent = {"window": HOUR, "start": life.now - DAY - 20 * HOUR}
    assert await life.answers(**recent) == await (await all_minutes(partitions, life.now)).answers(**recent)


async def no_fold() -> None:
    """Reading alone moves nothing."""


async def test_nothing_is_folded_that_a_partition_has_yet_to_tell(lives: Any) -> None:
    partitions = log(4)
    life = lives(BEGIN + 4 * DAY)
    life.ends = {("", number): len(events) for number, events in enumerate(partitions)}
    await life.read(0, partitions[0])
    await life.fold()
    assert len(life.board) > 3.5 * DAY // STEP * len(TENANTS)  # though three days of it are old enough
    await life.read(1, partitions[1])
    await life.fold()
    assert len(life.board) < 1.5 * DAY // STEP * (2 * len(TENANTS) + 2)
    assert await life.answers() == await (await all_minutes(partitions, life.now)).answers()


@pytest.mark.parametrize("kind", ["synthetic", "judge"])
async def test_a_partition_of_rows_that_count_nowhere_holds_nothing_up(lives: Any, kind: str) -> None:
    partitions, rng = log(4), random.Random(1)
    life = lives(BEGIN + 4 * DAY)
    own = row(rng, BEGIN + 4 * DAY, "acme")
    own.metadata.synthetic, own.charge_kind = kind == "synthetic", kind
    life.ends = {("", 0): len(partitions[0]), ("", 1): 9}  # eight more of them are on their way
    await life.read(0, partitions[0])
    await life.read(1, [own])
    await life.fold()
    assert len(life.board) < 1.5 * DAY // STEP * (len(TENANTS) + 1)


def test_only_topics_that_minutes_are_made_of_can_hold_the_folding_up() -> None:
    assert set(MEASURED) - set(MINUTED) == {FairnessMeasured}


async def test_a_partition_that_never_moves_holds_nothing_up_for_ever(lives: Any) -> None:
    partitions = log(4)
    life = lives(BEGIN + 4 * DAY)
    life.ends = {("", 0): len(partitions[0]), ("", 1): 7}
    await life.read(0, partitions[0])
    await life.fold()
    held = len(life.board)
    life.now += 601_000_000
    await life.fold()
    assert len(life.board) < held / 2


async def test_a_kill_between_keeping_an_hour_and_forgetting_its_minutes_counts_nothing_twice(lives: Any) -> None:
    partitions = log(3)
    first = lives(BEGIN)
    first.ends = {("", number): len(events) for number, events in enumerate(partitions)}
    for number, events in enumerate(partitions):
        for offset, event in enumerate(events):
            await first.feed.handle([consumed(event, number, offset)])
    now = max(moment(event) for event in partitions[0])
    hour = BEGIN - BEGIN % HOUR
    await first.history.fold(first.board.starting(hour, hour + HOUR), hour=hour)
    second = lives(now)
    second.ends = first.ends
    for number, events in enumerate(partitions):
        await second.read(number, events)
    await second.fold()
    assert await second.answers(window=HOUR) == await (await all_minutes(partitions, now)).answers(window=HOUR)


async def test_an_answer_lacks_no_hour_that_is_folded_while_it_is_made(lives: Any) -> None:
    partitions = log(3)
    life = lives(BEGIN)
    await both(life, partitions, range(0, len(partitions[0]) + 100, 100))
    expected = await (await all_minutes(partitions, life.now)).answers(window=HOUR)
    read, life.now, now = life.history.parts, life.now + 5 * HOUR, life.now

    async def slowly(*args: Any, **more: Any) -> Any:
        older = await read(*args, **more)
        held = len(life.board)
        await life.fold()
        assert len(life.board) < held
        return older

    life.history.parts = slowly  # a disk that takes so long that five hours are folded
    assert await life.answers(window=HOUR, end=now, start=now - 31 * DAY) == expected


async def test_fine_windows_of_an_old_range_are_refused_with_the_moment_where_minutes_begin(lives: Any) -> None:
    partitions = log(4)
    life = lives(BEGIN)
    await both(life, partitions, range(0, len(partitions[0]) + 100, 100))
    with pytest.raises(InvalidInput, match=r"before 2025-10-1\dT\d\d:00:00\+00:00 values are kept by the hour"):
        await life.answers(window=5 * MINUTE, start=life.now - 3 * DAY)
    whole = await all_minutes(partitions, life.now)
    recent = {"window": 5 * MINUTE, "start": life.now - DAY}
    assert await life.answers(**recent) == await whole.answers(**recent)
    lacking = await life.answers(window=HOUR, hop=5 * MINUTE, start=life.now - DAY)
    assert min(point.window.start.ToMicroseconds() for point in lacking) >= life.history.folded_up_to


async def test_the_last_window_of_hours_is_whole_whatever_it_is_made_of(lives: Any) -> None:
    partitions = log(4)
    life = lives(BEGIN)
    await both(life, partitions, range(0, len(partitions[0]) + 100, 100))
    whole, folded = await all_minutes(partitions, life.now), life.history.folded_up_to
    for window in (HOUR, DAY):
        for moment_ in (folded - 7 * HOUR + 20 * MINUTE, folded - 20 * MINUTE, folded + 5 * HOUR + 20 * MINUTE):
            rounded = -(-moment_ // window) * window
            asked = {"window": window, "start": moment_ - 2 * DAY}
            expected = await whole.answers(end=rounded, **asked)
            assert max(point.window.start.ToMicroseconds() for point in expected) == rounded - window
            for each in (life, whole):
                assert await each.answers(end=moment_, **asked) == expected
    cut = await life.answers(("quality.requests",), window=15 * MINUTE, start=folded, end=life.now - 7 * MINUTE)
    assert cut == await whole.answers(
        ("quality.requests",), window=15 * MINUTE, start=folded, end=life.now - 7 * MINUTE
    )
    await life.read(0, [drift(folded + at * MINUTE, drift_pb2.DRIFT_VERDICT_DRIFTED) for at in (5, 25)], offset=10**6)
    found = await life.answers(("drift.drifted",), window=HOUR, end=folded + 20 * MINUTE)
    assert [point.window.start.ToMicroseconds() for point in found] == [folded + 5 * MINUTE]


async def test_a_watcher_is_told_of_no_window_of_which_minutes_are_gone(lives: Any) -> None:
    partitions = log(3)
    life = lives(BEGIN)
    await both(life, partitions, range(0, len(partitions[0]) + 100, 100))
    begin = life.history.folded_up_to
    assert begin % DAY, "a day is cut"
    request = pb.WatchMetricsRequest(query=pb.MetricQuery(metrics=["quality.requests"]))
    request.query.window.FromMicroseconds(DAY)
    request.history.FromMicroseconds(3 * DAY)
    watch = life.service.WatchMetrics(request, None)  # type: ignore[arg-type]
    told = (await anext(watch)).update.points
    whole = await (await all_minutes(partitions, life.now)).answers(("quality.requests",))
    expected = {point.window.start.ToMicroseconds(): 0.0 for point in whole}
    for point in whole:
        expected[point.window.start.ToMicroseconds()] += point.value
    last = max(expected)
    assert begin < last
    assert {point.window.start.ToMicroseconds(): point.value for point in told} == {last: expected[last]}
    late = quality(random.Random(1), begin + 5 * MINUTE, "acme", 7, 9)
    await life.read(0, [late], offset=10**6)
    assert life.board.parts()[-1].start == begin + 5 * MINUTE, "it came in time to count"
    assert not (await anext(watch)).update.points
    await watch.aclose()


async def test_an_answer_out_of_too_many_hours_is_refused_and_one_of_days_is_not(lives: Any) -> None:
    partitions = log(6)
    life = lives(BEGIN, most_parts=100)
    await both(life, partitions, range(0, len(partitions[0]) + 100, 100))
    with pytest.raises(InvalidInput, match="more than 100 hours; ask for windows of a day"):
        await life.answers(window=HOUR)
    assert await life.answers() == await (await all_minutes(partitions, life.now)).answers()


async def test_a_filter_reads_its_own_series_only_and_looks_through_no_end_of_others(lives: Any) -> None:
    partitions = log(6)
    life = lives(BEGIN, most_parts=15)
    await both(life, partitions, range(0, len(partitions[0]) + 100, 100))
    whole = await all_minutes(partitions, life.now)
    asked = {"window": HOUR, "start": life.history.folded_up_to - 15 * HOUR, "end": life.history.folded_up_to}
    acme, nobody = (pb.DimensionFilter(dimension=pb.DIMENSION_TENANT, values=[name]) for name in ("acme", "nobody"))
    expected = await whole.answers(("quality.requests",), filters=[acme], **asked)
    assert len(expected) == 15
    assert await life.answers(("quality.requests",), filters=[acme], **asked) == expected
    with pytest.raises(InvalidInput, match="made of more than 15 hours"):
        await life.answers(("quality.requests",), **asked)
    assert await life.answers(("quality.requests",), filters=[nobody], **asked) == []
    with pytest.raises(InvalidInput, match="found among more than 300 hours; ask for windows of a day"):
        await life.answers(("quality.requests",), filters=[nobody], window=HOUR)


async def test_series_past_the_largest_are_added_up_as_other_and_sums_stay(lives: Any) -> None:
    partitions = log(5)
    life = lives(BEGIN, series=1)
    await both(life, partitions, range(0, len(partitions[0]) + 100, 100))
    whole = await all_minutes(partitions, life.now)

    def sums(points: Sequence[MetricPoint]) -> dict[tuple[str, str, int], float]:
        found: dict[tuple[str, str, int], float] = {}
        for point in points:
            key = point.metric, point.unit, point.window.start.ToMicroseconds()
            found[key] = found.get(key, 0.0) + point.value
        return found

    some = await life.answers(("quality.requests", "cost.nano_units"))
    assert "(other)" in {point.series.tenant_id for point in some}
    assert sums(some) == sums(await whole.answers(("quality.requests", "cost.nano_units")))


def drift(at: int, verdict: int) -> DriftMeasured:
    event = DriftMeasured(verdict=verdict, observations=80)  # type: ignore[arg-type]
    event.series.tenant_id = "acme"
    event.window.start.FromMicroseconds(at)
    event.window.length.FromMicroseconds(5 * MINUTE)
    event.part.part_key, event.part.revision = f"drift|{at}", 80
    return event


async def test_an_hour_that_drifted_once_is_remembered_as_drifted(lives: Any) -> None:
    life = lives(BEGIN)
    verdicts = [drift_pb2.DRIFT_VERDICT_STABLE, drift_pb2.DRIFT_VERDICT_DRIFTED, drift_pb2.DRIFT_VERDICT_INSUFFICIENT]
    events = [drift(BEGIN + n * 5 * MINUTE, verdict) for n, verdict in enumerate(verdicts)]
    await life.read(0, [*events, drift(BEGIN + 3 * DAY, verdicts[0])], live=True)
    await life.fold()
    assert len(life.board) == 1
    found = await life.answers(("drift.drifted",))
    assert [(point.value, point.verdict, point.window.start.ToMicroseconds()) for point in found] == [
        (1.0, "drifted", BEGIN + 5 * MINUTE),
        (0.0, "stable", BEGIN + 3 * DAY),
    ]
