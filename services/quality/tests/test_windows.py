"""The laws of the aggregation: splits, orders and replays change nothing."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence

from ddsketch.mapping import LogarithmicMapping
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_quality.domain.attribution import CHUNK_SIZE
from sluice_quality.domain.facts import Completion, Fact, Feedback, Moderation, Outcome, Series
from sluice_quality.domain.partition import Part, Partition, Record, Rules
from sluice_quality.domain.sketch import RELATIVE_ACCURACY, QuantileSketch
from sluice_quality.domain.totals import RequestTotals
from sluice_quality.domain.window import WindowState

SECOND = 1_000_000
BASE = 1_760_000_000 * SECOND
SERIES = [Series("acme", "chat", "small", "small/cpu"), Series("acme", "chat", "large"), Series("globex", "", "small")]
Log = dict[str, list[Fact]]


def completion(offset: int, at: int, request: int, **changes: object) -> Completion:
    values: dict = {
        "series": SERIES[request % len(SERIES)],
        "outcome": list(Outcome)[request % len(Outcome)],
        "latency": 1000 + request * 7919,
        "time_to_first_token": 500 + request * 31,
        "generation_time": 900 + request * 13,
        "completion_tokens": request % 50,
        "answer_characters": request % 400,
        "redactions": request % 3,
        "refusal": [None, True, False][request % 3],
    }
    return Completion(offset=offset, at=at, request_id=f"r{request}", **(values | changes))


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Three logs of one partition: completions, feedback on some of them, verdicts."""
    count = draw(st.integers(1, 30))
    times = draw(st.lists(st.integers(0, 300 * SECOND), min_size=count, max_size=count))
    completions: list[Fact] = [completion(offset, BASE + at, offset) for offset, at in enumerate(times)]
    judged = draw(st.lists(st.integers(0, count + 3), max_size=12))
    feedback: list[Fact] = [
        Feedback(
            offset=offset,
            at=BASE + draw(st.integers(0, 300 * SECOND)),
            event_id=f"f{offset}",
            request_id=f"r{request}",
            tenant_id=SERIES[request % len(SERIES)].tenant_id,
            thumb=draw(st.sampled_from([-1, 0, 1])),
            rating=draw(st.sampled_from([None, 1, 5])),
            retracted=draw(st.booleans()),
        )
        for offset, request in enumerate(judged)
    ]
    moderations: list[Fact] = [
        Moderation(
            offset=offset,
            at=BASE + at,
            event_id=f"m{offset}",
            series=Series("acme", "chat"),
            blocked=at % 3 == 0,
            latency=at % 5000,
        )
        for offset, at in enumerate(times[:10])
    ]
    return {"completions": completions, "feedback": feedback, "moderations": moderations}


def run(batches: Iterable[tuple[str, Sequence[Fact]]], partition: Partition | None = None) -> Partition:
    partition = partition or Partition(0, Rules(), now=0)
    for source, facts in batches:
        partition.absorb(source, facts, now=0)
    return partition


def totals(partition: Partition) -> dict[str, tuple]:
    return {
        state.key: (state.revision, state.requests, state.feedback, state.moderation) for state in partition.windows
    }


def interleavings(draw: st.DrawFn, log: Log) -> list[tuple[str, Sequence[Fact]]]:
    """Any interleaving of the topics, any batch split; each topic in its own order, as Kafka gives it."""
    left = {source: list(facts) for source, facts in log.items()}
    batches = []
    while any(left.values()):
        source = draw(st.sampled_from([name for name, facts in left.items() if facts]))
        size = draw(st.integers(1, len(left[source])))
        batches.append((source, left[source][:size]))
        left[source] = left[source][size:]
    return batches


@settings(max_examples=100, deadline=None)
@given(st.data(), logs())
def test_any_batch_split_and_any_interleaving_give_the_same_windows(data: st.DataObject, log: Log) -> None:
    expected = totals(run(log.items()))
    batches = data.draw(st.builds(lambda: None).flatmap(lambda _: st.composite(interleavings)(log)))
    assert totals(run(batches)) == expected


