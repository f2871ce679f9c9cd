"""Which partitions a consumer has, and from where it reads them, through every rebalance."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import IllegalStateError

StartingOffsets = Callable[[set[TopicPartition]], Awaitable[Mapping[TopicPartition, int]]]


def sticky_assignor() -> type[StickyPartitionAssignor]:
    """An assignor for one consumer that leaves every partition where it is, as far as the balance allows.

    aiokafka 0.14 has no cooperative protocol (KIP-429): a rebalance still stops all members for a moment, but what they read
    stays theirs. Its sticky assignor keeps the assignment in class attributes, so each consumer needs a class of its own. The
    name stays that of the assignor used before: members of both releases must agree on one while a release rolls out, and
    aiokafka joins once for every name in its list. A leader of the older release ignores what a member says it has.
    """
    return type("StickyAssignor", (StickyPartitionAssignor,), {"name": "roundrobin", "member_assignment": None})


def range_assignor(instance: str) -> type[RangePartitionAssignor]:
    """An assignor for one static member, by ranges: each instance has the same one again when it comes back.

    aiokafka's ranges go by member ids, and a member that was killed comes back with a new one. Kafka gives it what it had. The
    embedded broker lets a leader that comes back assign anew, and tells nobody else: two workers were seen to read the same
    partitions, and nobody the others. A leader of the release before goes by member ids, as it did.
    """

    class RangeAssignor(RangePartitionAssignor):  # type: ignore[misc]
        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            return ConsumerProtocolMemberMetadata(cls.version, list(topics), instance.encode())

        @classmethod
        def assign(
            cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            by_instance = {(each.user_data, member): each for member, each in members.items()}
            return {member: given for (_, member), given in super().assign(cluster, by_instance).items()}

    return RangeAssignor


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Positions the consumer where the handler's own store says, and lets work end before its partitions go.

    aiokafka fetches while the store is asked, and goes on when that fails: so the loop asks here when it may fetch, and what
    it must put back.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        starting_offsets: StartingOffsets | None,
        *,
        ready: asyncio.Event,
        release: Callable[[], Awaitable[None]],
        read_again_from: Callable[[], Mapping[TopicPartition, int]] = dict,
    ) -> None:
        """`read_again_from`: no partition of it is begun further on than there."""
        self._consumer, self._starting_offsets = consumer, starting_offsets
        self._ready, self._release, self._read_again_from = ready, release, read_again_from
        self._starts: Mapping[TopicPartition, int] = {}
        self._told = 0
        self._failure: Exception | None = None
        self.settled = False
        self.generation = 0

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Begin nothing new; what is in hand is ended and committed while the partitions are still ours."""
        self.settled = False
        self.generation += 1
        await self._release()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Start where the handler's own store says, else at the committed offset."""
        try:
            starts: dict[TopicPartition, int] = {}
            if self._starting_offsets is not None and assigned:
                starts = dict(await self._starting_offsets(set(assigned)))
            for partition, offset in self._read_again_from().items():
                if partition in assigned:
                    starts[partition] = min(starts.get(partition, offset), offset)
            self._starts = starts
            for partition, offset in starts.items():
                self._consumer.seek(partition, offset)
        except Exception as error:
            self._failure = error
            return
        self.settled = True
        self._ready.set()

    def raise_failure(self) -> None:
        """The store did not say where to start: begin again, for guessing would lose or repeat events."""
        if self._failure is not None:
            raise self._failure

    def new_starts(self) -> Mapping[TopicPartition, int]:
        """Where the handler's own store says that all before is handled; once after each assignment."""
        told, self._told = self._told, self.generation + 1
        return {} if told == self._told else {tp: offset for tp, offset in self._starts.items() if offset}

    def put_back(self, records: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """Fetch these again: they came while the partitions were given out anew."""
        self.seek({tp: self._starts.get(tp, batch[0].offset) for tp, batch in records.items() if batch})

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Fetch from here on, where the partition is still ours."""
        for partition, offset in positions.items():
            with contextlib.suppress(IllegalStateError):
                self._consumer.seek(partition, offset)
