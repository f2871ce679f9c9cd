"""What a worker tells the broker of the partitions that it holds, and when it leaves the table alone."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import prometheus_client
import pytest
from faust.types import TP
from sluice_kit.streams.holding import TELL_SECONDS, Holding

SOURCE, OTHER, IDLE = TP("completions", 0), TP("verdicts", 0), TP("completions", 1)
ASSIGNED = [SOURCE, OTHER, IDLE]


@dataclass
class Partition:
    """Knows nothing but how far its sources are merged."""

    number: int
    next: dict[str, int] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def next_offset(self, source: str) -> int | None:
        return self.next.get(source)

    def skip_to(self, source: str, offset: int) -> None:
        self.next[source] = offset

    def rewind(self, source: str, end: int) -> None:
        self.next[source] = end


class Table:
    """Counts how often it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        self.reads += 1
        return ()

    async def apply(self, changes: Mapping[bytes, bytes | None], *, event: Any) -> None:
        raise AssertionError("nothing is written here")


class Log:
    """A source that holds offsets 0 to 99 of each place, and remembers what it was told."""

    def __init__(self) -> None:
        self.committed: list[dict[TP, int]] = []
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens while it is asked for bounds."""

    def owns(self, tp: TP) -> bool:
        return True

    async def seek(self, tp: TP, offset: int) -> None:
        """Nothing is read here."""

    async def bounds(self, *tps: TP) -> Mapping[TP, tuple[int, int]]:
        self.meanwhile()
        return dict.fromkeys(tps, (0, 100))

    async def next_held(self, tp: TP, offset: int) -> int | None:
        return offset

    async def commit(self, positions: Mapping[TP, int]) -> None:
        self.committed.append(dict(positions))


class World:
    def __init__(self) -> None:
        self.clock, self.table, self.log = 0.0, Table(), Log()
        self.holding: Holding[Partition, Any] = Holding(
            stored=self.table,
            records=cast(Any, None),  # nothing is stored
            source=self.log,
            take_up=lambda number, _: Partition(number),
            dropped=prometheus_client.Counter("dropped", "Of nobody.", ["reason"], registry=None),
            now=lambda: self.clock,
        )
        self.holding.resume({0, 1})
        self.partition.next = {"completions": 42, "verdicts": 7}

    @property
    def partition(self) -> Partition:
        return self.holding.partitions[0]


@pytest.fixture
def world() -> World:
    return World()


async def test_the_broker_is_told_soon_after_an_assignment_and_every_ten_seconds(world: World) -> None:
    """Also of what has not moved: what was told may have failed, or been put back by Faust's own commit."""
    for clock in (0.0, 1.0, TELL_SECONDS, TELL_SECONDS + 1):
        world.clock = clock
        await world.holding.tell(ASSIGNED)
    told = {SOURCE: 42, OTHER: 7}
    assert world.log.committed == [told, told]
    world.holding.pause()
    world.holding.resume({0, 1})
    world.partition.next = {"completions": 50}
    await world.holding.tell(ASSIGNED)
    assert world.log.committed[2:] == [{SOURCE: 50}]


async def test_what_is_merged_and_not_stored_is_not_told(world: World) -> None:
    """While the changelog has not confirmed it, a worker that is killed has merged nothing."""
    async with world.holding.turn(world.partition):
        world.partition.next["completions"] = 60
        telling = asyncio.create_task(world.holding.tell(ASSIGNED))
        await asyncio.sleep(0.01)
        assert world.log.committed == []
        world.partition.next["completions"] = 64
    await telling
    assert world.log.committed == [{SOURCE: 64, OTHER: 7}]


async def test_nothing_is_told_of_partitions_that_moved_meanwhile(world: World) -> None:
    async with world.holding.turn(world.partition):
        telling = asyncio.create_task(world.holding.tell(ASSIGNED))
        await asyncio.sleep(0.01)
        world.holding.pause()
    await telling
    assert world.log.committed == []


async def test_the_table_is_not_read_while_partitions_move(world: World) -> None:
    """The plain runner's gives what it has recovered once: read by half, the other half would be missing."""
    await world.holding.align(ASSIGNED)
    world.clock, world.log.meanwhile = 60.0, world.holding.pause
    for _ in range(2):  # they move while it is asked what is sought in vain; they are moving
        await world.holding.align(ASSIGNED)
        await world.holding.tell(ASSIGNED)
    assert (dict(world.holding.partitions), world.log.committed, world.table.reads) == ({}, [], 1)
