"""Parts merge to the same points whatever their order; intervals are honest."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_insight.domain import intervals
from sluice_insight.domain.board import MINUTE, Board, Query
from sluice_insight.domain.catalogue import METRICS, UnknownMetric
from sluice_insight.domain.costs import Charge, Costs
from sluice_insight.domain.part import Part, Reading, Series, Totals
from sluice_insight.domain.sketch import Sketch
from sluice_insight.domain.watch import Watchers

NOW = 1_760_000_040_000_000
DAY = 24 * 60 * MINUTE
BASE = NOW - NOW % (60 * MINUTE)


def part(
    partition: int = 0,
    *,
    start: int = NOW,
    revision: int = 1,
    closed: bool = False,
    tenant: str = "acme",
    **counts: int,
) -> Part:
    totals = Totals(Counter({f"requests.{name}": count for name, count in counts.items()}))
    totals.sketches["requests.latency_microseconds"] = Sketch(buckets={600 + partition: 5}, sum=5_000_000)
    return Part(
        key=f"quality|{tenant}|{start}|{partition}",
        family="quality",
        series=Series(tenant_id=tenant, model="small"),
        start=start,
        length=MINUTE,
        partition=partition,
        revision=revision,
        closed=closed,
        complete_up_to=start,
        totals=totals,
    )


def query(*metrics: str, **changes: object) -> Query:
    return Query(metrics=metrics, filters={}, **changes)  # type: ignore[arg-type]


def board(*parts: Part) -> Board:
    made = Board(history=DAY)
    for each in parts:
        made.put(each, now=NOW)
    return made


@settings(deadline=None)
@given(st.permutations([(p, r, c) for p in range(3) for r in range(1, 4) for c in (False, True)]))
def test_any_order_of_revisions_gives_the_newest_of_each_partition_added_up(order: list[tuple[int, int, bool]]) -> None:
    merged = board(*[part(p, revision=r, closed=c, requests=r * 10, failed=p) for p, r, c in order])
    [requests] = merged.points(query("quality.requests"))
    assert (requests.value.value, requests.revision, requests.closed) == (90.0, 9, True)
    [failed] = merged.points(query("quality.failed"))
    assert failed.value.value == 3.0


def test_series_are_merged_unless_grouped_and_chosen_by_filters() -> None:
    both = board(part(requests=1), part(tenant="globex", requests=2))
    assert [point.value.value for point in both.points(query("quality.requests"))] == [3.0]
    grouped = both.points(query("quality.requests", group_by=("tenant_id",)))
    assert {point.series.tenant_id: point.value.value for point in grouped} == {"acme": 1.0, "globex": 2.0}
    chosen = Query(metrics=("quality.requests",), filters={"tenant_id": frozenset({"globex"})})
    assert [point.value.value for point in both.points(chosen)] == [2.0]


def test_longer_windows_are_made_of_minutes() -> None:
    start = NOW - NOW % (5 * MINUTE)
    merged = board(*[part(start=start + n * MINUTE, requests=1) for n in range(7)])
    points = merged.points(query("quality.requests", window=5 * MINUTE))
    assert [(point.start, point.value.value) for point in points] == [(start, 5.0), (start + 5 * MINUTE, 2.0)]


def test_no_failure_among_requests_is_a_measured_zero_and_nothing_is_no_point() -> None:
    some = board(part(requests=4))
    [failed] = some.points(query("quality.failed"))
    assert (failed.value.value, failed.value.sample_count) == (0.0, 4)
    assert some.points(query("quality.feedback_score")) == []


def hopping(window: int, hop: int, *, start: int, end: int) -> list[tuple[int, float]]:
    """Of one request in each of ten minutes."""
    full = board(*(part(start=BASE + minute * MINUTE, requests=1) for minute in range(10)))
    asked = Query(metrics=("quality.requests",), filters={}, window=window, hop=hop, start=start, end=end)
    return [((point.start - BASE) // MINUTE, point.value.value) for point in full.points(asked)]


def test_windows_that_overlap_count_each_minute_in_all_of_theirs() -> None:
    found = hopping(5 * MINUTE, MINUTE, start=BASE, end=BASE + 10 * MINUTE)
    assert found == [(minute, 5.0) for minute in range(6)]
    assert hopping(4 * MINUTE, 2 * MINUTE, start=BASE, end=BASE + 10 * MINUTE) == [
        (minute, 4.0) for minute in (0, 2, 4, 6)
    ]


def test_a_hop_as_long_as_the_window_gives_the_windows_without_a_hop() -> None:
    asked = {"start": BASE, "end": BASE + 9 * MINUTE}
    assert hopping(5 * MINUTE, 5 * MINUTE, **asked) == hopping(5 * MINUTE, 0, **asked) == [(0, 5.0), (5, 4.0)]


def test_old_windows_are_forgotten() -> None:
    made = board(part(start=NOW - DAY + MINUTE, requests=1))
    made.put(part(start=NOW + 10 * MINUTE, requests=1), now=NOW + 10 * MINUTE)
    assert len(made) == 1
    assert not made.put(part(start=NOW - 2 * DAY), now=NOW)


def test_an_unknown_metric_names_the_known_ones() -> None:
    with pytest.raises(UnknownMetric) as caught:
        board().points(query("quality.happiness"))
    assert "quality.requests" in caught.value.known
    assert all(name.startswith("quality.") for name in caught.value.known)
    with pytest.raises(UnknownMetric) as caught:
        board().points(query("happiness"))
    assert caught.value.known == ["cost.*", "drift.*", "fairness.*", "probe.*", "quality.*"]


def test_every_metric_can_be_asked_for_and_says_what_it_is() -> None:
    full = board(part(requests=10, succeeded=8, failed=2))
    assert full.points(query(*METRICS))
    assert all(each.description.endswith(".") and each.unit for each in METRICS.values())


def test_drift_is_given_as_measured() -> None:
    measured = Part(
        key="drift|x",
        family="drift",
        series=Series(tenant_id="acme", model="small"),
        start=NOW,
        length=5 * MINUTE,
        partition=0,
        revision=3,
        closed=True,
        readings={"drift.prompt.language.psi": Reading(0.3, 120, "drifted")},
    )
    [point] = board(measured).points(query("drift.prompt.language.psi"))
    assert (point.value.value, point.value.sample_count, point.verdict, point.length) == (
        0.3,
        120,
        "drifted",
        5 * MINUTE,
    )


def test_costs_add_up_rows_and_never_two_currencies() -> None:
    costs, made = Costs(history=DAY), Board(history=DAY)
    for currency, nano in [("USD", 500), ("USD", -200), ("EUR", 7)]:
        charge = Charge(
            partition=0,
            at=NOW,
            series=Series(tenant_id="acme"),
            currency=currency,
            nano_units=nano,
            unpriced=False,
        )
        changed = costs.add(charge, now=NOW)
        if changed:
            made.put(changed, now=NOW)
    points = made.points(query("cost.nano_units"))
    assert {point.unit: point.value.value for point in points} == {"nano-USD": 300.0, "nano-EUR": 7.0}


@pytest.mark.parametrize(
    ("successes", "trials", "lower", "upper"),
    # Values of Newcombe (1998), table I, and the bounds at 0 and 1.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.883, 1.0),
    ],
)
def test_wilson_intervals_are_those_of_the_literature(successes: int, trials: int, lower: float, upper: float) -> None:
    assert intervals.wilson(successes, trials) == pytest.approx((lower, upper), abs=1e-4)


def test_quantile_intervals_cover_the_true_quantile_as_often_as_they_say() -> None:
    rng = random.Random(3)
    truth = 900_000
    covered = 0
    for _ in range(300):
        sketch = Sketch()
        gamma = 1.01 / 0.99
        for _ in range(200):
            value = rng.randrange(1, 1_000_001)
            index = next_bucket(value, gamma)
            sketch.buckets[index] = sketch.buckets.get(index, 0) + 1
        _, lower, upper = intervals.quantile(sketch, 0.9)
        covered += lower * 0.99 <= truth <= upper * 1.01
    assert covered / 300 >= 0.92


def next_bucket(value: int, gamma: float) -> int:
    import math

    return math.ceil(math.log(value) / math.log(gamma))


async def test_a_slow_watcher_gets_the_newest_state_and_never_a_backlog() -> None:
    watchers = Watchers(limit=1)
    watcher = watchers.join(frozenset({"quality"}))
    assert watcher is not None
    assert watchers.join(frozenset({"quality"})) is None
    for _ in range(10_000):
        watchers.notice("quality", NOW)
    watchers.notice("quality", NOW + MINUTE)
    watchers.notice("drift", NOW)
    assert await watcher.changed(timeout=1) == ({NOW, NOW + MINUTE}, 9_999)
    assert await watcher.changed(timeout=0.01) is None
    watchers.leave(watcher)
    assert len(watchers) == 0


def test_complete_up_to_is_the_slowest_partition_that_still_speaks() -> None:
    made = Board(history=DAY)
    assert made.complete_up_to(NOW) == 0
    made.put(part(0, start=NOW - MINUTE), now=NOW)
    made.put(part(1, start=NOW), now=NOW)
    assert made.complete_up_to(NOW) == NOW - MINUTE
    made.put(part(1, start=NOW + 2 * MINUTE), now=NOW + 2 * MINUTE)
    assert made.complete_up_to(NOW + 2 * MINUTE) == NOW + 2 * MINUTE