@settings(max_examples=100, deadline=None)
@given(st.data(), logs())
def test_a_crash_and_a_replay_count_nothing_twice(data: st.DataObject, log: Log) -> None:
    expected = totals(run(log.items()))
    batches = data.draw(st.composite(interleavings)(log))
    crash = data.draw(st.integers(0, len(batches)))
    stored: dict[str, Record] = {}
    partition = Partition(0, Rules(), now=0)
    writes: list[tuple[str, Record | None]] = []
    for source, facts in batches[:crash]:
        changes = partition.absorb(source, facts, now=0)
        writes += copy.deepcopy(list(changes.items()))
    # Any prefix of the writes may have reached the changelog...
    for key, record in writes[: data.draw(st.integers(0, len(writes)))]:
        if record is None:
            stored.pop(key, None)
        else:
            stored[key] = record
    # ... and nothing was committed: everything is read again, in another interleaving of the topics.
    revived = Partition(0, Rules(), records=stored.values(), now=0)
    assert totals(run(data.draw(st.composite(interleavings)(log)), revived)) == expected


@settings(deadline=None)
@given(logs())
def test_a_pure_replay_changes_nothing_and_writes_no_window(log: Log) -> None:
    partition = run(log.items())
    before = copy.deepcopy(totals(partition))
    for source, facts in log.items():
        changes = partition.absorb(source, facts, now=0)
        assert not [record for record in changes.values() if isinstance(record, WindowState)]
    assert totals(partition) == before


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9), max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_merging_sketches_is_associative_and_equals_adding(values: list[int], cut: int, cut_again: int) -> None:
    first, second = sorted((cut, cut_again))
    parts = [sketch_of(values[:first]), sketch_of(values[first:second]), sketch_of(values[second:])]
    left = merged(merged(parts[0], parts[1]), parts[2])
    right = merged(parts[0], merged(parts[1], parts[2]))
    assert left == right == merged(parts[2], merged(parts[0], parts[1])) == sketch_of(values)


def sketch_of(values: Iterable[int]) -> QuantileSketch:
    sketch = QuantileSketch()
    for value in values:
        sketch.add(value)
    return sketch


def merged(left: QuantileSketch, right: QuantileSketch) -> QuantileSketch:
    result = copy.deepcopy(left)
    result.merge(right)
    return result


@settings(deadline=None)
@given(st.lists(st.integers(-10, 2**62), min_size=1, max_size=200), st.data())
def test_values_are_in_the_buckets_of_the_library_also_at_their_borders(values: list[int], data: st.DataObject) -> None:
    mapping = LogarithmicMapping(RELATIVE_ACCURACY)
    borders = [int(mapping.gamma**index) + shift for index in range(1, 2100, 7) for shift in (-1, 0, 1)]
    drawn = values + data.draw(st.lists(st.sampled_from(borders), max_size=50))
    assert sketch_of(drawn).buckets == Counter(mapping.key(value) for value in drawn if value > 0)
    at_once = QuantileSketch()
    at_once.add_all(drawn)
    assert at_once == sketch_of(drawn)


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_quantiles_are_within_one_percent(values: list[int], q: float) -> None:
    rank = int(q * (len(values) - 1))
    exact = sorted(values)[rank]
    estimate = sketch_of(values).quantile(q)
    assert estimate is not None
    assert abs(estimate - exact) <= 0.01 * exact + 1e-9


@settings(deadline=None)
@given(st.lists(st.integers(0, 500), min_size=2, max_size=40))
def test_totals_merge_to_what_one_pass_gives(requests: list[int]) -> None:
    whole, left, right = RequestTotals(), RequestTotals(), RequestTotals()
    for position, request in enumerate(requests):
        fact = completion(position, BASE, request)
        whole.add(fact)
        (left if position % 2 else right).add(fact)
    left.merge(right)
    at_once = RequestTotals()
    at_once.add_all([completion(position, BASE, request) for position, request in enumerate(requests)])
    assert left == whole == at_once


