"""Reads event topics to their ends and finds what is missing and what is there twice."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from sluice_kit.completeness import Completeness, Head, Range, Sighting, StreamReport, sighting
from sluice_kit.events import TopicSpec, UndecodableEvent, decode
from sluice_kit.ordered import OrderedReader, Span

from sluice_cli.proof.copies import Copies, CopyCounts
from sluice_cli.proof.findings import StreamFinding, TopicFinding
from sluice_cli.proof.losses import Told, told_losses
from sluice_cli.proof.outboxes import Kept

SETTLE_POLL_SECONDS = 0.25
PLACES = 5
"""Undecodable records whose place is told, by reason."""


@dataclass
class _Undecodable:
    counts: Counter[str] = field(default_factory=Counter)
    places: defaultdict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def note(self, record: ConsumerRecord, reason: str) -> None:
        self.counts[reason] += 1
        if len(self.places[reason]) < PLACES:
            self.places[reason].append((record.partition, record.offset))


class TopicExamination:
    """What is found in one topic while its records go by."""

    def __init__(self, spec: TopicSpec, heads: Mapping[tuple[str, int], Head], copies: Copies) -> None:
        self._spec, self._heads, self._copies = spec, heads, copies
        compacted = frozenset({spec.name}) if spec.compacted else frozenset[str]()
        self._completeness = Completeness(heads, compacted=compacted)
        self._undecodable = _Undecodable()
        self._streams: dict[str, int] = {}
        self._unnumbered = self._records = 0

    def take(self, record: ConsumerRecord) -> bool:
        """One record; True when it is an event whose number was not seen before."""
        self._records += 1
        try:
            seen, event_id = _read(record)
        except UndecodableEvent as error:
            self._undecodable.note(record, error.reason)
            return False
        if seen is None:
            self._unnumbered += 1
            return False
        self._streams.setdefault(seen.producer, len(self._streams))
        return self._see(seen, event_id)

    def take_late(self, record: ConsumerRecord) -> bool:
        """A record behind the end: counts only when it fills a hole."""
        try:
            seen, event_id = _read(record)
        except UndecodableEvent:
            return False
        if seen is None or not self._completeness.lacks(seen):
            return False
        return self._see(seen, event_id)

    def _see(self, seen: Sighting, event_id: str) -> bool:
        self._copies.add(self._streams[seen.producer], seen.sequence, event_id)
        return self._completeness.see(seen)

    @property
    def has_holes(self) -> bool:
        """Whether waiting for what is on its way could change the result."""
        return any(report.gaps for report in self._completeness.streams())

    def finding(
        self, spans: Mapping[TopicPartition, Span], kept: Mapping[tuple[str, str], Kept], told: Told
    ) -> TopicFinding:
        """The result. `kept`: what the outboxes of this machine hold, `told`: what producers gave up; by topic and producer."""
        counts = self._copies.counts()
        streams = tuple(
            _stream(report, counts, self._streams[report.producer], kept, told)
            for report in self._completeness.streams()
        )
        removed = sum(span.end for span in spans.values()) - self._records
        explained = _size(r for s in streams for part in (s.waiting, s.refused, s.given_up) for r in part)
        proved = _size(gap for stream in streams for gap in stream.gaps)
        missing = self._completeness.missing()[self._spec.name] - explained
        return TopicFinding(
            topic=self._spec.name,
            records=self._records,
            streams=streams,
            deleted_heads=tuple(
                (p, head.start_offset) for (_, p), head in sorted(self._heads.items()) if head.start_offset
            ),
            compacted=self._spec.compacted,
            removed=removed,
            lost_at_least=max(0, missing - proved - max(0, removed)),
            undecodable=tuple(
                (r, n, tuple(self._undecodable.places[r])) for r, n in sorted(self._undecodable.counts.items())
            ),
            unnumbered=self._unnumbered,
        )


def _read(record: ConsumerRecord) -> tuple[Sighting | None, str]:
    """The sighting (None without a number) and the id of an event. Raises UndecodableEvent."""
    headers = dict(record.headers)
    message: Any = decode(record.topic, record.value, headers)
    seen = sighting(record.topic, record.partition, message.metadata, headers=headers, written_ms=record.timestamp)
    return seen, message.metadata.event_id


def _size(found: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in found)


def _stream(
    report: StreamReport, counts: CopyCounts, index: int, kept: Mapping[tuple[str, str], Kept], told: Told
) -> StreamFinding:
    place = report.topic, report.producer
    here = kept.get(place, Kept())
    sent_again = counts.same_event[index] - report.replayed
    gaps, waiting = _split(report.gaps, here.waiting)
    gaps, given_up = _split(gaps, told.get(place, ()))
    gaps, refused = _split(gaps, here.refused)
    return StreamFinding(
        report=report,
        gaps=gaps,
        waiting=waiting,
        refused=refused,
        given_up=given_up,
        sent_again=sent_again,
        published_again=counts.other_number[index] + counts.other_stream[index],
        number_twice=report.repeated - sent_again,
    )


def _split(missing: Sequence[Range], known: Sequence[Range]) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """The missing ranges without what is known, and what is. `known` in order; ranges may touch and overlap."""
    left: list[Range] = []
    found: list[Range] = []
    for first, last in missing:
        start = first
        for begin, end in known:
            begin, end = max(begin, start), min(end, last)
            if begin > end:
                continue
            if start < begin:
                left.append((start, begin - 1))
            found.append((begin, end))
            start = end + 1
        if start <= last:
            left.append((start, last))
    return tuple(left), tuple(found)


async def examine(
    reader: OrderedReader,
    spec: TopicSpec,
    spans: Mapping[TopicPartition, Span],
    *,
    settle_seconds: float,
    kept: Mapping[tuple[str, str], Kept],
) -> tuple[TopicFinding, int]:
    """One topic up to the ends in `spans`, and how many events were on their way when those were taken.

    Where something is missing, the topic is read on for `settle_seconds`: a producer writes to several partitions at once, and
    the ends are not taken at one instant.
    """
    heads = await _heads(reader, spec, spans)
    with Copies() as copies:
        examination = TopicExamination(spec, heads, copies)
        async for record in reader.records(spans):
            examination.take(record)
        late = await _settle(reader, spec, spans, examination, settle_seconds)
        told = await told_losses(reader) if examination.has_holes else {}
        return examination.finding(spans, kept, told), late


async def _settle(
    reader: OrderedReader,
    spec: TopicSpec,
    spans: Mapping[TopicPartition, Span],
    examination: TopicExamination,
    seconds: float,
) -> int:
    deadline, late, reached = time.monotonic() + seconds, 0, dict(spans)
    while examination.has_holes and time.monotonic() < deadline:
        now = await reader.spans([spec.name])
        fresh = {p: Span(reached[p].end, span.end) for p, span in now.items() if p in reached}
        async for record in reader.records(fresh):
            late += examination.take_late(record)
        reached = fresh or reached
        await asyncio.sleep(SETTLE_POLL_SECONDS)
    return late


async def _heads(
    reader: OrderedReader, spec: TopicSpec, spans: Mapping[TopicPartition, Span]
) -> dict[tuple[str, int], Head]:
    cut = {partition: span for partition, span in spans.items() if span.start > 0}
    firsts = await reader.first_timestamps(cut)
    # A partition that is empty now: nothing tells how new the newest of what was there has been.
    emptied = int(time.time() * 1000)
    return {
        (partition.topic, partition.partition): Head(span.start, firsts.get(partition, emptied))
        for partition, span in cut.items()
    }
