"""Up to where each producer's events have come in without a gap, and the gaps seen live."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sluice_kit.completeness import Intervals, Range, sighting
from sluice_kit.consumer import ConsumedEvent

GAPS = PrometheusCounter(
    "sluice_events_gaps", "Events that did not come though later ones of their producer did.", ("topic",)
)
GRACE_SECONDS = 30.0
"""A number may come this much later than a higher one: partitions are read side by side, and a broker may be away."""
SHOWN_RANGES = 20


@dataclass(frozen=True, slots=True)
class Source:
    """One producer's events on one topic. Times in microseconds since 1970; 0 where there is none."""

    topic: str
    producer: str
    begins_at: int
    """The number from which on every one is expected: what stood on the topic before this process began is proved by
    `sluice events verify`, which knows what retention and compaction have deleted."""
    last_sequence: int
    complete_up_to_sequence: int
    complete_up_to: int
    """Event time of that number."""
    missing: tuple[Range, ...]
    repeated: int
    lost: int
    """Numbers that will never come: the producer has said so (EventsLost). They are not missing."""


@dataclass(slots=True)
class _Hole:
    noticed: float
    counted: bool = False


@dataclass(slots=True)
class _Stream:
    numbers: Intervals = field(default_factory=Intervals)
    lost: Intervals = field(default_factory=Intervals)
    accounted: Intervals = field(default_factory=Intervals)
    """What has come, and what is known never to come."""
    history_end: int = 0
    history_mark: int = 0
    first_live: int = 0
    repeated: int = 0
    holes: dict[Range, _Hole] = field(default_factory=dict)

    @property
    def begins_at(self) -> int:
        return self.history_end + 1 if self.history_end else max(self.first_live, 1)

    @property
    def complete(self) -> tuple[int, int]:
        """The number up to which all are there or given up, and its event time."""
        number, mark = self.accounted.complete_from(self.begins_at)
        return number, mark or self.history_mark

    def missing(self) -> list[Range]:
        return self.accounted.holes(self.begins_at, self.numbers.last)


class Sources:
    """What has come in, by topic and producer. Not thread-safe, but `snapshot` may be called from another thread."""

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._began_ms = int(now() * 1000)
        self._streams: dict[tuple[str, str], _Stream] = {}

    def see(self, event: ConsumedEvent) -> bool:
        """Take an event in; False when one of its number was there before: a copy, which must not count again."""
        metadata = event.message.metadata  # type: ignore[attr-defined]
        seen = sighting(event.topic, event.partition, metadata, headers=event.headers, written_ms=event.timestamp_ms)
        if seen is None:
            return True
        stream = self._streams.setdefault((seen.topic, seen.producer), _Stream())
        new = stream.numbers.add(seen.sequence, seen.occurred_at_us)
        stream.accounted.add(seen.sequence, seen.occurred_at_us)
        stream.repeated += not new
        if seen.written_ms < self._began_ms:
            if seen.sequence > stream.history_end:
                stream.history_end, stream.history_mark = seen.sequence, seen.occurred_at_us
        elif not stream.history_end:
            stream.first_live = min(stream.first_live or seen.sequence, seen.sequence)
        return new

    def lose(self, topic: str, producer: str, numbers: Range, *, at: int) -> None:
        """These will never come, their producer says; the last of them was lost at this time (microseconds)."""
        first, last = numbers
        if first <= last:
            stream = self._streams.setdefault((topic, producer), _Stream())
            stream.lost.add_range(first, last)
            stream.accounted.add_range(first, last, at)

    def watch(self) -> None:
        """Count the gaps that are older than the grace; to be called now and then."""
        now = self._now()
        for (topic, _), stream in self._streams.items():
            stream.holes = {hole: _known(stream.holes, hole, now) for hole in stream.missing()}
            for (first, last), hole in stream.holes.items():
                if not hole.counted and now - hole.noticed >= GRACE_SECONDS:
                    GAPS.labels(topic).inc(last - first + 1)
                    hole.counted = True

    def held_back_to(self, topics: Collection[str] = ()) -> int | None:
        """Event time before the earliest event that is missing now, of these topics or of any; None when nothing is."""
        chosen = [stream for (topic, _), stream in self._streams.items() if not topics or topic in topics]
        held = [stream.complete[1] for stream in chosen if stream.missing()]
        return min(held, default=None)

    def snapshot(self) -> list[Source]:
        """All sources, by topic and producer."""
        return [_source(*key, stream) for key, stream in sorted(self._streams.copy().items())]


def _known(holes: Mapping[Range, _Hole], hole: Range, now: float) -> _Hole:
    """What is known of a hole; what is left of a larger one is as old as that was."""
    for (first, last), known in holes.items():
        if first <= hole[0] and hole[1] <= last:
            return _Hole(known.noticed, known.counted)
    return _Hole(now)


def _source(topic: str, producer: str, stream: _Stream) -> Source:
    number, moment = stream.complete
    return Source(
        topic=topic,
        producer=producer,
        begins_at=stream.begins_at,
        last_sequence=stream.numbers.last,
        complete_up_to_sequence=number,
        complete_up_to=moment,
        missing=tuple(stream.missing()),
        repeated=stream.repeated,
        lost=stream.lost.count,
    )


class SourceGauges(Collector):
    """Gauges of every source: how far it is complete, and how many events are missing."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing to check at registration."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Called at every scrape."""
        complete = GaugeMetricFamily(
            "sluice_insight_complete_up_to_seconds",
            "Event time (Unix) up to which no event of this producer is missing.",
            labels=["topic", "producer"],
        )
        missing = GaugeMetricFamily(
            "sluice_insight_missing_events", "Events that have not come though later ones did.", labels=["topic"]
        )
        counts: Counter[str] = Counter()
        for source in self._sources.snapshot():
            complete.add_metric([source.topic, source.producer], source.complete_up_to / 1e6)
            counts[source.topic] += sum(last - first + 1 for first, last in source.missing)
        for topic, count in sorted(counts.items()):
            missing.add_metric([topic], count)
        return [complete, missing]