def test_feedback_before_its_completion_counts_where_feedback_after_it_counts() -> None:
    answer = completion(0, BASE + 70 * SECOND, 1)
    early = Feedback(offset=0, at=BASE, event_id="f", request_id="r1", tenant_id="acme", thumb=1)
    first, second = Partition(0, Rules(), now=0), Partition(0, Rules(), now=0)
    run([("feedback", [early]), ("completions", [answer])], first)
    run([("completions", [answer]), ("feedback", [early])], second)
    assert totals(first) == totals(second)
    [window] = first.windows
    assert window.series == answer.series
    assert window.feedback.positive == 1
    assert first.waiting == 0


def test_feedback_hours_later_counts_when_it_came_and_for_the_series_of_its_request() -> None:
    late = Feedback(offset=0, at=BASE + 7200 * SECOND, event_id="f", request_id="r1", tenant_id="acme", rating=4)
    partition = run([("completions", [completion(0, BASE, 1)]), ("feedback", [late])])
    window = next(state for state in partition.windows if state.feedback.received)
    assert window.series == SERIES[1]
    assert window.start == BASE + 7200 * SECOND - (BASE + 7200 * SECOND) % (60 * SECOND)
    assert window.feedback.rating_sum_milli == 4000


def test_an_event_sent_twice_by_its_producer_counts_once() -> None:
    partition = run([("completions", [completion(0, BASE, 1), completion(1, BASE, 1)])])
    assert [state.requests.requests for state in partition.windows] == [1]
    assert partition.dropped["duplicate"] == 1


def test_a_request_that_is_known_beyond_the_stored_frontier_is_counted_where_it_stands_now() -> None:
    """The broker lost the end of the log and of the changelog, but for one of its keys; what was lost came again elsewhere."""
    first = Partition(0, Rules(), now=0)
    before = copy.deepcopy(first.absorb("completions", [completion(0, BASE, 0)], now=0, through=0))
    after = copy.deepcopy(first.absorb("completions", [completion(1, BASE, 3)], now=0, through=1))
    kept = before | {key: record for key, record in after.items() if key.startswith("attribution")}
    revived = Partition(0, Rules(), records=[record for record in kept.values() if record], now=0)
    revived.absorb("completions", [completion(1, BASE, 6), completion(2, BASE, 3)], now=0, through=2)
    revived.absorb("completions", [completion(3, BASE, 3), completion(4, BASE, 0)], now=0, through=4)
    assert sum(state.requests.requests for state in revived.windows) == 3
    assert revived.dropped == {"duplicate": 2}


def lost_window() -> tuple[Partition, int]:
    """The broker lost the last version of a window, and kept what was written after it: two of three requests are in no window."""
    first = Partition(0, Rules(), now=0)
    before = copy.deepcopy(first.absorb("completions", [completion(0, BASE, 0)], now=0, through=0))
    more = [completion(1, BASE, 3), completion(2, BASE, 6)]
    after = copy.deepcopy(first.absorb("completions", more, now=0, through=2))
    kept = after | {key: record for key, record in before.items() if isinstance(record, WindowState)}
    records = [record for record in kept.values() if record]
    return Partition(0, Rules(), records=records, now=0, completions="completions"), 3


def test_what_is_known_and_in_no_window_is_read_again_where_it_stood() -> None:
    revived, expected = lost_window()
    assert revived.next_offset("completions") == 1
    revived.absorb("completions", [completion(1, BASE, 3), completion(2, BASE, 6)], now=0, through=2)
    assert sum(state.requests.requests for state in revived.windows) == expected
    assert revived.dropped == {}


def test_what_is_known_and_in_no_window_is_counted_where_it_was_sent_again() -> None:
    revived, expected = lost_window()
    revived.rewind("completions", 1)
    again = [completion(1, BASE, 0), completion(2, BASE, 9), completion(3, BASE, 3), completion(4, BASE, 6)]
    revived.absorb("completions", again, now=0, through=4)
    assert sum(state.requests.requests for state in revived.windows) == expected + 1
    assert revived.dropped == {"duplicate": 1}


