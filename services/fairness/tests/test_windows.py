"""The laws of the counting: splits, orders, crashes and replays change nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_fairness.adapters import records
from sluice_fairness.domain.board import Board, Tally
from sluice_fairness.domain.counts import GroupCounts
from sluice_fairness.domain.facts import Completion, Decision, Review, Series, StoryFact
from sluice_fairness.domain.partition import Part, Partition, Rules

SECOND = 1_000_000
BASE = 1_760_000_400 * SECOND  # a full hour
Log = dict[str, list[StoryFact]]


def decision(request: int, at: int, **changes: object) -> Decision:
    values: dict = {
        "groups": [(), ("religion",), ("age", "religion")][request % 3],
        "blocked": request % 4 == 0,
        "score": request * 97 % 10_000,
        "policy": "general@3",
        "project_id": "chat",
    }
    return Decision(
        at=BASE + at, request_id=f"r{request}", decision_id=f"d{request}", tenant_id="acme", **(values | changes)
    )


def completion(request: int, at: int, **changes: object) -> Completion:
    values: dict = {
        "model": ["small", "large"][request % 2],
        "input_decision_id": f"d{request}",
        "answered": request % 4 != 0,
        "answer_characters": request * 31 % 500,
        "refusal": [None, True, False][request % 3],
        "tenant_id": "acme",
        "cohorts": [(), (("plan", "free"),), (("plan", "pro"), ("site", "a"))][request % 3],
    }
    return Completion(at=BASE + at, request_id=f"r{request}", **(values | changes))


def review(request: int, at: int, **changes: object) -> Review:
    values: dict = {"tenant_id": "acme", "overturned": request % 2 == 0}
    return Review(
        at=BASE + at, request_id=f"r{request}", review_id=f"v{request}", decision_id=f"d{request}", **(values | changes)
    )


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Three logs of one partition; some requests have no verdict, some no completion, some facts come twice."""
    times = st.integers(0, 300 * SECOND)
    numbers = st.lists(st.integers(0, 20), max_size=25)
    return {
        "completions": [completion(n, draw(times)) for n in draw(numbers)],
        "decisions": [decision(n, draw(times)) for n in draw(numbers)],
        "reviews": [review(n, draw(times)) for n in draw(numbers)],
    }


def unique(log: Log) -> Log:
    """The first of each fact: of two with one id, but other times, the order decides."""
    return {
        source: list({fact.request_id: fact for fact in reversed(facts)}.values())[::-1]
        for source, facts in log.items()
    }


def run(batches: Iterable[tuple[str, Sequence[StoryFact]]], partition: Partition | None = None) -> Partition:
    partition = partition or Partition(0, Rules(), now=0)
    for source, facts in batches:
        partition.absorb(source, facts, now=0)
    return partition


def totals(partition: Partition) -> dict[str, tuple]:
    return {state.key: (state.revision, state.groups) for state in partition.windows}


def by_hand(log: Log) -> dict[tuple[str, str, str, int], int]:
    """Decisions judged, by model, group, attribute and minute, without any of the code."""
    completions = {fact.request_id: fact for fact in log["completions"]}
    found: dict = {}
    for fact in log["decisions"]:
        assert isinstance(fact, Decision)
        ended = completions.get(fact.request_id)
        if ended is None:
            continue
        assert isinstance(ended, Completion)
        minute = max(fact.at, ended.at) // (60 * SECOND)
        mentioned = [(group, "input_terms") for group in fact.groups or ("none",)]
        for group, attribute in mentioned + [(value, f"input_cohort.{name}") for name, value in ended.cohorts]:
            key = (ended.model, group, attribute, minute)
            found[key] = found.get(key, 0) + 1
    return found


