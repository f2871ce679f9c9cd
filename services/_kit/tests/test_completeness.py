"""What can be proved of numbered events, in any order and with any copies."""

import random
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from sluice_kit.completeness import Completeness, Head, Intervals, Sighting, StreamReport

TOPIC, PRODUCER = "sluice.gateway.request_completed.v1", "sluice-gateway/0#1f2e3d4c"
PARTITIONS = 4


def sighting(number: int, producer: str = PRODUCER, **values: object) -> Sighting:
    """The number-th event, on the partition its key would lead to, a second after the one before."""
    told = Sighting(TOPIC, number * 7 % PARTITIONS, producer, number, number * 1_000_000, number * 1_000)
    return replace(told, **values)  # type: ignore[arg-type]


def report_of(sightings: list[Sighting], **options: object) -> StreamReport:
    completeness = Completeness(**options)  # type: ignore[arg-type]
    for each in sightings:
        completeness.see(each)
    (report,) = completeness.streams()
    return report


def interleaved(sightings: list[Sighting], seed: int) -> list[Sighting]:
    """Each partition in its order, the partitions mixed by chance."""
    queues = [[s for s in sightings if s.partition == p] for p in range(PARTITIONS)]
    dice, mixed = random.Random(seed), []
    while any(queues):
        mixed.append(dice.choice([queue for queue in queues if queue]).pop(0))
    return mixed


numbers = st.sets(st.integers(1, 200), min_size=1)


@given(st.lists(st.integers(1, 60)))
def test_intervals_hold_what_a_set_holds(added):
    intervals, plain = Intervals(), set[int]()
    for number in added:
        assert intervals.add(number) == (number not in plain)
        plain.add(number)
    assert {n for a, b in intervals for n in range(a, b + 1)} == plain
    assert intervals.count == len(plain)
    assert [n for a, b in intervals.holes(1, 60) for n in range(a, b + 1)] == sorted(set(range(1, 61)) - plain)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9), st.integers(1, 9))), st.integers(1, 60))
def test_a_range_is_its_numbers_and_the_mark_that_of_the_highest(added, first):
    intervals, marks = Intervals(), dict[int, int]()
    for begin, more, mark in added:
        intervals.add_range(begin, begin + more, mark)
        marks = dict.fromkeys(range(begin, begin + more + 1), mark) | marks
    ranges = list(intervals)
    assert {n for a, b in ranges for n in range(a, b + 1)} == set(marks)
    assert all(earlier[1] + 1 < later[0] for earlier, later in pairwise(ranges))
    assert all(intervals.complete_from(a) == (b, marks[b]) for a, b in ranges)
    assert [n for a, b in intervals.holes(first, 60) for n in range(a, b + 1)] == [
        n for n in range(first, 61) if n not in marks
    ]


@given(numbers, st.randoms(use_true_random=False))
def test_any_order_of_arrival_proves_the_same(present, dice):
    ordered = [sighting(number) for number in sorted(present)]
    shuffled = ordered.copy()
    dice.shuffle(shuffled)
    assert replace(report_of(shuffled), reordered=0) == report_of(ordered)


@given(numbers, st.integers(0, 1000), st.integers(0, 1000))
def test_any_interleaving_of_partitions_gives_the_same_report(present, seed, other):
    sightings = [sighting(number) for number in sorted(present, key=lambda n: (n * 31) % 17)]
    assert report_of(interleaved(sightings, seed)) == report_of(interleaved(sightings, other))


@given(numbers, st.data())
def test_copies_change_nothing_but_their_count(present, data):
    once = [sighting(number) for number in sorted(present)]
    copies = data.draw(st.lists(st.sampled_from(once)))
    with_copies = report_of(data.draw(st.permutations(once + copies)))
    expected = report_of(once)
    assert with_copies.repeated == len(copies)
    assert with_copies.records == len(once) + len(copies)
    assert replace(with_copies, repeated=0, records=len(once), reordered=0) == expected


@given(numbers)
def test_what_is_missing_is_told_exactly(present):
    report = report_of([sighting(number) for number in present])
    missing = {n for a, b in report.gaps for n in range(a, b + 1)}
    assert missing == set(range(1, max(present) + 1)) - present
    assert report.complete_up_to == min(missing | {max(present) + 1}) - 1
    assert report.complete_up_to_us == report.complete_up_to * 1_000_000
    assert (report.first, report.last, report.unprovable) == (min(present), max(present), ())


@given(st.integers(2, 400), st.integers(0, 3))
def test_memory_grows_with_the_holes_and_not_with_the_events(count, holes):
    completeness = Completeness()
    for number in range(1, count):
        if number % (count // (holes + 1) + 1):
            completeness.see(sighting(number))
    assert completeness.intervals <= holes + 2


def test_a_producer_that_lost_its_outbox_is_another_stream_and_no_gap():
    completeness = Completeness()
    for producer in ("sluice-cost/0#aaaaaaaa", "sluice-cost/0#bbbbbbbb"):
        for number in (1, 2, 3):
            completeness.see(sighting(number, producer))
    assert [report.gaps for report in completeness.streams()] == [(), ()]


def test_what_retention_deleted_at_the_head_is_no_gap_and_a_hole_behind_it_is():
    # Partition 1 has lost what was written before number 20; partition 2 begins at 0, and number 41 was never sent.
    present = [n for n in range(1, 61) if not (n < 20 and n * 7 % PARTITIONS == 1) and n != 41]
    slack = 60_000
    sightings = [sighting(n, written_ms=n * 10_000) for n in present]
    report = report_of(sightings, heads={(TOPIC, 1): Head(5, 200_000 - slack), (TOPIC, 2): Head(0)})
    assert report.gaps == ((41, 41),)
    assert {n for a, b in report.unprovable for n in range(a, b + 1)} == {n for n in range(1, 20) if n * 7 % 4 == 1}
    assert report.begins_at <= 20
    assert report.complete_up_to == 40


def test_a_stream_first_seen_long_after_what_was_deleted_may_have_begun_there():
    report = report_of([sighting(n, written_ms=10**9 + n) for n in (2, 3)], heads={(TOPIC, 1): Head(900, 10**6)})
    # Its first event here is number 2, long after what was deleted; that number 1 was older cannot be excluded.
    assert (report.gaps, report.unprovable, report.complete_up_to) == ((), ((1, 1),), 3)


def test_the_holes_of_a_compacted_topic_are_no_gaps():
    report = report_of([sighting(n) for n in (2, 5, 6)], compacted=frozenset({TOPIC}))
    assert (report.gaps, report.unprovable, report.begins_at, report.complete_up_to) == ((), ((1, 1), (3, 4)), 5, 6)


def test_an_event_put_back_from_dead_letters_is_a_copy_that_was_meant():
    report = report_of([sighting(1), sighting(2), sighting(1, replayed=True, written_ms=10**9)])
    assert (report.repeated, report.replayed, report.reordered) == (0, 1, 0)


def test_an_event_behind_a_higher_number_on_its_partition_is_told():
    report = report_of([sighting(4), sighting(8, partition=0), sighting(1), sighting(2), sighting(3)])
    assert (report.gaps, report.reordered) == (((5, 7),), 0)
    late = report_of([sighting(8, partition=0), sighting(4, partition=0)])
    assert late.reordered == 1