def stored_after(partition: Partition, batches: Iterable[list[Completion]], stored: dict[str, Record]) -> None:
    """What the changelog holds once the partition has merged these."""
    for batch in batches:
        for key, record in copy.deepcopy(
            partition.absorb("completions", batch, now=0, through=batch[-1].offset)
        ).items():
            if record is None:
                stored.pop(key, None)
            else:
                stored[key] = record


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_log_that_was_cut_and_written_again_in_any_order_counts_every_request_once(data: st.DataObject) -> None:
    """Also what stands where it stood before, and with a restart before the cut, after it, or both."""
    before = list(range(data.draw(st.integers(1, 12))))
    end = data.draw(st.integers(0, len(before)))
    again = data.draw(st.permutations([*before[end:], *range(len(before), len(before) + 3)]))
    log = [
        completion(offset, BASE + request * SECOND, request) for offset, request in enumerate([*before[:end], *again])
    ]
    stored: dict[str, Record] = {}

    def restarted(partition: Partition) -> Partition:
        if not data.draw(st.booleans()):
            return partition
        return Partition(0, Rules(), records=copy.deepcopy(list(stored.values())), now=0, completions="completions")

    partition = Partition(0, Rules(), now=0, completions="completions")
    stored_after(partition, [[completion(request, BASE + request * SECOND, request)] for request in before], stored)
    partition = restarted(partition)
    partition.rewind("completions", end)
    cut = data.draw(st.integers(end, len(log)))
    stored_after(partition, [part for part in (log[end:cut],) if part], stored)
    if cut > end:
        partition = restarted(partition)
    stored_after(partition, [part for part in (log[cut:],) if part], stored)
    assert sum(state.requests.requests for state in partition.windows) == len(log)


def test_a_full_chunk_whose_last_version_was_lost_is_stored_again_with_the_next() -> None:
    """The broker lost the end of the changelog, where a chunk became full, and the end of the log; both went on."""
    last = CHUNK_SIZE - 1
    log = [completion(n, BASE, 3 * n) for n in range(CHUNK_SIZE + 1)]  # all of one series
    stored: dict[str, Record] = {}
    first = Partition(0, Rules(), now=0, completions="completions")
    stored_after(first, [log[:last]], stored)
    stored_after(first, [[log[last]]], {})
    stored_after(first, [log[last + 1 :]], stored)
    revived = Partition(0, Rules(), records=copy.deepcopy(list(stored.values())), now=0, completions="completions")
    revived.rewind("completions", last)
    again = [3000, 3 * last, 3 * (last + 1)]
    stored_after(revived, [[completion(last + n, BASE, request) for n, request in enumerate(again)]], {})
    assert sum(state.requests.requests for state in revived.windows) == len(log) + 1


def test_what_was_lost_before_a_batch_of_another_source_was_kept_is_read_again() -> None:
    """Marks are of all sources: those of a verdict that was stored speak of completions that were lost."""
    stored: dict[str, Record] = {}
    first = Partition(0, Rules(), now=0, completions="completions")
    stored_after(first, [[completion(0, BASE, 0)]], stored)
    stored_after(first, [[completion(1, BASE, 3)]], {})
    verdict = Moderation(offset=0, at=BASE, event_id="m", series=SERIES[2])
    stored |= {key: record for key, record in first.absorb("moderated", [verdict], now=0, through=0).items() if record}
    revived = Partition(
        0, Rules(marks_are_doubted=True), records=copy.deepcopy(list(stored.values())), now=0, completions="completions"
    )
    assert revived.next_offset("completions") == 1
    revived.absorb("completions", [completion(1, BASE, 3)], now=0, through=1)
    assert sum(state.requests.requests for state in revived.windows) == 2


def test_a_verdict_that_comes_again_where_it_stood_counts_once() -> None:
    partition = Partition(0, Rules(), now=0, completions="completions")
    verdicts = [Moderation(offset=n, at=BASE, event_id=f"m{n}", series=SERIES[0]) for n in range(4)]
    partition.absorb("moderated", verdicts[:3], now=0, through=2)
    partition.rewind("moderated", 1)
    partition.absorb("moderated", verdicts[1:], now=0, through=3)
    assert sum(state.moderation.inputs for state in partition.windows) == 4


