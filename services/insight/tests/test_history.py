"""A month of metrics by event time: hours and days say what minutes said, through restarts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from sluice.events.v1 import drift_pb2
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.types.v1.metric_pb2 import MetricPoint
from sluice_insight.adapters.history import DAY, HOUR, _series, _series_of
from sluice_insight.domain.board import MINUTE
from sluice_insight.domain.part import Series
from sluice_kit.errors import InvalidInput

from .history_lives import BEGIN, all_minutes, both, drift, log, quality


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


async def test_a_window_that_was_never_closed_does_not_stand_for_its_hour(lives: Any) -> None:
    life = lives(BEGIN)
    stable, drifted = drift_pb2.DRIFT_VERDICT_STABLE, drift_pb2.DRIFT_VERDICT_DRIFTED
    closed, open_ = drift(BEGIN, stable), drift(BEGIN + 5 * MINUTE, drifted)
    closed.part.closed, open_.part.closed = True, False
    await life.read(0, [closed, open_, drift(BEGIN + 3 * DAY, stable)], live=True)
    await life.fold()
    found = await life.answers(("drift.drifted",))
    [of_hour] = [point for point in found if point.window.start.ToMicroseconds() < BEGIN + DAY]
    assert (of_hour.value, of_hour.closed) == (0.0, True)


def test_a_series_of_before_there_were_redaction_policies_is_the_same_series_now() -> None:
    before = '["acme", "", "small", "", "", ""]'
    assert _series_of(before) == Series(tenant_id="acme", model="small")
    assert _series(_series_of(before)) == before
    policied = Series(tenant_id="acme", redaction_policy="default@1")
    assert _series_of(_series(policied)) == policied


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
