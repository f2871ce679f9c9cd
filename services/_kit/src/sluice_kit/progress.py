"""Which offsets may be committed when records are done with out of order: those before which nothing is open."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aiokafka import TopicPartition


@dataclass
class _Partition:
    begun: dict[int, bool] = field(default_factory=dict)
    """Offsets that were begun and not passed yet, ascending, and whether each is done with."""
    committable: int | None = None
    """The offset to read next if everything ended now; None until the first is passed."""

    def pass_by(self) -> None:
        while self.begun:
            offset, done = next(iter(self.begun.items()))
            if not done:
                return
            del self.begun[offset]
            self.committable = offset + 1


class Progress:
    """Keeps the records in hand, by partition."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._committed: dict[TopicPartition, int] = {}

    @property
    def in_hand(self) -> int:
        """Records from the first that is not done with: what would come again after a crash, and what must be bounded."""
        return sum(len(its.begun) for its in self._partitions.values())

    def begin(self, partition: TopicPartition, offset: int) -> None:
        """A record was taken. Offsets of a partition are begun in their order."""
        self._partitions.setdefault(partition, _Partition()).begun[offset] = False

    def done(self, partition: TopicPartition, offset: int) -> None:
        """A record was handled, or is a dead letter. One that is not in hand any more is ignored."""
        its = self._partitions.get(partition)
        if its is None or its.begun.get(offset, True):
            return
        its.begun[offset] = True
        its.pass_by()

    def committable(self) -> Mapping[TopicPartition, int]:
        """What to commit: for each partition that has moved, the offset to read next."""
        return {tp: offset for tp, offset in self._ends() if self._committed.get(tp) != offset}

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """These were committed."""
        self._committed |= offsets

    def unfinished(self) -> Mapping[TopicPartition, int]:
        """For each partition with records in hand, the first that is not done with: where to fetch again after letting go."""
        return {tp: next(iter(its.begun)) for tp, its in self._partitions.items() if its.begun}

    def forget(self) -> None:
        """Nothing is in hand any more: what was not done with will be fetched again."""
        self._partitions.clear()
        self._committed.clear()

    def _ends(self) -> Iterator[tuple[TopicPartition, int]]:
        for tp, its in self._partitions.items():
            if its.committable is not None:
                yield tp, its.committable
