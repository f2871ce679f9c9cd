"""What can be proved of numbered events: up to where nothing is missing, what is missing, and what came more than once.

Plain arithmetic on `producer_sequence`: it grows with the holes in the numbers and not with the number of events.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Range = tuple[int, int]
"""First and last number, both inclusive."""

REPLAYED_FROM = "sluice_replayed_from"
"""Header of a record that was put back from a dead-letter topic: `topic/partition/offset` of the dead letter."""

# Kafka's timestamp is the producer's when it handed the record over; a batch that is sent again keeps its order within seconds.
SEND_SLACK_MS = 60_000


@dataclass(frozen=True, slots=True)
class Sighting:
    """A numbered event on a topic."""

    topic: str
    partition: int
    producer: str
    sequence: int
    """Counted from 1 per producer and topic."""
    occurred_at_us: int
    """When the fact happened, microseconds since 1970."""
    written_ms: int
    """The record's Kafka timestamp."""
    replayed: bool = False
    """Put back from a dead-letter topic: a copy that was meant, whose number proves nothing of its time."""


def sighting(
    topic: str, partition: int, metadata: Any, *, headers: Mapping[str, bytes], written_ms: int
) -> Sighting | None:
    """The sighting of an event by its metadata; None when it carries no number."""
    if not metadata.producer or not metadata.producer_sequence:
        return None
    return Sighting(
        topic=topic,
        partition=partition,
        producer=metadata.producer,
        sequence=metadata.producer_sequence,
        occurred_at_us=metadata.occurred_at.ToMicroseconds(),
        written_ms=written_ms,
        replayed=REPLAYED_FROM in headers,
    )


@dataclass(frozen=True, slots=True)
class Head:
    """What a partition no longer holds at its beginning."""

    start_offset: int
    """Offset of the first record that is left; 0 where none was deleted."""
    removed_before_ms: int = 0
    """Whatever was deleted was written before this moment."""