def test_a_lost_window_and_a_cut_log_lose_nothing_of_the_series_that_had_counted_further() -> None:
    """The last version of one window was lost, another had counted up to 9, and the log was cut at 6 and written again."""
    first = Partition(0, Rules(), now=0, completions="completions")
    requests = [0, 3, 6, 9, 1, 4, 7, 10, 13, 16]  # four of one series, six of another
    log = [completion(offset, BASE, request) for offset, request in enumerate(requests)]
    stored: dict[str, Record] = {}
    stored_after(first, [log[:3]], stored)
    early = {key: record for key, record in stored.items() if isinstance(record, WindowState)}
    stored_after(first, [log[3:]], stored)
    stored |= early
    revived = Partition(0, Rules(), records=copy.deepcopy(list(stored.values())), now=0, completions="completions")
    begin = revived.next_offset("completions")
    assert begin == 3
    again = [*log[begin:6], *[completion(6 + n, BASE, request) for n, request in enumerate([19, 22, 7, 25])]]
    stored_after(revived, [again], {})
    assert sum(state.requests.requests for state in revived.windows) == len(log) + 3


def test_another_window_length_does_not_make_what_was_counted_lost() -> None:
    first = Partition(0, Rules(), now=0, completions="completions")
    stored: dict[str, Record] = {}
    stored_after(first, [[completion(n, BASE + n * 100 * SECOND, n) for n in range(5)]], stored)
    rules = Rules(length=300 * SECOND)
    revived = Partition(0, rules, records=copy.deepcopy(list(stored.values())), now=0, completions="completions")
    assert revived.next_offset("completions") == 5


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_crash_while_windows_are_forgotten_reads_nothing_again(data: st.DataObject) -> None:
    rules = Rules(lateness=0, retention=120 * SECOND)
    partition, stored = Partition(0, rules, now=0, completions="completions"), {}
    for n in range(12):
        at = BASE + n * 60 * SECOND
        changes = copy.deepcopy(
            list(partition.absorb("completions", [completion(n, at, n)], now=at, through=n).items())
        )
        for part in partition.parts_due(at + 60 * SECOND):
            partition.mark_published(Part(part.state, part.revision, True, 0))
        cut = data.draw(st.integers(0, len(changes))) if n == 11 else len(changes)
        for key, record in changes[:cut]:
            stored[key] = record
    records = [record for record in stored.values() if record is not None]
    revived = Partition(0, rules, records=records, now=BASE + 720 * SECOND, completions="completions")
    assert (revived.next_offset("completions") or 0) >= 11


@settings(max_examples=100, deadline=None)
@given(st.data(), logs())
def test_a_crash_between_any_two_writes_counts_everything_once(data: st.DataObject, log: Log) -> None:
    """As the law above, with the frontier that the worker stores."""
    expected = totals(run(interleavings(data.draw, log)))
    partition, writes, stored = Partition(0, Rules(), now=0), [], {}
    batches = interleavings(data.draw, log)
    for source, facts in batches[: data.draw(st.integers(0, len(batches)))]:
        changes = partition.absorb(source, facts, now=0, through=facts[-1].offset)
        writes += copy.deepcopy(list(changes.items()))
    for key, record in writes[: data.draw(st.integers(0, len(writes)))]:
        stored[key] = record
    records = [each for each in stored.values() if each is not None]
    revived = Partition(0, Rules(), records=records, now=0, completions="completions")
    for source, facts in interleavings(data.draw, log):
        left = [fact for fact in facts if fact.offset >= (revived.next_offset(source) or 0)]
        if left:
            revived.absorb(source, left, now=0, through=left[-1].offset)
    assert totals(revived) == expected


def test_a_retraction_takes_its_thumb_back() -> None:
    thumb = Feedback(offset=0, at=BASE, event_id="f1", request_id="r1", tenant_id="acme", thumb=1)
    back = Feedback(offset=1, at=BASE, event_id="f2", request_id="r1", tenant_id="acme", thumb=1, retracted=True)
    partition = run([("completions", [completion(0, BASE, 1)]), ("feedback", [thumb, back])])
    [window] = partition.windows
    assert (window.feedback.received, window.feedback.positive, window.feedback.retracted) == (2, 0, 1)


