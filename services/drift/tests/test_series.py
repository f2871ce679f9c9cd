"""References are pinned once, windows count once, whatever the batches, the crash and the replay."""

from __future__ import annotations

import copy
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_drift.domain.observation import Observation, Profile, Series, pack_embedding
from sluice_drift.domain.partition import Partition, Record, Rules
from sluice_drift.domain.recount import Recount
from sluice_drift.domain.sample import words_bin

SECOND = 1_000_000
BASE = 1_760_000_000 * SECOND
RULES = Rules(length=60 * SECOND, reference_size=5)
Logs = list[list[Observation]]


def observation(partition: int, offset: int, at: int, *, model: str = "sha256:a", series: int = 0) -> Observation:
    vector = [((offset * 7 + k) % 11 - 5) / 30 for k in range(8)]
    profile = Profile(["en", "de", ""][offset % 3], offset * 5, pack_embedding(vector))
    return Observation(
        source_partition=partition,
        offset=offset,
        at=BASE + at,
        series=Series("acme", f"model{series}"),
        prompt=profile,
        answer=profile if offset % 4 else None,
        embedding_model=model,
        mark=1 + partition * 1000 + offset,
    )


@st.composite
def logs(draw: st.DrawFn) -> Logs:
    return [
        [
            observation(partition, offset, draw(st.integers(0, 200 * SECOND)), series=draw(st.integers(0, 1)))
            for offset in range(draw(st.integers(0, 15)))
        ]
        for partition in range(2)
    ]


def interleaved(draw: st.DrawFn, log: Logs) -> list[list[Observation]]:
    left = [list(each) for each in log]
    batches = []
    while any(left):
        partition = draw(st.sampled_from([number for number, each in enumerate(left) if each]))
        size = draw(st.integers(1, len(left[partition])))
        batches.append(left[partition][:size])
        left[partition] = left[partition][size:]
    return batches


def run(batches: list[list[Observation]], partition: Partition | None = None) -> Partition:
    partition = partition or Partition(0, RULES, now=0)
    for batch in batches:
        partition.absorb(batch, now=0)
    return partition


def result(partition: Partition) -> tuple:
    return (
        sorted((w.key, w.revision, w.collected, w.prompt, w.answer) for w in partition.windows),
        sorted((r.key, r.version, r.observations, r.prompt_embeddings) for r in partition.references),
    )


@settings(max_examples=100, deadline=None)
@given(st.data(), logs())
def test_any_batch_split_of_the_same_arrival_gives_the_same_result(data: st.DataObject, log: Logs) -> None:
    batches = data.draw(st.composite(interleaved)(log))
    one_by_one = [[each] for batch in batches for each in batch]
    assert result(run(batches)) == result(run(one_by_one))


@settings(max_examples=100, deadline=None)
@given(st.data(), logs())
def test_a_crash_and_a_replay_count_every_observation_once(data: st.DataObject, log: Logs) -> None:
    batches = data.draw(st.composite(interleaved)(log))
    partition = Partition(0, RULES, now=0)
    writes: list[tuple[str, Record | None]] = []
    for batch in batches[: data.draw(st.integers(0, len(batches)))]:
        writes += copy.deepcopy(list(partition.absorb(batch, now=0).items()))
    stored = {key: record for key, record in writes[: data.draw(st.integers(0, len(writes)))] if record is not None}
    revived = run(data.draw(st.composite(interleaved)(log)), Partition(0, RULES, records=stored.values(), now=0))
    total = sum(len(each) for each in log)
    assert sum(window.revision for window in revived.windows) == total
    in_references = sum(reference.observations for reference in revived.references)
    assert sum(window.collected for window in revived.windows) == in_references
    sampled = sum(window.prompt.observations for window in revived.windows)
    assert in_references + sampled == total


@settings(max_examples=100, deadline=None)
@given(st.data(), logs())
def test_events_sent_a_second_time_count_once_in_windows_references_and_replays(data: st.DataObject, log: Logs) -> None:
    copies = [
        [
            replace(each, offset=len(part) + place)
            for place, each in enumerate(part[data.draw(st.integers(0, len(part))) :])
        ]
        for part in log
    ]
    with_copies = [[*part, *again] for part, again in zip(log, copies, strict=True)]
    once, twice = run(log), run(with_copies)
    assert [window[1:] for window in result(twice)[0]] == [window[1:] for window in result(once)[0]]
    assert twice.dropped["repeated"] == sum(len(part) for part in copies)
    live, again = live_and_again(with_copies, with_copies)
    assert result(again)[0] == result(live)[0]
    assert not list(again.unlike())


