"""A reference that is pinned anew takes over when it is full, is exact through crashes and replays, and the old one stays."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_drift.adapters import records
from sluice_drift.adapters.pinning import CannotPin, checked
from sluice_drift.domain.comparison import Comparer, Detection
from sluice_drift.domain.observation import Observation, Pin, Profile, Series, pack_embedding
from sluice_drift.domain.partition import Partition, Record, Rules
from sluice_drift.domain.recount import Recount
from sluice_drift.domain.reference import Reference
from sluice_drift.domain.versions import VERSIONS_KEPT, Versions

SECOND = 1_000_000
BASE = 1_760_000_040 * SECOND
LENGTH = 60 * SECOND
SERIES = Series("acme", "small")
RULES = Rules(length=LENGTH, reference_size=5)
Event = Observation | Pin


def observation(offset: int, at: int, *, model: str = "sha256:a", partition: int = 0) -> Observation:
    profile = Profile(
        ["en", "de"][offset % 2], offset, pack_embedding([((offset * 7 + k) % 11 - 5) / 30 for k in range(8)])
    )
    return Observation(
        source_partition=partition,
        offset=offset,
        at=BASE + at,
        series=SERIES,
        prompt=profile,
        answer=profile,
        embedding_model=model,
        mark=1 + 1000 * partition + offset,
    )


def steady(count: int, *, first: int = 0, **more: str) -> list[Event]:
    """One observation every ten seconds: six a window."""
    return [observation(offset, offset * 10 * SECOND, **more) for offset in range(first, first + count)]  # type: ignore[arg-type]


PIN = Pin(command="c1", series=SERIES)


def run(events: list[Event], partition: Partition | None = None) -> Partition:
    partition = partition or Partition(0, RULES, now=0)
    for each in events:
        partition.absorb([each], now=0)
    return partition


def by_version(partition: Partition) -> dict[int, list[tuple[int, int]]]:
    """Start (in windows) and observations of its windows."""
    found: dict[int, list[tuple[int, int]]] = {}
    for each in sorted(partition.windows, key=lambda window: window.start):
        found.setdefault(each.reference_version, []).append(((each.start - BASE) // LENGTH, each.observations))
    return found


def test_the_new_version_takes_over_with_the_next_window_and_loses_no_observation() -> None:
    partition = run([*steady(20), PIN, *steady(22, first=20)])
    [reference] = partition.references
    assert (reference.version, reference.observations, reference.command) == (2, 5, "c1")
    assert (reference.after, reference.offsets) == ({0: 19}, {0: 24})
    assert by_version(partition) == {1: [(0, 6), (1, 6), (2, 6), (3, 6), (4, 6)], 2: [(5, 6), (6, 6)]}
    assert {due.reference.version for due in partition.due(0)} == {1, 2}
    assert all(due.reference.version == due.window.reference_version for due in partition.due(0))


def test_until_it_is_full_windows_are_compared_with_the_old_one() -> None:
    partition = run([*steady(20), PIN, *steady(4, first=20)])
    [reference] = partition.references
    assert (reference.version, reference.pinned) == (1, True)
    assert {due.reference.version for due in partition.due(0)} == {1}
    comparer = Comparer(Detection(minimum_observations=5))
    last = max(partition.due(0), key=lambda due: due.window.start)
    assert comparer.compare(last.window, last.reference).features[0].p_value is not None


def test_a_late_observation_counts_against_the_version_of_its_window() -> None:
    partition = run([*steady(20), PIN, *steady(22, first=20), observation(42, 30 * SECOND)])
    assert by_version(partition)[1][0] == (0, 7)


@pytest.mark.parametrize("command", ["c1", "c2"])
def test_a_second_command_while_one_is_collected_does_nothing(command: str) -> None:
    partition = run([*steady(20), PIN, *steady(2, first=20), Pin(command=command, series=SERIES), *steady(3, first=22)])
    [reference] = partition.references
    assert (reference.version, reference.command, reference.offsets) == (2, "c1", {0: 24})
    assert partition.dropped["asked_already"] == 1
    run([PIN, *steady(10, first=25)], partition)
    assert [each.version for each in partition.references] == [2]


def test_a_command_for_a_series_that_is_unknown_or_still_collected_does_nothing() -> None:
    partition = run([PIN, *steady(3), PIN, *steady(5, first=3)])
    assert (partition.dropped["unknown_series"], partition.dropped["still_collecting"]) == (1, 1)
    assert [each.version for each in partition.references] == [1]


def test_what_was_seen_before_the_command_and_is_sent_again_is_not_collected() -> None:
    partition = run([*steady(20), PIN, *steady(10, first=10), *steady(5, first=20)])
    [reference] = partition.references
    assert (reference.version, reference.first_at) == (2, BASE + 200 * SECOND)


def test_another_embedding_model_ends_what_a_command_began() -> None:
    partition = run([*steady(20), PIN, *steady(3, first=20), *steady(8, first=23, model="sha256:b")])
    [reference] = partition.references
    assert (reference.version, reference.embedding_model, reference.command) == (2, "sha256:b", "")


def test_the_newest_versions_are_kept_and_older_ones_deleted() -> None:
    partition, deleted, first = run(steady(20)), set(), 20
    for number in range(6):
        partition.absorb([Pin(command=f"c{number}", series=SERIES)], now=0)
        for each in steady(20, first=first):
            changes = partition.absorb([each], now=0)
            deleted |= {key for key, record in changes.items() if record is None and key.startswith("reference|")}
        first += 20
    assert [each.version for each in partition.references] == [7]
    assert len(deleted) == 7 - VERSIONS_KEPT
    assert "reference|acme|small|0" in deleted


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_crash_and_a_replay_pin_the_same_reference_once(data: st.DataObject) -> None:
    log: list[Event] = [*steady(14), PIN, *steady(24, first=14)]
    batches, left = [], list(log)
    while left:
        size = data.draw(st.integers(1, len(left)))
        batches.append(left[:size])
        left = left[size:]
    partition, writes = Partition(0, RULES, now=0), []
    stored: dict[str, bytes] = {}
    for batch in batches[: data.draw(st.integers(0, len(batches)))]:
        changes: dict[str, Record | None] = partition.absorb(batch, now=0)
        writes += [(key, None if each is None else records.encode(each)) for key, each in changes.items()]
    for key, value in writes[: data.draw(st.integers(0, len(writes)))]:
        if value is None:
            stored.pop(key, None)
        else:
            stored[key] = value
    kept = [records.decode(key.encode(), value) for key, value in stored.items()]
    revived = run(log, Partition(0, RULES, records=kept, now=0))
    whole = run(log)
    assert list(revived.references) == list(whole.references)
    assert by_version(revived) == by_version(whole)
    assert sum(each.observations for each in revived.windows) == 38


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_counted_again_from_the_log_alone_windows_and_both_versions_are_the_same(data: st.DataObject) -> None:
    """The recount knows no command: the references say which observations are theirs, and from when they are used."""
    logs = [[observation(offset, offset * 20 * SECOND, partition=number) for offset in range(25)] for number in (0, 1)]
    order = data.draw(st.permutations([0] * 25 + [1] * 25))
    places = [iter(log) for log in logs]
    arrival: list[Event] = [next(places[number]) for number in order]
    arrival.insert(data.draw(st.integers(12, 30)), PIN)
    live = run(arrival)
    pinned = {(each.series, each.version): copy.deepcopy(each) for each in live.all_references if not each.proposed}
    assert {version for _, version in pinned} == {1, 2}
    again = Recount(0, RULES, pinned=pinned, partial=False, now=0)
    for each in (one for pair in zip(*logs, strict=True) for one in pair):
        again.absorb_one(each, now=0)
    assert not list(again.unlike())
    told = {window.key: (window.reference_version, window.collected, window.prompt) for window in live.windows}
    assert told == {window.key: (window.reference_version, window.collected, window.prompt) for window in again.windows}
    assert {due.reference.version for due in again.due_all()} == {due.reference.version for due in live.due(0)}


def test_the_command_line_says_why_nothing_would_be_done() -> None:
    pinned = Reference(SERIES, 0, pinned=True)
    assert checked({SERIES: Versions([pinned])}, SERIES) is pinned
    with pytest.raises(CannotPin, match=r"no series of tenant 'acme' and model 'smal'\. Known: --tenant 'acme' small"):
        checked({SERIES: Versions([pinned])}, replace(SERIES, model="smal"))
    with pytest.raises(CannotPin, match="still being collected"):
        checked({SERIES: Versions([Reference(SERIES, 0)])}, SERIES)
    with pytest.raises(CannotPin, match="asked for already"):
        checked({SERIES: Versions([pinned, pinned.proposal("c1", {})])}, SERIES)


def test_a_command_goes_through_the_internal_topic() -> None:
    value = records.encode_pin(PIN)
    assert records.decode_sent(value) == [PIN]
    assert records.decode_observations(value) == []
    [each] = steady(1)
    assert records.decode_sent(records.encode_observations([each])) == [each]  # type: ignore[list-item]