def test_feedback_of_another_tenant_counts_nowhere() -> None:
    foreign = Feedback(offset=0, at=BASE, event_id="f1", request_id="r1", tenant_id="globex", thumb=1)
    partition = run([("feedback", [foreign]), ("completions", [completion(0, BASE, 1)])])
    assert [state.feedback.received for state in partition.windows] == [0]
    assert partition.dropped["foreign"] == 1


def test_a_window_closes_after_its_lateness_and_late_data_restates_it() -> None:
    rules = Rules()
    partition = Partition(0, rules, now=BASE)
    start = BASE - BASE % rules.length
    partition.absorb("completions", [completion(0, start, 0)], now=BASE)
    [opened] = partition.parts_due(BASE)
    assert (opened.revision, opened.closed) == (1, False)
    partition.mark_published(opened)
    assert partition.parts_due(BASE) == []
    partition.absorb("completions", [completion(1, start + rules.length + rules.lateness, 1)], now=BASE)
    closing = next(part for part in partition.parts_due(BASE) if part.state.start == start)
    assert (closing.revision, closing.closed) == (1, True)
    for part in partition.parts_due(BASE):
        partition.mark_published(part)
    partition.absorb("completions", [completion(2, start + 1, 3)], now=BASE)
    [restated] = [part for part in partition.parts_due(BASE) if part.state.start == start]
    assert (restated.revision, restated.closed, restated.state.requests.requests) == (2, True, 2)


def test_a_silent_partition_closes_its_windows_by_wall_time() -> None:
    rules = Rules()
    partition = Partition(0, rules, now=BASE)
    partition.absorb("completions", [completion(0, BASE, 0)], now=BASE)
    assert not partition.parts_due(BASE + rules.length)[0].closed
    assert partition.parts_due(BASE + rules.length * 3)[0].closed


def test_a_backlog_is_not_late_because_another_topic_was_read_first() -> None:
    partition = Partition(0, Rules(), now=BASE)
    newest = Moderation(offset=0, at=BASE + 86_400 * SECOND, event_id="m", series=Series("acme"))
    partition.absorb("completions", [completion(0, BASE, 0)], now=BASE)
    partition.absorb("moderations", [newest], now=BASE)
    partition.absorb("completions", [completion(1, BASE + SECOND, 3)], now=BASE)
    assert partition.dropped["late"] == 0


def test_windows_are_forgotten_after_the_retention_and_later_facts_are_counted_as_late() -> None:
    rules = Rules()
    partition = Partition(0, rules, now=BASE)
    partition.absorb("completions", [completion(0, BASE, 0)], now=BASE)
    partition.absorb("completions", [completion(1, BASE + rules.retention + 5 * rules.length, 3)], now=BASE)
    for part in partition.parts_due(BASE):
        partition.mark_published(part)
    changes = partition.absorb("completions", [completion(2, BASE + rules.retention + 7 * rules.length, 6)], now=BASE)
    assert [key for key, record in changes.items() if record is None and key.startswith("quality|")]
    partition.absorb("completions", [completion(3, BASE, 9)], now=BASE)
    assert partition.dropped["late"] == 1
    assert all(state.start > BASE - rules.length for state in partition.windows if state.requests.requests)


def test_attributions_and_waiting_feedback_are_bounded() -> None:
    rules = Rules(attribution_capacity=256, pending_capacity=3)
    partition = Partition(0, rules, now=BASE)
    partition.absorb("completions", [completion(n, BASE + n, n) for n in range(1000)], now=BASE)
    assert 256 <= len(partition._attributions) <= 256 + 128
    orphans = [Feedback(offset=n, at=BASE, event_id=f"f{n}", request_id=f"x{n}", thumb=1) for n in range(10)]
    partition.absorb("feedback", orphans, now=BASE)
    assert partition.waiting == 3
    assert partition.dropped["forgotten"] == 7
