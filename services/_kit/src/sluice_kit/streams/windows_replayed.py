"""Counts the windows of a stream processor again from the topics, compares them with those that were published, and corrects
on demand those that the processor itself can no longer restate.

A service's room `replay` says what is its own (`WindowReplay`) and calls `command`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import structlog
from aiokafka import ConsumerRecord, TopicPartition
from google.protobuf.message import Message

from sluice_kit.errors import Unavailable
from sluice_kit.events import UndecodableEvent, decode, topic_of
from sluice_kit.ordered import OrderedReader, Span
from sluice_kit.publisher import EventPublisher
from sluice_kit.settings import MeshSettings
from sluice_kit.streams import windows_compared
from sluice_kit.streams.records import Records
from sluice_kit.streams.windows_compared import Horizons, Same, Window, WindowDifference, Windows, write_dump

# No window is forgotten while it is counted again: a replay reads days in minutes, and nothing is late.
FOR_EVER = 2**61
_DRAIN_SECONDS = 60.0
_POLL_SECONDS = 0.05

Spans = Mapping[TopicPartition, Span]
Stored = Mapping[str, Any]
"""What the processor remembers: the records of its changelog, by key."""


class Refused(Exception):
    """It cannot be done; the message says why."""


class Recount(Protocol):
    """Windows that are counted from records in one order."""

    newest_us: int
    events: int
    skipped: Counter[str]

    def take(self, record: ConsumerRecord) -> None:
        """One more record. Kafka's timestamp is the clock."""

    def windows(self) -> dict[str, Any]:
        """All windows, by part key."""

    def untold(self, live: Windows) -> set[str]:
        """Keys of windows that cannot be told from a range that begins behind the first record."""

    def unlike(self) -> list[str]:
        """What else the processor remembers that is not what a whole range says."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a recount begins with."""

    stored: Stored
    partitions: Mapping[str, int]
    """Of the topics in `counted_as`."""
    is_partial: bool
    """True when the range begins behind the first record."""


@dataclass(frozen=True, kw_only=True)
class WindowReplay:
    """What is a service's own."""

    service: str
    settings: MeshSettings
    group: str
    folder: Path
    sources: Sequence[str]
    """Topics that are counted."""
    measured: type[Message]
    """The event that publishes a window."""
    table: str
    """Name of the Faust table, of which the changelog is called."""
    records: Records[Any]
    forgotten_before: Callable[[Stored], Mapping[int, int]]
    """By partition: windows that end at or before this moment are never restated by the processor."""
    slack_us: int
    """So long after its end a window may not be published as it is."""
    recount: Callable[[Start], Recount]
    counted_as: Sequence[str] = ()
    """Topics of which the number of partitions must be known."""
    alike: Same = windows_compared.same


@dataclass
class Report:
    """What was counted again, and how it differs."""

    into: str
    spans: list[dict[str, Any]] = field(default_factory=list)
    events: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    difference: WindowDifference = field(default_factory=WindowDifference)
    sums_same: bool | None = None
    sha256: str = ""
    deleted_before: dict[str, int] = field(default_factory=dict)
    unlike: tuple[str, ...] = ()
    """What the processor remembers besides windows and the topics do not say."""
    corrected: int = 0
    """Windows published again, as they were counted here."""
    held: int = 0
    """Windows that differ and were left alone, because the processor still restates them."""
    kept_as: str = ""

    @property
    def is_same(self) -> bool:
        """True when what is known of the windows is what the topics say."""
        return self.difference.is_none and not self.unlike

    def as_json(self) -> str:
        """For whoever started this."""
        # asdict makes of a Counter one of pairs.
        told = {"skipped": dict(self.skipped), "same": self.is_same}
        return json.dumps(asdict(self) | told, indent=2)


@dataclass(frozen=True)
class Counted:
    """Both sets of windows, and how they compare."""

    report: Report
    live: Windows
    replayed: Windows
    kinds: Mapping[str, str]
    stored: Stored


async def count(replay: WindowReplay, *, begin: str, export: Path) -> Counted:
    """Count again what the topics hold from `begin` on, into a file, and compare."""
    async with OrderedReader.opened(replay.settings) as reader:
        stored = await _stored(reader, replay)
        partitions = Counter(tp.topic for tp in await reader.spans(replay.counted_as))
        held = await reader.spans(replay.sources)
        spans = await _from(reader, held, begin)
        is_partial = any(span.start for span in spans.values())
        recount = replay.recount(Start(stored, partitions, is_partial))
        first_us: dict[TopicPartition, int] = {}
        async for record in reader.records(spans):
            first_us.setdefault(TopicPartition(record.topic, record.partition), record.timestamp * 1000)
            recount.take(record)
        live = await _live(reader, replay.measured)
    replayed = recount.windows()
    horizons = _horizons(recount, spans, first_us, live, slack_us=replay.slack_us)
    kinds = windows_compared.kinds(live, replayed, horizons, alike=replay.alike)
    with export.open("wb") as file:
        digest = write_dump(replayed, file)
    report = Report(
        into=str(export),
        spans=[
            {"topic": tp.topic, "partition": tp.partition, "from": span.start, "until": span.end}
            for tp, span in sorted(spans.items())
        ],
        events=recount.events,
        skipped=recount.skipped,
        difference=windows_compared.difference(live, replayed, kinds),
        unlike=() if is_partial else tuple(recount.unlike()),
        sha256=digest,
        deleted_before={f"{tp.topic}/{tp.partition}": span.start for tp, span in sorted(held.items()) if span.start},
    )
    return Counted(report, live, replayed, kinds, stored)