@settings(deadline=None)
@given(logs())
def test_a_pure_replay_changes_nothing(log: Logs) -> None:
    partition = run(log)
    before = copy.deepcopy(result(partition))
    assert result(run(log, partition)) == before


def test_a_reference_is_pinned_with_its_first_observations_and_never_changes() -> None:
    partition = run([[observation(0, offset, 0) for offset in range(12)]])
    [reference] = partition.references
    assert (reference.observations, reference.pinned, reference.offsets) == (5, True, {0: 4})
    [window] = partition.windows
    assert (window.collected, window.prompt.observations, window.observations) == (5, 7, 12)


def test_another_embedding_model_begins_a_new_reference_and_the_old_one_does_not_come_back() -> None:
    partition = run([[observation(0, offset, 0) for offset in range(8)]])
    run([[observation(0, 8, 0, model="sha256:b"), observation(0, 9, 0, model="sha256:a")]], partition)
    [reference] = partition.references
    assert (reference.version, reference.embedding_model, reference.observations) == (2, "sha256:b", 1)
    assert partition.dropped["old_model"] == 1


def test_lengths_fall_into_bins_by_powers_of_two() -> None:
    assert [words_bin(n) for n in (0, 1, 2, 3, 4, 100, 2047, 2048, 10**6)] == [
        "0",
        "1",
        "2-3",
        "2-3",
        "4-7",
        "64-127",
        "1024-2047",
        "2048+",
        "2048+",
    ]


def live_and_again(batches: list[list[Observation]], log: Logs) -> tuple[Partition, Recount]:
    """What a processor makes of an arrival, and what is counted again from the log in another order."""
    live = run(batches)
    pinned = {(each.series, each.version): each for each in live.references if each.pinned}
    again = Recount(0, RULES, pinned=pinned, partial=False, now=0)
    for found in sorted((each for part in log for each in part), key=lambda each: (each.offset, each.source_partition)):
        again.absorb_one(found, now=0)
    return live, again


@settings(max_examples=100, deadline=None)
@given(st.data(), logs())
def test_counting_again_in_another_order_gives_the_same_against_the_references_that_were_pinned(
    data: st.DataObject, log: Logs
) -> None:
    live, again = live_and_again(data.draw(st.composite(interleaved)(log)), log)
    assert result(again)[0] == result(live)[0]
    assert not list(again.unlike())


def test_a_reference_that_is_not_what_the_log_holds_is_named() -> None:
    log = [[observation(0, offset, 0) for offset in range(8)]]
    live = run(log)
    [reference] = live.references
    reference.prompt.languages["fr"] = 1
    again = Recount(0, RULES, pinned={(reference.series, 1): reference}, partial=False, now=0)
    for each in log[0]:
        again.absorb_one(each, now=0)
    assert list(again.unlike()) == [(reference.series, 1)]


def test_windows_of_a_former_embedding_model_keep_their_reference() -> None:
    log = [[observation(0, each, each * 10 * SECOND, model=f"sha256:{'ab'[each >= 7]}") for each in range(20)]]
    live, again = live_and_again(log, log)
    assert result(again)[0] == result(live)[0]
    assert {due.reference.version for due in again.due_all()} == {1, 2}
    assert not list(again.unlike())


def test_a_part_of_the_log_is_counted_against_the_reference_of_now() -> None:
    log = [observation(0, offset, offset * 10 * SECOND) for offset in range(20)]
    live = run([log])
    [reference] = live.references
    again = Recount(0, RULES, pinned={(reference.series, 1): reference}, partial=True, now=0)
    for each in log[9:]:
        again.absorb_one(each, now=0)
    whole = {window.key: window.prompt for window in live.windows if window.start >= BASE + 120 * SECOND}
    assert whole
    assert whole == {window.key: window.prompt for window in again.windows if window.key in whole}