@settings(deadline=None)
@given(logs())
def test_counts_equal_a_join_made_by_hand(log: Log) -> None:
    log = unique(log)
    counted = {}
    for state in run(log.items()).windows:
        for key, counts in state.groups.items():
            if counts.judged:
                attribute, group = key.split("/")
                counted[state.series.model, group, attribute, state.start // (60 * SECOND)] = counts.judged
    assert counted == by_hand(log)


@settings(deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_any_split_and_any_order_of_the_topics_give_the_same_windows(log: Log, dice: random.Random) -> None:
    log = unique(log)
    waiting = {source: list(facts) for source, facts in log.items()}
    batches = []
    while any(waiting.values()):
        source = dice.choice([name for name, facts in waiting.items() if facts])
        size = dice.randint(1, 5)
        batches.append((source, waiting[source][:size]))
        waiting[source] = waiting[source][size:]
    assert totals(run(batches)) == totals(run(log.items()))


@settings(deadline=None)
@given(logs(), st.randoms(use_true_random=False))
def test_a_crash_at_any_write_and_a_replay_count_nothing_twice(log: Log, dice: random.Random) -> None:
    expected = totals(run(log.items()))
    stored: dict[bytes, bytes] = {}
    partition, batches = Partition(0, Rules(), now=0), list(log.items())
    for source, facts in batches:
        changes = list(copy.deepcopy(partition.absorb(source, facts, now=0)).items())
        for key, record in changes[: dice.randint(0, len(changes))]:  # the rest is lost with the process
            assert record is not None
            stored[key.encode()] = records.encode(record)
        recovered = [records.decode(key, value) for key, value in stored.items()]
        partition = run([(source, facts)], Partition(0, Rules(), records=recovered, now=0))
        stored |= {s.key.encode(): records.encode(s) for s in partition.windows}
        stored |= {c.key.encode(): records.encode(c) for c in partition._stories._chunks.values()}
    assert totals(partition) == expected
    assert totals(run(batches, partition)) == expected


def test_nobody_reviews_another_tenants_decision() -> None:
    partition = run([("a", [decision(1, 0)]), ("b", [completion(1, 1)]), ("c", [review(1, 2, tenant_id="globex")])])
    assert partition.dropped["foreign"] == 1
    assert all(c.misses == c.upheld_passes == 0 for s in partition.windows for c in s.groups.values())


def test_a_text_that_mentions_two_groups_counts_in_both_and_the_score_is_exact() -> None:
    partition = run([("a", [decision(2, 0)]), ("b", [completion(2, 1, cohorts=())])])
    [state] = partition.windows
    assert {key: (c.judged, c.score_sum, c.answers) for key, c in state.groups.items()} == {
        "input_terms/age": (1, 194, 1),
        "input_terms/religion": (1, 194, 1),
    }


def test_a_skipped_decision_says_nothing_about_the_filter() -> None:
    partition = run([("a", [decision(1, 0, skipped=True)]), ("b", [completion(1, 1, cohorts=())])])
    [state] = partition.windows
    assert [(c.judged, c.allowed, c.skipped) for c in state.groups.values()] == [(0, 0, 1)]


def test_requests_that_give_way_while_something_waits_are_counted() -> None:
    partition = Partition(0, Rules(story_capacity=64), now=0)
    partition.absorb("a", [decision(n, 0) for n in range(256)], now=0)
    assert partition.dropped["forgotten"] == 128
    assert partition.requests == 128


def tally(source: int, revision: int, *, start: int = BASE, closed: bool = True, judged: int = 1) -> Tally:
    groups = {"input_terms/age": GroupCounts(judged=judged)}
    key = f"fairness|{start}|{source}"
    return Tally(Series("acme"), start, 60 * SECOND, source, revision, closed, 0, key, groups)


def test_the_board_merges_the_newest_parts_once_all_are_closed() -> None:
    board = Board(longest=3600 * SECOND, tallies=[], forgotten_before=0)
    assert board.put(tally(0, 1, judged=3)) and board.put(tally(1, 1, judged=4, closed=False))
    assert board.due(BASE + 100 * SECOND) == []
    assert board.put(tally(1, 2, judged=5))
    assert not board.put(tally(1, 1, judged=4)), "an older version"
    [frame] = board.due(BASE + 100 * SECOND)
    assert (frame.groups["input_terms/age"].judged, frame.revision, frame.length) == (8, 3, 60 * SECOND)
    board.mark_measured(frame)
    assert board.due(BASE + 100 * SECOND) == []
    board.put(tally(0, 9, judged=6))
    [restated] = board.due(BASE + 100 * SECOND)
    assert (restated.groups["input_terms/age"].judged, restated.revision) == (11, 11)


def test_the_long_window_is_merged_from_the_short_ones() -> None:
    minutes = [tally(minute % 2, 1, start=BASE + minute * 60 * SECOND) for minute in range(60)]
    board = Board(longest=3600 * SECOND, tallies=minutes, forgotten_before=0)
    hours = [frame for frame in board.due(BASE + 3600 * SECOND) if frame.length == 3600 * SECOND]
    assert [(frame.start, frame.groups["input_terms/age"].judged, len(frame.minutes)) for frame in hours] == [
        (BASE, 60, 60)
    ]
    assert len(board.forget(BASE + 3600 * SECOND)) == 60
    assert board.is_forgotten(minutes[0])
    assert not board.is_forgotten(tally(0, 1, start=BASE + 3600 * SECOND))


def test_late_facts_restate_a_window_and_later_ones_are_dropped() -> None:
    rules = Rules(retention=600 * SECOND)
    partition = Partition(0, rules, now=0)

    def merge(*requests: tuple[int, int]) -> None:
        for number, at in requests:
            partition.absorb("a", [decision(number, at)], now=0)
            partition.absorb("b", [completion(number, at)], now=0)

    def publish() -> list[Part]:
        due = partition.parts_due(0)
        for part in due:
            partition.mark_published(part)
        return [part for part in due if part.closed]

    merge((1, 0), (3, 200 * SECOND))
    assert [part.revision for part in publish()] == [2]
    merge((5, 1 * SECOND))
    assert [part.revision for part in publish()] == [4]
    merge((7, 3000 * SECOND), (9, 2 * SECOND))
    assert partition.dropped["late"] == 1


def test_the_parts_of_a_backlog_are_measured_although_the_wall_is_days_ahead() -> None:
    partition, wall = Partition(0, Rules(), now=0), BASE + 7 * 86_400 * SECOND
    partition.absorb("parts", [tally(0, 1)], now=wall)
    partition.absorb("b", [completion(1, 0)], now=wall)
    [minute, hour] = sorted(partition.frames_due(wall + 60 * SECOND), key=lambda frame: frame.length)
    assert (minute.length, hour.length) == (60 * SECOND, 3600 * SECOND)
    partition.absorb("parts", [tally(0, 1, start=BASE + 2 * 3600 * SECOND)], now=wall)
    partition.absorb("parts", [tally(1, 1)], now=wall)
    assert partition.dropped["late"] == 1
