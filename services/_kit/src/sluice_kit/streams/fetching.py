"""Faust's fetching from Kafka, without the records that it loses while partitions move, and with seeks that are heeded.

Faust waits up to a second for records of its active partitions, and gives aiokafka the set itself: a rebalance empties it
meanwhile, and aiokafka takes an empty set for all partitions. So records that were fetched between the seek that a recovery
begins with and the moment in which it begins to read were taken and thrown away. The recovery then waited for ever ("No
event received for active tp"; a worker whose neighbour was killed, in one of ten kills on the embedded broker).

It hands out what it fetched one record at a time, thousands at once where there is a backlog. A seek in the middle changed
nothing of that: the rest was handed out, and what was read again was dropped as known, because it lay before. So of two
workers that began on a backlog one often read nothing for a minute (five of eight starts), until it was sent back in the
moment between two fetches by chance. What was fetched before a seek is left out here.

It sought in the worker's thread, while the consumer's may have been taking records out: aiokafka is for one thread, and
then raised KeyError, which ended the worker, or forgot the seek. Here all that moves a position is a step of the consumer's
loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiokafka
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, Message


class Seeks:
    """Where the consumer was sent, and whether what was fetched came after that. Written in the consumer's thread."""

    def __init__(self) -> None:
        self._sought: dict[TP, tuple[int, int]] = {}
        """How many seeks there were of a partition, and to where the last one went."""
        self._fetched: dict[TP, int] = {}
        """After how many seeks the records were fetched that are being handed out."""
        self._handed: dict[TP, int] = {}
        """After how many the record was fetched that was handed out last."""

    def note(self, place: TP, offset: int) -> None:
        """The consumer is sent there in this step of its loop."""
        self._sought[place] = self._number(place) + 1, offset

    def fetched(self, place: TP) -> None:
        """Records were fetched from where the consumer stood."""
        self._fetched[place] = self._number(place)

    def is_overtaken(self, place: TP) -> bool:
        """Whether what was fetched is of before a seek."""
        return self._fetched.get(place, 0) != self._number(place)

    def is_first(self, place: TP) -> bool:
        """Whether this is the first record that is handed out after a seek."""
        number = self._fetched.get(place, 0)
        before, self._handed[place] = self._handed.get(place, 0), number
        return before != number

    def offset(self, place: TP) -> int:
        """Where the last seek went."""
        return self._sought[place][1]

    def _number(self, place: TP) -> int:
        return self._sought.get(place, (0, 0))[0]


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Puts back what nobody wants any more, and knows what a seek has overtaken."""

    seeks: Seeks

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> Any:
        """Records by partition, of those that are active when they come."""
        found = dict(await super()._fetch_records(consumer, active_partitions, timeout, max_records))
        for place in found.keys() - active_partitions:
            records = found.pop(place)
            if place in consumer.assignment():
                consumer.seek(place, records[0].offset)
        for place in found:
            self.seeks.fetched(place)
        return found

    async def seek_soon(self, place: TP, offset: int) -> None:
        """Seek in a step of the consumer's loop: `call_thread` would wait for the fetch that is under way."""
        step = asyncio.run_coroutine_threadsafe(self._seek_now({place: offset}), self.thread_loop)
        await asyncio.wrap_future(step)

    async def _seek_now(self, places: Mapping[TP, int]) -> None:
        for place, offset in places.items():
            self._ensure_consumer().seek(place, offset)
            self.seeks.note(place, offset)

    async def _seek_wait(self, consumer: aiokafka.AIOKafkaConsumer, partitions: Mapping[TP, int]) -> None:
        await self._seek_now(partitions)
        await super()._seek_wait(consumer, partitions)  # the same again, in the same step, and waits

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek all partitions that have a committed offset to it."""
        found: Mapping[TP, int] = await self.call_thread(self._seek_to_committed)
        return found

    async def _seek_to_committed(self) -> Mapping[TP, int]:
        # As aiokafka's own, which waits between its seeks, while others fetch.
        consumer = self._ensure_consumer()
        committed = {place: await consumer.committed(place) for place in consumer.assignment()}
        held = consumer.assignment()
        await self._seek_now({place: offset for place, offset in committed.items() if offset and place in held})
        return committed


class Consumer(driver.Consumer):
    """Fetches in that thread."""

    _thread: ConsumerThread

    def _new_consumer_thread(self) -> ConsumerThread:
        self.seeks = Seeks()
        thread = ConsumerThread(self, loop=self.loop, beacon=self.beacon)
        thread.seeks = self.seeks
        return thread

    async def _seek(self, partition: TP, offset: int) -> None:
        await self._thread.seek_soon(partition, offset)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """One fetch, record by record, of each partition until a seek overtakes it."""
        async for place, message in super().getmany(timeout):
            if self.seeks.is_overtaken(place):
                continue
            if self.seeks.is_first(place):
                # The record that was under way at the seek has moved it on, and all before that would be dropped as known.
                self._read_offset[place] = self.seeks.offset(place) or None
            yield place, message


class Transport(driver.Transport):
    """Kafka with that consumer."""

    Consumer = Consumer
