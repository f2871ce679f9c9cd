"""Merging a batch in columns gives what merging its facts one by one gives, to the last digit and byte."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_quality.adapters import records
from sluice_quality.adapters.columns import read_together
from sluice_quality.domain import columns as domain
from sluice_quality.domain.columns import OUTCOMES, CompletionColumns, Maybe
from sluice_quality.domain.facts import Completion, Fact, Feedback, Outcome, Series
from sluice_quality.domain.partition import Partition, Rules
from sluice_quality.domain.sketch import bucket_of

from .test_columns import HEADERS, completions, one_by_one, record

SECOND = 1_000_000
BASE = 1_760_000_000 * SECOND
MONTH = 31 * 86_400 * SECOND
SERIES = [Series("acme", "chat", "small"), Series("acme", "chat", "large"), Series("globex")]
SOURCE = "completions"

borders = [60 * SECOND * minute - BASE % (60 * SECOND) for minute in (1, 2, 3)]
moments = st.one_of(st.integers(0, 180 * SECOND), st.builds(int.__add__, st.sampled_from(borders), st.integers(-1, 1)))
spans = st.one_of(st.none(), st.integers(-3, 3), st.integers(0, 10**7), st.integers(-MONTH, MONTH))
tokens = st.one_of(st.integers(0, 3), st.integers(0, 10**9))
counts = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))
maybe = st.one_of(st.none(), st.booleans())


@st.composite
def logs(draw: st.DrawFn) -> list[Completion]:
    """Requests that may come twice, of three series in four windows, many at the border between two."""
    log = []
    for number in range(draw(st.integers(1, 25))):
        context = draw(counts)
        log.append(
            Completion(
                offset=number * 2,
                at=BASE + draw(moments),
                request_id=f"r{draw(st.integers(0, number) if draw(st.integers(0, 9)) == 0 else st.just(number))}",
                series=draw(st.sampled_from(SERIES)),
                outcome=draw(st.sampled_from(Outcome)),
                latency=draw(spans),
                time_to_first_token=draw(spans),
                generation_time=draw(spans),
                prompt_tokens=draw(tokens),
                completion_tokens=draw(tokens),
                answer_characters=draw(counts),
                redactions=draw(counts),
                streamed=draw(st.booleans()),
                truncated=draw(st.booleans()),
                refusal=draw(maybe),
                empty_answer=draw(maybe),
                language_mismatch=draw(maybe),
                repetition_permille=draw(st.one_of(st.none(), st.sampled_from([0, 1, 199, 200, 1000]))),
                context_sentences=context,
                grounded_sentences=draw(st.integers(0, context)),
            )
        )
    return log


def in_columns(facts: Sequence[Completion]) -> CompletionColumns:
    """The same requests."""
    told = Completion(*zip(*facts, strict=True))  # type: ignore[arg-type]  # of columns, not of values
    columns: dict = {"all_series": SERIES, "request_id": list(told.request_id)}  # type: ignore[arg-type]
    for name in Completion._fields:
        values = getattr(told, name)
        if CompletionColumns.__annotations__[name] == "Maybe":
            given = np.array([value is not None for value in values])
            columns[name] = Maybe(np.array([value or 0 for value in values]), given)
        elif name not in columns:
            columns[name] = np.array(
                [SERIES.index(v) if name == "series" else OUTCOMES.index(v) if name == "outcome" else v for v in values]
            )
    for name in ("refusal", "empty_answer", "language_mismatch"):
        columns[name] = Maybe(columns[name].values.astype(bool), columns[name].given)
    return CompletionColumns(**columns)


def stored(changes: dict) -> dict[str, bytes | None]:
    return {key: None if each is None else records.encode(each) for key, each in changes.items()}


def windows_stand_first(changes: dict) -> bool:
    kinds = [key.startswith("quality|") for key, each in changes.items() if each is not None]  # those that go, go last
    return kinds == sorted(kinds, reverse=True)


def whole(partition: Partition) -> tuple:
    """All that decides about what comes next."""
    return (
        {state.key: records.encode(state) for state in partition.windows},
        partition.dropped,
        [(each.request_id, each.offset, each.at, each.series) for each in partition._attributions.known],
        partition.waiting,
        {part.state.key: part for part in partition.parts_due(BASE)},
    )


@settings(max_examples=100, deadline=None)
@given(st.data(), logs())
def test_any_split_in_columns_gives_the_bytes_of_one_by_one(data: st.DataObject, log: list[Completion]) -> None:
    """Also after a crash, with duplicates, with what is too late, and with feedback that waits."""
    rules = Rules(lateness=0, retention=60 * SECOND, attribution_capacity=data.draw(st.sampled_from([1, 1000])))
    alone, together = Partition(0, rules, now=0), Partition(0, rules, now=0)
    feedback: list[Fact] = [
        Feedback(offset=n, at=BASE, event_id=f"f{n}", request_id=f"r{request}", tenant_id="acme", thumb=1)
        for n, request in enumerate(data.draw(st.lists(st.integers(0, 25), max_size=4)))
    ]
    for each in (alone, together):
        each.absorb("feedback", feedback, now=0)
    begin, crashes = 0, 2
    while begin < len(log):
        batch = log[begin : begin + data.draw(st.integers(1, len(log)))]
        through, now = batch[-1].offset, BASE + 180 * SECOND
        one = alone.absorb(SOURCE, batch, now=now, through=through)
        all_at_once = together.absorb(SOURCE, in_columns(batch), now=now, through=through)
        assert stored(all_at_once) == stored(one)
        assert windows_stand_first(all_at_once)
        assert whole(together) == whole(alone)
        begin += len(batch)
        if data.draw(st.booleans()):
            publish_all(alone, now)
            publish_all(together, now)
        if crashes and data.draw(st.integers(0, 4)) == 0:  # only the windows were stored: all is read again
            alone, together = revived(alone, rules), revived(together, rules)
            begin, crashes = data.draw(st.integers(0, begin)), crashes - 1


def publish_all(partition: Partition, now: int) -> None:
    for part in partition.parts_due(now):
        partition.mark_published(part)


def revived(partition: Partition, rules: Rules) -> Partition:
    kept = [records.decode(state.key.encode(), records.encode(state)) for state in partition.windows]
    return Partition(0, rules, records=kept, now=0)


@settings(max_examples=100, deadline=None)
@given(st.lists(completions(), min_size=1, max_size=12))
def test_events_in_columns_give_the_windows_of_events_one_by_one(events: list[RequestCompleted]) -> None:
    read = [record(event.SerializeToString(), offset, HEADERS) for offset, event in enumerate(events)]
    columns = read_together(read)
    if not isinstance(columns, CompletionColumns):
        return
    facts = [fact for fact in one_by_one(read) if fact is not None]
    assert repr(columns.completions()) == repr(facts)
    alone, together = Partition(0, Rules(), now=0), Partition(0, Rules(), now=0)
    through = len(events) - 1
    one = alone.absorb(SOURCE, facts, now=BASE, through=through)
    assert stored(together.absorb(SOURCE, columns, now=BASE, through=through)) == stored(one)
    assert whole(together) == whole(alone)


def test_most_events_of_the_strategy_are_read_in_columns_when_none_is_doubtful() -> None:
    """Otherwise the law above would say nothing."""
    events = [RequestCompleted(model="m", refusal=True) for _ in range(5)]
    for number, event in enumerate(events):
        event.metadata.event_id = event.metadata.request_id = f"r{number}"
        event.metadata.synthetic = number == 2
    found = read_together([record(event.SerializeToString(), n, HEADERS) for n, event in enumerate(events)])
    assert isinstance(found, CompletionColumns)
    assert found.request_id == ["r0", "r1", "r3", "r4"]
    assert found.offset.tolist() == [0, 1, 3, 4]


def test_only_synthetic_events_are_no_columns() -> None:
    event = RequestCompleted()
    event.metadata.event_id, event.metadata.synthetic = "e", True
    assert read_together([record(event.SerializeToString(), 0, HEADERS)]) == ([None], [])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**62), st.lists(st.integers(1, 2**63 - 1), min_size=1, max_size=200))
def test_buckets_looked_up_at_once_are_those_of_one_by_one(seed: int, values: list[int]) -> None:
    """Also at every border that a 64-bit number can be near."""
    rng = random.Random(seed)
    borders = [2 ** (index / domain.BUCKETS_PER_OCTAVE) for index in range(2150)]
    drawn = values + [min(max(int(border) + rng.randrange(-2, 3), 1), 2**63 - 1) for border in borders]
    assert domain._buckets(np.array(drawn)).tolist() == [bucket_of(value) for value in drawn]


def test_sums_beyond_64_bits_are_exact() -> None:
    """A thousand answers of a milliard tokens in a microsecond each."""
    facts = [
        Completion(
            n, BASE, f"r{n}", SERIES[0], Outcome.SUCCEEDED, generation_time=1, completion_tokens=10**9, latency=2**62
        )
        for n in range(1000)
    ]
    partition = Partition(0, Rules(), now=0)
    partition.absorb(SOURCE, in_columns(facts), now=0, through=999)
    [state] = partition.windows
    assert state.requests.tokens_per_kilosecond.sum == 1000 * 10**18
    assert state.requests.latency.sum == 1000 * 2**62
