"""Events reach the windows in the order of the log, whatever a rebalance delivers."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from faust.types import TP
from sluice_kit.streams.sequence import HELD_SECONDS, SEEKS, SILENCE_SECONDS, Sequencer, SourceWithheld

SOURCE = TP("completions", 0)


@dataclass
class Record:
    offset: int
    topic: str = "completions"
    partition: int = 0
    tp: TP = SOURCE


@dataclass
class Event:
    message: Record


@dataclass
class Position:
    """A frontier."""

    next: int | None = None
    ends: list[int] = field(default_factory=list)

    def next_offset(self, source: str) -> int | None:
        return self.next

    def skip_to(self, source: str, offset: int) -> None:
        self.next = offset

    def rewind(self, source: str, end: int) -> None:
        self.next = end
        self.ends.append(end)


@dataclass
class Log:
    """A source that remembers where it was sent."""

    first: int = 0
    end: int = 1000
    hole: range = range(0)
    answers: bool = True
    asked: list[int] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[Any]] | None = None
    """What happens while it is asked."""
    seeks: list[int] = field(default_factory=list)
    questions: int = 0
    committed: dict[TP, int] = field(default_factory=dict)
    owned: bool = True

    def owns(self, tp: TP) -> bool:
        return self.owned

    async def seek(self, tp: TP, offset: int) -> None:
        self.seeks.append(offset)

    async def bounds(self, *tps: TP) -> Mapping[TP, tuple[int, int]]:
        self.questions += 1
        return dict.fromkeys(tps, (self.first, self.end))

    async def next_held(self, tp: TP, offset: int) -> int | None:
        self.asked.append(offset)
        if self.meanwhile:
            await self.meanwhile()
        held = self.hole.stop if offset in self.hole else offset
        return held if self.answers else None

    async def commit(self, positions: Mapping[TP, int]) -> None:
        self.committed.update(positions)


def batch(*offsets: int) -> Any:
    return [Event(Record(offset)) for offset in offsets]


def offsets(events: Any) -> list[int]:
    return [event.message.offset for event in events]


async def test_the_first_events_of_a_log_are_taken_as_they_come() -> None:
    log = Log(first=7)  # what stood before is deleted
    assert offsets(await Sequencer(log).admit(Position(), batch(7, 8, 9))) == [7, 8, 9]
    assert log.seeks == []


async def test_where_nothing_is_stored_nothing_was_counted_whatever_was_committed() -> None:
    # Seen on Apache Kafka: killed a second before the broker was frozen, a worker found one partition of its table empty.
    log, clock = Log(), [0.0]
    sequencer, position = Sequencer(log, now=lambda: clock[0]), Position()
    assert offsets(await sequencer.admit(position, batch(7, 8, 9))) == []
    assert log.seeks == [0]
    assert offsets(await sequencer.admit(position, batch(*range(10)))) == list(range(10))


async def test_what_is_merged_is_skipped() -> None:
    assert offsets(await Sequencer(Log()).admit(Position(9), batch(7, 8, 9, 10))) == [9, 10]


async def test_events_beyond_a_gap_wait_and_the_consumer_goes_back() -> None:
    log, clock = Log(), [0.0]
    sequencer = Sequencer(log, now=lambda: clock[0])
    assert offsets(await sequencer.admit(Position(5), batch(9, 10))) == []
    assert offsets(await sequencer.admit(Position(5), batch(11))) == []
    assert log.seeks == [5]  # once: the first seek is under way
    clock[0] = 3.0
    await sequencer.admit(Position(5), batch(12))
    assert log.seeks == [5, 5]


async def test_a_stray_event_before_the_ones_read_again_does_no_harm() -> None:
    assert offsets(await Sequencer(Log()).admit(Position(5), batch(9, 5, 6, 7))) == [5, 6, 7]


async def test_what_the_log_no_longer_holds_is_given_up() -> None:
    log, position = Log(first=8), Position(5)
    await Sequencer(log).admit(position, batch(8, 9))
    assert (position.next, log.seeks) == (8, [8])


async def test_a_hole_in_the_log_is_given_up_after_some_tries() -> None:
    log, position, clock = Log(hole=range(5, 9)), Position(5), [0.0]
    sequencer = Sequencer(log, now=lambda: clock[0])
    for _ in range(SEEKS + 1):
        assert position.next == 5
        await sequencer.admit(position, batch(9, 10))
        clock[0] += 3.0
    assert log.committed == {SOURCE: 9}, "Faust would commit nothing of this partition any more"
    assert offsets(await sequencer.admit(position, batch(9, 10))) == [9, 10]


async def overtaken(log: Log, *, turns: int) -> tuple[Sequencer, Position, list[float]]:
    """A partition of which only what is beyond offset 5 comes, whatever is sought: Faust had fetched it before."""
    position, clock = Position(5), [0.0]
    sequencer = Sequencer(log, now=lambda: clock[0])
    for _ in range(turns):
        assert await taken(sequencer, position, batch(9, 10)) == []
        clock[0] += 3.0
    return sequencer, position, clock


async def test_what_the_log_holds_is_not_passed_over_however_often_a_seek_is_overtaken() -> None:
    log = Log()
    sequencer, position, _ = await overtaken(log, turns=4 * SEEKS)
    assert (position.next, log.committed) == (5, {})
    assert set(log.seeks) == {5}
    assert await taken(sequencer, position, batch(*range(5, 11))) == list(range(5, 11))


async def test_a_hole_is_passed_over_up_to_what_the_log_holds_and_not_up_to_what_came() -> None:
    log = Log(hole=range(5, 7))
    sequencer, position, _ = await overtaken(log, turns=SEEKS + 1)
    assert (position.next, log.seeks[-1], log.committed) == (7, 7, {SOURCE: 7})
    assert await taken(sequencer, position, batch(7, 8, 9, 10)) == [7, 8, 9, 10]


async def test_a_broker_that_does_not_answer_is_no_reason_to_pass_over_anything() -> None:
    log = Log(hole=range(5, 7), answers=False)
    sequencer, position, clock = await overtaken(log, turns=4 * SEEKS)
    clock[0] += 2 * HELD_SECONDS
    await taken(sequencer, position, batch(9, 10))
    assert (position.next, set(log.seeks), log.committed) == (5, {5}, {})
    log.answers = True
    clock[0] += SILENCE_SECONDS
    await taken(sequencer, position, batch(9, 10))
    assert position.next == 7


async def test_the_log_is_asked_only_after_some_seeks_in_vain_and_the_waits_between_them_grow() -> None:
    log, position, clock, sought = Log(), Position(5), [0.0], []
    sequencer = Sequencer(log, now=lambda: clock[0])
    while clock[0] < 60.0:
        before = len(log.seeks)
        await sequencer.admit(position, batch(9, 10))
        if len(log.seeks) > before:
            sought.append(clock[0])
        clock[0] += 0.5
    waits = [later - earlier for earlier, later in itertools.pairwise(sought)]
    assert waits[:SEEKS] == [2.0] * SEEKS
    assert waits[SEEKS:] == sorted(waits[SEEKS:])
    assert waits[-1] == SILENCE_SECONDS
    assert len(log.asked) == len(log.seeks) - SEEKS


@pytest.mark.parametrize("by", ["events", "timer"])
async def test_a_worker_that_does_not_get_what_the_log_holds_ends_after_some_minutes(by: str) -> None:
    log, position, clock = Log(), Position(5), [0.0]
    sequencer = Sequencer(log, now=lambda: clock[0])
    await sequencer.align({SOURCE: position})

    async def turns(seconds: float) -> None:
        until = clock[0] + seconds
        while clock[0] < until:
            clock[0] += SILENCE_SECONDS
            await (sequencer.seek_again() if by == "timer" else sequencer.admit(position, batch(9, 10)))

    await turns(SEEKS * SILENCE_SECONDS + HELD_SECONDS - SILENCE_SECONDS)
    log.answers = False
    await turns(SILENCE_SECONDS)
    log.answers = True
    await turns(HELD_SECONDS)  # only what the broker says without a break counts
    with pytest.raises(SourceWithheld, match="completions/0 from offset 5"):
        await turns(SILENCE_SECONDS)
    assert (position.next, set(log.seeks)) == (5, {5})


@pytest.mark.parametrize("by", ["events", "timer"])
async def test_what_comes_while_the_log_is_asked_is_not_passed_over(by: str) -> None:
    log = Log(hole=range(5, 1000))  # as a reader would say that looked at another moment
    sequencer, position, clock = await overtaken(log, turns=SEEKS)

    async def comes() -> None:
        assert await taken(sequencer, position, batch(5, 6)) == [5, 6]

    log.meanwhile = comes
    clock[0] += SILENCE_SECONDS
    await (sequencer.seek_again() if by == "timer" else sequencer.admit(position, batch(9, 10)))
    assert (log.asked, position.next, log.committed) == ([5], 7, {})


async def test_nothing_is_passed_over_where_the_partitions_moved_while_the_log_was_asked() -> None:
    log = Log(hole=range(5, 7))
    sequencer, position, clock = await overtaken(log, turns=SEEKS)

    async def moves() -> None:
        sequencer.reassigned()

    log.meanwhile, before = moves, len(log.seeks)
    clock[0] += SILENCE_SECONDS
    await sequencer.seek_again()
    assert (log.asked, position.next, len(log.seeks), log.committed) == ([5], 5, before, {})


async def test_where_nothing_is_left_to_its_end_a_log_is_passed_over_up_to_its_end() -> None:
    log, position, clock = Log(end=8, hole=range(5, 8)), Position(5), [0.0]
    sequencer = Sequencer(log, now=lambda: clock[0])
    await sequencer.align({SOURCE: position})
    for _ in range(SEEKS + 2):
        clock[0] += SILENCE_SECONDS
        await sequencer.seek_again()
    assert (position.next, log.seeks[-1], log.committed) == (8, 8, {SOURCE: 8})
    sought, log.end = len(log.seeks), 9
    assert await taken(sequencer, position, batch(8)) == [8]
    clock[0] += SILENCE_SECONDS
    await sequencer.seek_again()
    assert len(log.seeks) == sought


async def test_a_log_that_was_emptied_is_read_on_at_its_end_without_further_events() -> None:
    log, position, clock = Log(), Position(5), [0.0]
    sequencer = Sequencer(log, now=lambda: clock[0])
    await sequencer.align({SOURCE: position})
    log.first = log.end = 20
    clock[0] = SILENCE_SECONDS
    await sequencer.seek_again()
    assert (position.next, log.seeks[-1], log.asked) == (20, 20, [])


async def test_after_an_assignment_reading_goes_on_where_the_windows_stand() -> None:
    log = Log()
    await Sequencer(log).align({SOURCE: Position(42)})
    assert log.seeks == [42]
    await Sequencer(log).align({SOURCE: Position()})
    assert log.seeks == [42, 0]  # from the beginning where nothing is stored


async def test_offsets_that_the_broker_lost_are_merged_when_they_come_again() -> None:
    log, position = Log(end=30), Position(42)
    await Sequencer(log).align({SOURCE: position})
    assert (position.ends, log.seeks) == ([30], [30])


async def test_a_record_that_took_a_lost_records_offset_is_merged_too() -> None:
    """A broker that was killed lost its tail and gave the offsets again: the frontier goes back to where the log differs."""
    position, sequencer = Position(0), Sequencer(Log())

    def told(offset: int, value: bytes) -> Any:
        record = Record(offset)
        record.value = value  # type: ignore[attr-defined]
        return Event(record)

    first = await sequencer.admit(position, [told(0, b"a"), told(1, b"b"), told(2, b"lost")])
    position.next = 3
    assert len(first) == 3
    assert await sequencer.admit(position, [told(1, b"b")]) == [], "the same record again is no other"
    again = await sequencer.admit(position, [told(1, b"b"), told(2, b"new"), told(3, b"c")])
    assert [event.message.offset for event in again] == [2, 3]
    assert position.ends == [2]


def told(*records: tuple[int, bytes]) -> Any:
    events = []
    for offset, value in records:
        record = Record(offset)
        record.value = value  # type: ignore[attr-defined]
        events.append(Event(record))
    return events


async def taken(sequencer: Sequencer, position: Position, events: Any) -> list[int]:
    """What is admitted, and merged at once."""
    admitted = offsets(await sequencer.admit(position, events))
    if admitted:
        position.next = admitted[-1] + 1
    return admitted


async def merged(*records: tuple[int, bytes]) -> tuple[Sequencer, Position, Log]:
    log, position = Log(), Position(0)
    sequencer = Sequencer(log, now=lambda: 0.0)
    assert len(await taken(sequencer, position, told(*records))) == len(records)
    return sequencer, position, log


async def test_a_log_that_grew_past_the_frontier_is_found_by_the_copy_of_a_lost_record() -> None:
    """Two were lost, two others took their offsets, and the lost ones came again behind: nothing stands where it should not."""
    sequencer, position, log = await merged((0, b"a"), (1, b"lost"), (2, b"lost too"))
    assert await taken(sequencer, position, told((3, b"lost"), (4, b"lost too"))) == []
    assert log.seeks == [0]
    assert await taken(sequencer, position, told((5, b"read ahead before the seek"))) == []
    again = told(
        (0, b"a"), (1, b"new"), (2, b"newer"), (3, b"lost"), (4, b"lost too"), (5, b"read ahead before the seek")
    )
    assert await taken(sequencer, position, again) == [1, 2, 3, 4, 5]
    assert position.ends == [1]


async def test_a_difference_whose_beginning_was_not_seen_is_looked_for_from_the_oldest_record() -> None:
    sequencer, position, log = await merged((0, b"a"), (1, b"b"), (2, b"lost"), (3, b"lost too"))
    assert await taken(sequencer, position, told((3, b"new"), (4, b"c"))) == []
    assert log.seeks == [0]
    assert await taken(sequencer, position, told((0, b"a"), (1, b"b"))) == []
    assert await taken(sequencer, position, told((2, b"newer"), (3, b"new"), (4, b"c"))) == [2, 3, 4]
    assert position.ends == [2]


async def test_a_copy_in_a_log_that_lost_nothing_is_let_through_after_one_look() -> None:
    sequencer, position, log = await merged((0, b"a"), (1, b"b"))
    copies = told((2, b"a"), (3, b"b"), (4, b"c"))
    assert await taken(sequencer, position, copies) == []
    assert await taken(sequencer, position, told((0, b"a"), (1, b"b")) + copies) == [2, 3, 4]
    assert (log.seeks, position.ends) == ([0], [])


async def test_after_an_assignment_what_is_remembered_is_looked_at_again() -> None:
    sequencer, position, log = await merged((0, b"a"), (1, b"lost"))
    sequencer.reassigned()
    await sequencer.align({SOURCE: position})
    assert log.seeks == [0]
    assert await taken(sequencer, position, told((0, b"a"), (1, b"new"), (2, b"c"))) == [1, 2]


async def test_a_look_that_is_not_answered_is_asked_for_again_and_given_up_after_some_tries() -> None:
    log, position, clock = Log(), Position(0), [0.0]
    sequencer = Sequencer(log, now=lambda: clock[0])
    await taken(sequencer, position, told((0, b"a"), (1, b"b")))
    for _ in range(SEEKS + 2):
        await taken(sequencer, position, told((2, b"b")))
        clock[0] += 3.0
    assert log.seeks == [0] * (SEEKS + 1)
    assert await taken(sequencer, position, told((2, b"b"))) == [2]


async def test_what_was_remembered_before_an_assignment_is_looked_at_also_where_reading_has_gone_on() -> None:
    sequencer, position, log = await merged((0, b"a"), (1, b"lost"))
    sequencer.reassigned()
    assert await taken(sequencer, position, told((2, b"c"))) == [2]
    await sequencer.align({SOURCE: position})
    assert log.seeks == [0]
    assert await taken(sequencer, position, told((0, b"a"), (1, b"new"), (2, b"c"))) == [1, 2]


async def test_what_was_read_since_the_assignment_is_no_reason_to_read_it_again() -> None:
    """Faust reads before the timer aligns: a seek then would be overtaken by what it has fetched already."""
    log, position = Log(), Position(0)
    sequencer = Sequencer(log, now=lambda: 0.0)
    sequencer.reassigned()
    assert await taken(sequencer, position, told((0, b"a"), (1, b"b"))) == [0, 1]
    await sequencer.align({SOURCE: position})
    assert log.seeks == []
    assert await taken(sequencer, position, told((2, b"c"))) == [2]


async def test_a_log_that_was_cut_is_read_on_at_its_end_also_where_reading_had_gone_on() -> None:
    log, position = Log(), Position(0)
    sequencer = Sequencer(log, now=lambda: 0.0)
    sequencer.reassigned()
    await taken(sequencer, position, told((0, b"a"), (1, b"b")))
    log.end = 1
    await sequencer.align({SOURCE: position})
    assert (position.ends, log.seeks) == ([1], [1])


async def test_all_partitions_of_an_assignment_are_asked_about_at_once() -> None:
    """Faust answers a question in half a second: one for each of 16 partitions kept a worker from reading for ten."""
    log = Log()
    await Sequencer(log).align({TP("completions", number): Position(7) for number in range(16)})
    assert (log.questions, log.seeks) == (1, [7] * 16)
    await Sequencer(log).align({})
    assert log.questions == 1


@pytest.mark.parametrize("begin", ["gap", "assignment", "look"])
async def test_where_nothing_comes_of_a_seek_it_is_repeated_without_a_further_event(begin: str) -> None:
    clock, log, position = [0.0], Log(), Position(0)
    sequencer = Sequencer(log, now=lambda: clock[0])
    await taken(sequencer, position, told((0, b"a"), (1, b"b")))
    if begin == "gap":
        assert await taken(sequencer, position, told((5, b"f"))) == []
    else:
        sequencer.reassigned()
        if begin == "assignment":
            sequencer, position = Sequencer(log, now=lambda: clock[0]), Position(2)
        await sequencer.align({SOURCE: position})
    [sought] = log.seeks
    clock[0] = SILENCE_SECONDS - 0.1
    await sequencer.seek_again()
    assert log.seeks == [sought], "the fetch may be under way"
    for turn in range(1, 2 * SEEKS):
        clock[0] = turn * SILENCE_SECONDS
        await sequencer.seek_again()
        assert log.seeks == [sought] * (turn + 1)
    assert await taken(sequencer, position, told((0, b"a"), (1, b"b"), (2, b"c"), (3, b"d"))) == [2, 3], (
        "nothing was given up"
    )
    clock[0] += SILENCE_SECONDS
    questions = log.questions
    await sequencer.seek_again()
    assert (len(log.seeks), log.questions) == (2 * SEEKS, questions), "what came is not asked for again"


async def test_nothing_is_sought_again_where_all_is_read_or_another_worker_reads() -> None:
    clock, log = [0.0], Log(end=42)
    sequencer = Sequencer(log, now=lambda: clock[0])
    await sequencer.align({SOURCE: Position(42)})
    clock[0] = SILENCE_SECONDS
    await sequencer.seek_again()
    clock[0], log.end = 2 * SILENCE_SECONDS, 50
    await sequencer.seek_again()
    assert log.seeks == [42]

    await sequencer.align({SOURCE: Position(42)})
    clock[0], log.owned = 3 * SILENCE_SECONDS, False
    await sequencer.seek_again()
    sequencer.reassigned()
    log.owned = True
    await sequencer.seek_again()
    assert log.seeks == [42, 42]


async def test_a_hole_at_the_end_of_a_log_is_given_up_without_further_events() -> None:
    log, position, clock = Log(end=12, hole=range(5, 9)), Position(5), [0.0]
    sequencer = Sequencer(log, now=lambda: clock[0])
    await sequencer.align({SOURCE: position})
    for _ in range(SEEKS + 2):
        clock[0] += SILENCE_SECONDS
        before = len(log.seeks)
        await sequencer.seek_again()
        if len(log.seeks) > before and log.seeks[-1] == 5:
            await taken(sequencer, position, batch(9, 10, 11))  # what the log answers, from beyond the hole
    assert (position.next, log.seeks[-1]) == (9, 9)
    assert await taken(sequencer, position, batch(9, 10, 11)) == [9, 10, 11]


async def test_what_was_passed_over_before_the_assignment_was_aligned_is_sought_without_a_further_event() -> None:
    """Events that were buffered before are admitted, and Kafka's commit, from which reading goes on, is farther on."""
    clock, log, position = [0.0], Log(end=115), Position(100)
    sequencer = Sequencer(log, now=lambda: clock[0])
    sequencer.reassigned()
    assert await taken(sequencer, position, batch(*range(100, 110))) == list(range(100, 110))
    await sequencer.align({SOURCE: position})
    assert log.seeks == []
    clock[0] = SILENCE_SECONDS
    await sequencer.seek_again()
    assert log.seeks == [110]
