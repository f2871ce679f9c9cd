"""Minutes go from memory to disk, each once, as soon as nothing can change them; memory stays that of a day."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from sluice.events.v1.fairness_pb2 import FairnessMeasured
from sluice_insight.adapters.forgetting import BUSY_SECONDS, FOLD_SECONDS, LOST
from sluice_insight.adapters.history import DAY, HOUR
from sluice_insight.consumer import MEASURED, MINUTED, TOO_OLD

from .history_lives import BEGIN, STEP, TENANTS, all_minutes, both, consumed, log, moment, quality, row


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


async def test_what_a_processor_tells_that_was_away_for_a_day_is_counted_and_what_is_read_again_is_not(
    lives: Any,
) -> None:
    counter, partitions = TOO_OLD.labels("quality")._value, log(2)
    began = counter.get()
    life = lives(BEGIN + DAY)
    life.ends = {("", number): len(events) for number, events in enumerate(partitions)}
    for number, events in enumerate(partitions):
        await life.read(number, events)
    life.now = BEGIN + 4 * DAY  # with nothing new for two days
    await life.fold()
    late = [consumed(quality(random.Random(1), BEGIN + days * DAY, "acme", 0, 9), 0, 5_000 + days) for days in (2, 4)]
    await life.feed.handle([replace(one, timestamp_ms=int(life.now / 1e3)) for one in late])
    assert counter.get() - began == 1
    again = lives(life.now)
    for number, events in enumerate(partitions):
        await again.read(number, events)
    await again.feed.handle([replace(one, timestamp_ms=int(life.now / 1e3)) for one in late])
    assert counter.get() - began == 1
    assert len(again.board) == 1


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