def _horizons(
    recount: Recount, spans: Spans, first_us: Mapping[TopicPartition, int], live: Windows, *, slack_us: int
) -> Horizons:
    cut = [first_us.get(tp, recount.newest_us) for tp, span in spans.items() if span.start > 0]
    return Horizons(
        ends={(tp.topic, tp.partition): span.end for tp, span in spans.items()},
        whole_from_us=max(cut, default=0),
        open_from_us=recount.newest_us - slack_us,
        untold=recount.untold(live) if cut else frozenset(),
    )


def corrections(
    counted: Counted, *, forgotten_before: Mapping[int, int], alike: Same = windows_compared.same
) -> tuple[list[Window], int]:
    """Windows to publish, and how many differ but are still the processor's to restate.

    Only what the processor has forgotten is corrected: it drops facts for such a window as too late, so nothing can
    contradict the revision that is published here.
    """
    events, held = [], 0
    for key, kind in counted.kinds.items():
        if kind not in (windows_compared.DIFFERENT, windows_compared.ONLY_LIVE, windows_compared.ONLY_REPLAYED):
            continue
        live, replayed = counted.live.get(key), counted.replayed.get(key)
        either: Window = live if live is not None else replayed
        forgotten = forgotten_before.get(either.part.source_partition, 0)
        if key in counted.stored or windows_compared.end_of(either) > forgotten:
            held += 1
        else:
            events.append(_corrected(live, replayed))
    return events, held


def _corrected(live: Window | None, replayed: Window | None) -> Window:
    """One of both is there."""
    found: Window = replayed if replayed is not None else live
    event = windows_compared.content(found) if replayed is not None else windows_compared.withdrawn(found)
    event.metadata.tenant_id = event.series.tenant_id
    if live is not None:
        event.part.revision = max(event.part.revision, live.part.revision + 1)
    event.part.closed = True
    return event


async def run(replay: WindowReplay, *, begin: str, export: Path, switch: bool, accept: bool) -> Report:
    """What the command line asks for."""
    if not switch:
        return (await count(replay, begin=begin, export=export)).report
    # Its own producer: the processor has the other outbox open. What an earlier run left there goes out first.
    publisher = EventPublisher(
        producer=f"sluice-{replay.service}/replay",
        settings=replay.settings,
        outbox_path=replay.folder / "outbox-replay.db",
    )
    await publisher.start()
    try:
        await _drained(publisher)
        counted = await count(replay, begin=begin, export=export)
        if accept:
            await _correct(publisher, counted, replay)
        return counted.report
    finally:
        await publisher.stop()


async def _correct(publisher: EventPublisher, counted: Counted, replay: WindowReplay) -> None:
    report = counted.report
    events, report.held = corrections(counted, forgotten_before=replay.forgotten_before(counted.stored))
    for event in events:
        await publisher.publish(event)
    await _drained(publisher)
    report.corrected = len(events)
    if events and not report.held:
        report.kept_as = f"their earlier revisions, on {topic_of(replay.measured).name} until it is compacted"


async def _drained(publisher: EventPublisher) -> None:
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            while publisher.depth:
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise Refused(
            f"Kafka took {publisher.depth} corrected windows not yet: they wait in the outbox. Run it again."
        ) from None


async def _stored(reader: OrderedReader, replay: WindowReplay) -> Stored:
    """What the processor would take up at its next start."""
    kept: dict[str, bytes] = {}
    async for record in reader.records(await reader.spans([f"{replay.group}-{replay.table}-changelog"])):
        if record.value is None:
            kept.pop(record.key.decode(), None)
        else:
            kept[record.key.decode()] = record.value
    return {key: replay.records.decode(key.encode(), value) for key, value in kept.items()}


async def _live(reader: OrderedReader, measured: type[Message]) -> Windows:
    """The truth of the topic as it is now."""
    events = []
    async for record in reader.records(await reader.spans([topic_of(measured).name])):
        try:
            events.append(decode(record.topic, record.value, dict(record.headers)))
        except UndecodableEvent:
            continue  # `sluice events verify` tells of it
    return windows_compared.newest(event for event in events if isinstance(event, measured))


async def _from(reader: OrderedReader, held: Spans, begin: str) -> Spans:
    if not begin:
        return held
    try:
        moment = datetime.fromisoformat(begin)
    except ValueError:
        raise Refused(f"--from {begin}: windows begin at a time, such as 2026-11-24T12:00:00+00:00.") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return await reader.offsets_at(held, int(moment.timestamp() * 1000))


def command(made: Callable[[], WindowReplay]) -> None:
    """The command line of a replay of windows. Exit code 0 the same or corrected, 3 not, 1 cannot be done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--into", default="replay")
    parser.add_argument("--from", dest="begin", default="")
    parser.add_argument("--export", type=Path)
    parser.add_argument("--switch", action="store_true")
    parser.add_argument("--accept-differences", dest="accept", action="store_true")
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is the report's
    replay = made()
    replay.folder.mkdir(parents=True, exist_ok=True)
    export = arguments.export or replay.folder / f"windows.{arguments.into}.jsonl"
    try:
        report = asyncio.run(
            run(replay, begin=arguments.begin, export=export, switch=arguments.switch, accept=arguments.accept)
        )
    except (Refused, Unavailable) as error:
        sys.exit(str(error))
    sys.stdout.write(report.as_json() + "\n")
    sys.exit(0 if report.is_same or report.kept_as else 3)
