"""Partitions that are taken away while they are being taken up are taken up anew when they come back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from sluice_kit.streams.options import WorkerOptions
from sluice_kit.streams.plain_reading import Reading

PLACES = [TopicPartition("facts", 0), TopicPartition("facts", 1)]


class Group:
    """A member's view of its group: as aiokafka's, it shows the old assignment until there is a new one."""

    def assignment(self) -> set[TopicPartition]:
        return set(PLACES)


class House:
    """A reading whose taking up is held open by the test."""

    def __init__(self, home: Path) -> None:
        self.may_end, self.begun = asyncio.Event(), asyncio.Event()
        self.taken_up = self.forgotten = 0
        options = WorkerOptions(
            group="test",
            instance="0",
            bootstrap="127.0.0.1:1",
            web_host="127.0.0.1",
            web_port=1,
            data_dir=home,
            store="memory://",
            partitions=2,
        )
        self.reading = Reading(options, {}, revoke=self._forget, take_up=self._take_up)
        self.client = self.reading.consumer
        self.reading.consumer = Group()  # type: ignore[assignment]

    def _forget(self) -> None:
        self.forgotten += 1

    async def _take_up(self, places: Sequence[Any]) -> None:
        self.taken_up += 1
        self.begun.set()
        await self.may_end.wait()


async def test_a_rebalance_in_the_middle_of_taking_up_is_not_taken_for_its_end(tmp_path: Path) -> None:
    house = House(tmp_path)
    reading = house.reading
    await reading.on_partitions_assigned(set(PLACES))
    first = asyncio.create_task(reading._settle())
    await house.begun.wait()
    await reading.on_partitions_revoked(set(PLACES))
    house.may_end.set()
    await first
    assert reading.assigned is None
    await reading.on_partitions_assigned(set(PLACES))  # the very same ones
    await reading._settle()
    assert reading.assigned == PLACES
    assert (house.taken_up, house.forgotten) == (2, 1)
    await house.client.stop()


async def test_what_is_given_out_while_another_assignment_is_taken_up_is_taken_up_after_it(tmp_path: Path) -> None:
    house = House(tmp_path)
    reading = house.reading
    await reading.on_partitions_assigned(set(PLACES))
    first = asyncio.create_task(reading._settle())
    await house.begun.wait()
    await reading.on_partitions_revoked(set(PLACES))
    await reading.on_partitions_assigned(set(PLACES))
    house.may_end.set()
    await first
    assert reading.assigned is None
    await reading._settle()
    assert reading.assigned == PLACES
    await house.client.stop()
