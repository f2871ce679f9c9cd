"""Reading in one order: what holds it up, and what does not. (Over a broker: the CLI's and the cost service's tests.)"""

import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from sluice_kit.errors import Unavailable
from sluice_kit.ordered import OrderedReader, Span
from sluice_kit.settings import MeshSettings

SILENCE = 0.2


def record(partition: int, offset: int, timestamp: int, size: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        topic="t", partition=partition, offset=offset, timestamp=timestamp, value=bytes(size) or None
    )


class Consumer:
    """As the reader sees aiokafka's: gives one batch a call, and says nothing when there is none left."""

    def __init__(self, *batches: list[SimpleNamespace]) -> None:
        self._batches, self._positions = list(batches), {}

    def assign(self, partitions) -> None:
        self._positions = dict.fromkeys(partitions, 0)

    def seek(self, partition, offset) -> None:
        self._positions[partition] = offset

    def paused(self) -> set:
        return set()

    def pause(self, *partitions) -> None:
        assert not partitions

    resume = pause

    async def position(self, partition) -> int:
        return self._positions[partition]

    async def getmany(self, **_):
        await asyncio.sleep(0)
        found: dict[TopicPartition, list[SimpleNamespace]] = {}
        for each in self._batches.pop(0) if self._batches else []:
            partition = TopicPartition(each.topic, each.partition)
            found.setdefault(partition, []).append(each)
            self._positions[partition] = each.offset + 1
        return found


def reader(*batches: list[SimpleNamespace]) -> OrderedReader:
    return OrderedReader(Consumer(*batches), MeshSettings())


def spans(end: int, partitions: int = 1, start: int = 0) -> dict[TopicPartition, Span]:
    return {TopicPartition("t", number): Span(start, end) for number in range(partitions)}


async def test_partitions_are_merged_by_time_however_their_answers_are_cut():
    zero, one = [record(0, n, 10 * n) for n in range(4)], [record(1, n, 10 * n + 5) for n in range(4)]
    expected = sorted(zero + one, key=lambda each: each.timestamp)
    for batches in ([zero, one], [one, zero], [zero[:1], one[:3], zero[1:], one[3:]]):
        assert [each async for each in reader(*batches).records(spans(4, 2))] == expected


async def test_what_lies_outside_the_span_is_left_out():
    batch = [record(0, n, n) for n in range(9)]
    assert [each.offset async for each in reader(batch).records(spans(6, start=3))] == [3, 4, 5]


async def test_a_broker_that_gives_nothing_is_told_of():
    with pytest.raises(Unavailable, match="before the end of the range"):
        async for _ in reader([record(0, 0, 1)]).records(spans(2), silence_seconds=SILENCE):
            pass


async def test_a_caller_that_takes_long_over_a_record_is_no_silent_broker():
    batches = [[record(0, 0, 1)], [], [record(0, 1, 2)]]
    seen = []
    async for each in reader(*batches).records(spans(2), silence_seconds=SILENCE):
        seen.append(each.offset)
        await asyncio.sleep(1.5 * SILENCE)  # the work on it
    assert seen == [0, 1]


class Pausing(Consumer):
    """Tells which partitions were paused when it was asked for more."""

    def __init__(self, *batches: list[SimpleNamespace]) -> None:
        super().__init__(*batches)
        self.asleep: set[TopicPartition] = set()
        self.seen: list[set[int]] = []

    def paused(self) -> set:
        return self.asleep

    def pause(self, *partitions) -> None:
        self.asleep = self.asleep | set(partitions)

    def resume(self, *partitions) -> None:
        self.asleep = self.asleep - set(partitions)

    async def getmany(self, **options):
        self.seen.append({partition.partition for partition in self.asleep})
        return await super().getmany(**options)


async def test_a_partition_that_is_far_ahead_in_bytes_is_fetched_no_further_until_the_others_have_come_up():
    megabytes = [record(0, offset, 1 + offset, size=1 << 20) for offset in range(16)]
    late = [record(1, 0, 15), record(1, 1, 100)]
    consumer = Pausing(megabytes, late[:1], [record(0, 16, 200)], late[1:])
    made = OrderedReader(consumer, MeshSettings())
    found = [
        each async for each in made.records({**spans(17), TopicPartition("t", 1): Span(0, 2)}, silence_seconds=SILENCE)
    ]
    assert len(found) == 19
    assert consumer.seen[:3] == [set(), {0}, set()]
