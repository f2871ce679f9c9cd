"""How far a consumer is behind the ends of its partitions: asked of the broker, so that it is true while the handler is stuck, too."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from prometheus_client import Gauge

from sluice_kit.kafka_client import its_cancellations_are_errors

LAG = Gauge(
    "sluice_events_consumer_lag",
    "Records at the end of the partition that are not handled yet.",
    ("group", "topic", "partition"),
)

LOOK_SECONDS = 5.0
ANSWER_SECONDS = 20.0


class Lag:
    """The gauge of one connection of a consumer; it has the partitions that are this consumer's, and no others.

    The high water mark that comes with fetched records would not do: while a handler is stuck nothing is fetched.
    """

    def __init__(self, consumer: AIOKafkaConsumer, *, group: str, settled: Callable[[], bool]) -> None:
        """`settled`: false while partitions are given out anew."""
        self._consumer, self._group, self._settled = consumer, group, settled
        self._fetched: dict[TopicPartition, int] = {}
        self._handled: dict[TopicPartition, int] = {}
        self._shown: set[TopicPartition] = set()

    def begin(self, records: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """These are about to be handled."""
        for partition, batch in records.items():
            self._handled.setdefault(partition, batch[0].offset)
            self._fetched[partition] = batch[-1].offset + 1

    def done(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Everything before these is handled."""
        self._handled.update(offsets)

    def forget(self) -> None:
        """Show nothing more: the partitions may be somebody else's from now on."""
        for partition in self._shown:
            LAG.remove(self._group, partition.topic, partition.partition)
        for known in (self._shown, self._fetched, self._handled):
            known.clear()

    async def watch(self) -> None:
        """Look now and then, until cancelled. While the broker is away what was seen last stays: nobody knows better."""
        while True:
            with contextlib.suppress(KafkaError, OSError, TimeoutError), its_cancellations_are_errors():
                await asyncio.wait_for(self.look(), ANSWER_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Ask for the ends, and show what lies between them and what is handled."""
        for partition, end in (await self._consumer.end_offsets(list(self._mine()))).items():
            next_offset = await self._next(partition)
            if partition in self._mine():  # not taken away while we asked
                LAG.labels(self._group, partition.topic, partition.partition).set(max(0, end - next_offset))
                self._shown.add(partition)

    def _mine(self) -> frozenset[TopicPartition]:
        return self._consumer.assignment() if self._settled() else frozenset()  # type: ignore[no-any-return]

    async def _next(self, partition: TopicPartition) -> int:
        """The first offset that is not handled."""
        handled = self._handled.get(partition)
        if handled is not None and handled < self._fetched.get(partition, 0):
            return handled
        # Nothing is in hand. The position, and not what was handled last: it also passes over offsets without a record.
        return int(await self._consumer.position(partition))
