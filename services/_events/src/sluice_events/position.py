"""Where a reader stands in its partitions: where it starts, what it has done, what it has committed."""

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError

Start = Literal["beginning", "end"] | datetime


class Positions(ConsumerRebalanceListener):
    """Seeks where partitions are given to us, and commits what was done before they are taken away."""

    def __init__(self, consumer: AIOKafkaConsumer, *, group: str | None, start: Start) -> None:
        self._consumer, self._group, self._start = consumer, group, start
        self._done: dict[TopicPartition, int] = {}
        self._failure: BaseException | None = None
        self.generation = 0
        """Changes whenever partitions are given out anew."""
        self.settled = False
        """True once every partition stands where it is to be read from."""

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.settled = False
        self.generation += 1
        await self.commit()
        self._done.clear()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self.generation += 1
        try:
            if self._start != "beginning":
                await self._seek([p for p in assigned if not await self._has_position(p)])
        except Exception as error:  # raised from the loop: what a listener raises is only logged
            self._failure = error
            return
        self.settled = True

    def raise_failure(self) -> None:
        """Where to start could not be found out: to guess would be to lose or to repeat."""
        if self._failure is not None:
            raise self._failure

    async def _has_position(self, partition: TopicPartition) -> bool:
        return self._group is not None and await self._consumer.committed(partition) is not None

    async def _seek(self, partitions: Sequence[TopicPartition]) -> None:
        """Begin in partitions that are new to the group, and have it remember where: the end is another one tomorrow."""
        if not partitions:
            return
        places = await self._consumer.end_offsets(partitions)
        if isinstance(self._start, datetime):
            moment = int(self._start.timestamp() * 1000)
            found = await self._consumer.offsets_for_times(dict.fromkeys(partitions, moment))
            places |= {partition: place.offset for partition, place in found.items() if place is not None}
        for partition, offset in places.items():
            self._consumer.seek(partition, offset)
            self._done[partition] = offset

    def put_back(self, records: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """Read these again: they were fetched while partitions were given out anew."""
        for partition, batch in records.items():
            with contextlib.suppress(IllegalStateError):  # no longer ours
                self._consumer.seek(partition, batch[0].offset)

    def done(self, record: Any) -> None:
        """This record is dealt with."""
        self._done[TopicPartition(record.topic, record.partition)] = record.offset + 1

    async def commit(self) -> None:
        """Tell the group how far we are. What cannot be committed because partitions moved comes again, there."""
        done, self._done = self._done, {}
        if done and self._group is not None:
            with contextlib.suppress(CommitFailedError, IllegalStateError):
                await self._consumer.commit(done)