class Intervals:
    """A set of whole numbers as disjoint ranges; each range knows the mark (an event time) of its highest number."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._marks: list[int] = []

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def __iter__(self) -> Iterator[Range]:
        return zip(self._firsts, self._lasts, strict=True)

    def __len__(self) -> int:
        """How many ranges: what it takes in memory."""
        return len(self._firsts)

    @property
    def count(self) -> int:
        """How many numbers."""
        return sum(last - first + 1 for first, last in self)

    @property
    def last(self) -> int:
        """The highest number; 0 when empty."""
        return self._lasts[-1] if self._lasts else 0

    def add(self, number: int, mark: int = 0) -> bool:
        """Take a number in; False when it is there already."""
        if number in self:
            return False
        at = bisect_left(self._firsts, number)
        follows = at > 0 and self._lasts[at - 1] == number - 1
        precedes = at < len(self._firsts) and self._firsts[at] == number + 1
        if follows and precedes:
            self._firsts[at] = self._firsts[at - 1]
            del self._firsts[at - 1], self._lasts[at - 1], self._marks[at - 1]
        elif follows:
            self._lasts[at - 1], self._marks[at - 1] = number, mark
        elif precedes:
            self._firsts[at] = number
        else:
            self._firsts.insert(at, number)
            self._lasts.insert(at, number)
            self._marks.insert(at, mark)
        return True

    def add_range(self, first: int, last: int, mark: int = 0) -> None:
        """Take all numbers of first..last in."""
        begin, end = bisect_left(self._lasts, first - 1), bisect_right(self._firsts, last + 1)
        if begin < end:  # ranges that overlap or touch become one
            if self._lasts[end - 1] >= last:
                mark = self._marks[end - 1]
            first, last = min(first, self._firsts[begin]), max(last, self._lasts[end - 1])
        self._firsts[begin:end], self._lasts[begin:end], self._marks[begin:end] = [first], [last], [mark]

    def holes(self, first: int, last: int) -> list[Range]:
        """The ranges of first..last that are not in the set."""
        found, expected = [], first
        begin = max(0, bisect_right(self._firsts, first) - 1)
        for start, end in zip(self._firsts[begin:], self._lasts[begin:], strict=True):
            if start > last:
                break
            if start > expected:
                found.append((expected, start - 1))
            expected = max(expected, end + 1)
        return [*found, (expected, last)] if expected <= last else found

    def start_of(self, number: int) -> int:
        """The lowest number from which on all up to `number`, which must be in the set, are there."""
        return self._firsts[bisect_right(self._firsts, number) - 1]

    def complete_from(self, number: int) -> tuple[int, int]:
        """The highest number up to which all from `number` on are there, and its mark; (number - 1, 0) when it is not."""
        at = bisect_right(self._firsts, number) - 1
        if at < 0 or number > self._lasts[at]:
            return number - 1, 0
        return self._lasts[at], self._marks[at]


@dataclass(frozen=True, slots=True)
class StreamReport:
    """What the events of one producer on one topic prove."""

    topic: str
    producer: str
    records: int
    first: int
    """Lowest number seen."""
    last: int
    """Highest number seen."""
    begins_at: int
    """The number from which on nothing may be missing: 1, or higher where retention has deleted the head of the topic."""
    complete_up_to: int
    """The highest number at or above begins_at - 1 below which nothing is missing."""
    complete_up_to_us: int
    """Event time of that number, microseconds; 0 when there is none."""
    gaps: tuple[Range, ...]
    """Missing, and nothing explains it."""
    unprovable: tuple[Range, ...]
    """Missing where records were deleted (retention, compaction): lost or deleted, the topic cannot tell."""
    repeated: int
    """Copies beyond the first of a number, without those put back from dead letters."""
    replayed: int
    """Copies put back from dead letters."""
    reordered: int
    """Events that stand behind a higher number on their partition, and were not seen before."""


@dataclass(slots=True)
class _Stream:
    numbers: Intervals = field(default_factory=Intervals)
    repeated: int = 0
    replayed: int = 0
    reordered: int = 0
    highest_on: dict[int, int] = field(default_factory=dict)
    horizons: dict[int, int] = field(default_factory=dict)
    """For each partition with a deleted head: the lowest number that was surely sent after what was deleted there."""


class Completeness:
    """Takes sightings in any order between partitions, each partition's in the order of its offsets."""

    def __init__(self, heads: Mapping[tuple[str, int], Head] | None = None, *, compacted: frozenset[str] = frozenset()):
        """`heads` by topic and partition; `compacted` names the topics whose old records are deleted by key."""
        self._compacted = compacted
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._cut: dict[str, dict[int, int]] = {}
        for (topic, partition), head in (heads or {}).items():
            if head.start_offset > 0:
                self._cut.setdefault(topic, {})[partition] = head.removed_before_ms + SEND_SLACK_MS

    @property
    def intervals(self) -> int:
        """What it holds in memory."""
        return sum(len(stream.numbers) for stream in self._streams.values())

    def see(self, sighting: Sighting) -> bool:
        """Take a sighting in; False when its number was seen before."""
        stream = self._streams.setdefault((sighting.topic, sighting.producer), _Stream())
        new = stream.numbers.add(sighting.sequence, sighting.occurred_at_us)
        if sighting.replayed:
            stream.replayed += not new
            return new
        stream.repeated += not new
        highest = stream.highest_on.get(sighting.partition, 0)
        stream.reordered += new and sighting.sequence < highest
        stream.highest_on[sighting.partition] = max(highest, sighting.sequence)
        self._note_horizons(stream, sighting)
        return new

    def lacks(self, sighting: Sighting) -> bool:
        """True for a number that is missing below the highest of its stream: what was on its way when the reading ended."""
        stream = self._streams.get((sighting.topic, sighting.producer))
        return (
            stream is not None and sighting.sequence < stream.numbers.last and sighting.sequence not in stream.numbers
        )

    def streams(self) -> list[StreamReport]:
        """What is proved, by topic and producer."""
        return [
            self._report(topic, producer, self._streams[topic, producer]) for topic, producer in sorted(self._streams)
        ]

    def missing(self) -> Counter[str]:
        """Numbers that are not there, by topic: gaps and what retention may explain."""
        found: Counter[str] = Counter()
        for (topic, _), stream in self._streams.items():
            found[topic] += stream.numbers.last - stream.numbers.count
        return found

    def _note_horizons(self, stream: _Stream, sighting: Sighting) -> None:
        for partition, removed_before_ms in self._cut.get(sighting.topic, {}).items():
            if sighting.written_ms >= removed_before_ms:
                known = stream.horizons.get(partition, sighting.sequence)
                stream.horizons[partition] = min(known, sighting.sequence)

    def _begins_at(self, topic: str, stream: _Stream) -> int:
        if topic not in self._compacted and not self._cut.get(topic):
            return 1
        cut, last = self._cut.get(topic, {}), stream.numbers.last
        horizon = max((stream.horizons.get(partition, last) for partition in cut), default=1)
        return stream.numbers.start_of(last if topic in self._compacted else horizon)

    def _report(self, topic: str, producer: str, stream: _Stream) -> StreamReport:
        numbers = stream.numbers
        begins_at = self._begins_at(topic, stream)
        complete, mark = numbers.complete_from(begins_at)
        return StreamReport(
            topic=topic,
            producer=producer,
            records=numbers.count + stream.repeated + stream.replayed,
            first=next(iter(numbers))[0],
            last=numbers.last,
            begins_at=begins_at,
            complete_up_to=complete,
            complete_up_to_us=mark,
            gaps=tuple(numbers.holes(begins_at, numbers.last)),
            unprovable=tuple(numbers.holes(1, begins_at - 1)),
            repeated=stream.repeated,
            replayed=stream.replayed,
            reordered=stream.reordered,
        )
