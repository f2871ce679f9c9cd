"""Counts the quality windows again from their events, and compares them with those that were published.

`python -m sluice_quality.replay [--from OFFSET|TIME] [--into NAME] [--export FILE]`. The report is JSON on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice_kit.errors import Unavailable
from sluice_kit.events import UndecodableEvent, decode, topic_of
from sluice_kit.ordered import OrderedReader, Span
from sluice_kit.settings import load

from sluice_quality.adapters.events import fact_of, measured
from sluice_quality.adapters.windows_compared import WindowDifference, compare, newest, write_dump
from sluice_quality.domain.partition import Part, Partition, Rules
from sluice_quality.settings import QualitySettings

SOURCES = tuple(topic_of(event).name for event in (RequestCompleted, ContentModerated, FeedbackReceived))
MEASURED = topic_of(QualityMeasured).name
# No window is forgotten while it is counted again: a replay reads days in minutes, and nothing is late.
FOR_EVER = 2**61


class Refused(Exception):
    """It cannot be done; the message says why."""


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
    kept_as: str = ""

    def as_json(self) -> str:
        """For whoever started this."""
        return json.dumps(asdict(self) | {"same": self.difference.is_none}, indent=2)


class Recount:
    """The windows of all partitions, counted from records in one order."""

    def __init__(self, rules: Rules) -> None:
        self._rules = replace(rules, retention=FOR_EVER)
        self._partitions: dict[int, Partition] = {}
        self.newest_us = 0
        self.skipped: Counter[str] = Counter()
        self.events = 0

    def take(self, record: ConsumerRecord) -> None:
        """One more record. Kafka's timestamp is the clock."""
        now = record.timestamp * 1000
        partition = self._partitions.get(record.partition)
        if partition is None:
            partition = self._partitions[record.partition] = Partition(record.partition, self._rules, now=now)
        try:
            fact = fact_of(
                decode(record.topic, record.value, dict(record.headers)), offset=record.offset, record_time=now
            )
        except UndecodableEvent as error:
            self.skipped[error.reason] += 1
            return
        self.events += 1
        self.newest_us = max(self.newest_us, now)
        if fact is not None:
            partition.absorb(record.topic, [fact], now=now, through=record.offset)

    def windows(self) -> dict[str, QualityMeasured]:
        """All windows, by part key."""
        states = (state for partition in self._partitions.values() for state in partition.windows)
        return {state.key: measured(Part(state, state.revision, False, 0)) for state in states if state.revision}


async def run(settings: QualitySettings, *, into: str, begin: str, export: Path) -> Report:
    """Count again what the topics hold from `begin` on, into a file, and compare."""
    rules = settings.rules()
    async with OrderedReader.opened(settings) as reader:
        held = await reader.spans(SOURCES)
        spans = await _from(reader, held, begin)
        recount = Recount(rules)
        first_us: dict[TopicPartition, int] = {}
        async for record in reader.records(spans):
            first_us.setdefault(TopicPartition(record.topic, record.partition), record.timestamp * 1000)
            recount.take(record)
        live = await _live(reader)
    windows = recount.windows()
    cut = [first_us.get(tp, recount.newest_us) for tp, span in spans.items() if span.start > 0]
    with export.open("wb") as file:
        digest = write_dump(windows, file)
    return Report(
        into=str(export),
        spans=[
            {"topic": tp.topic, "partition": tp.partition, "from": span.start, "until": span.end}
            for tp, span in sorted(spans.items())
        ],
        events=recount.events,
        skipped=recount.skipped,
        difference=compare(
            live,
            windows,
            ends={(tp.topic, tp.partition): span.end for tp, span in spans.items()},
            whole_from_us=max(cut, default=0),
            open_from_us=recount.newest_us - rules.lateness - rules.idle_after,
        ),
        sha256=digest,
        deleted_before={f"{tp.topic}/{tp.partition}": span.start for tp, span in sorted(held.items()) if span.start},
    )


async def _live(reader: OrderedReader) -> Mapping[str, QualityMeasured]:
    """The truth of the topic as it is now."""
    events = []
    async for record in reader.records(await reader.spans([MEASURED])):
        try:
            events.append(decode(record.topic, record.value, dict(record.headers)))
        except UndecodableEvent:
            continue  # `sluice events verify` tells of it
    return newest(event for event in events if isinstance(event, QualityMeasured))


async def _from(
    reader: OrderedReader, held: Mapping[TopicPartition, Span], begin: str
) -> Mapping[TopicPartition, Span]:
    if not begin:
        return held
    try:
        moment = datetime.fromisoformat(begin)
    except ValueError:
        raise Refused(
            f"--from {begin}: windows of three topics begin at a time, such as 2026-11-24T12:00:00+00:00."
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return await reader.offsets_at(held, int(moment.timestamp() * 1000))


def main() -> None:
    """Entry point of `python -m sluice_quality.replay`. Exit code 0 the same, 3 not, 1 cannot be done."""
    parser = argparse.ArgumentParser(prog="sluice_quality.replay")
    parser.add_argument("--into", default="replay")
    parser.add_argument("--from", dest="begin", default="")
    parser.add_argument("--export", type=Path)
    arguments = parser.parse_args()
    settings = load(QualitySettings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    export = arguments.export or settings.data_dir / f"windows.{arguments.into}.jsonl"
    try:
        report = asyncio.run(run(settings, into=arguments.into, begin=arguments.begin, export=export))
    except (Refused, Unavailable) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    print(report.as_json())
    sys.exit(0 if report.difference.is_none else 3)


if __name__ == "__main__":
    main()
