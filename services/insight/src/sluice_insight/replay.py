"""Rebuilds the board from the topics and compares it with what the live one answers.

`python -m sluice_insight.replay [--export FILE]`. The report is JSON on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import grpc
from aiokafka import ConsumerRecord, TopicPartition
from google.protobuf.json_format import MessageToDict
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.insight.v1.insight_service_pb2_grpc import InsightServiceStub
from sluice.types.v1.metric_pb2 import MetricPoint
from sluice_kit.channel import connect
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import Unavailable
from sluice_kit.events import UndecodableEvent, decode, topic_of
from sluice_kit.ordered import OrderedReader, Span
from sluice_kit.settings import load, target_of

from sluice_insight.api.metrics import LARGEST_PAGE, MOST_METRICS, OF_REDACTION_POLICIES, InsightService
from sluice_insight.consumer import EVENTS, Feed
from sluice_insight.domain.board import MINUTE, Board
from sluice_insight.domain.catalogue import METRICS
from sluice_insight.domain.costs import Costs
from sluice_insight.domain.watch import Watchers
from sluice_insight.settings import InsightSettings

HOUR = 60 * MINUTE
# The live board drops its oldest windows while it is asked.
EDGE = 10 * MINUTE
ROUNDS = 5
ROUND_SECONDS = 2.0
ANSWER_SECONDS = 30.0
_EXAMPLES = 10

Points = Mapping[tuple[Any, ...], MetricPoint]


class Refused(Exception):
    """It cannot be done; the message says why."""


@dataclass(frozen=True)
class PointDifference:
    """Two boards' answers point by point."""

    same: int = 0
    different: int = 0
    only_live: int = 0
    only_replayed: int = 0
    examples: tuple[str, ...] = ()

    @property
    def is_none(self) -> bool:
        """True when both answer the same."""
        return not (self.different or self.only_live or self.only_replayed)


@dataclass
class Report:
    """What was rebuilt, and how its answers differ from the live ones."""

    into: str
    spans: list[dict[str, Any]] = field(default_factory=list)
    events: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    difference: PointDifference = field(default_factory=PointDifference)
    sums_same: bool | None = None
    sha256: str = ""
    deleted_before: dict[str, int] = field(default_factory=dict)
    kept_as: str = ""

    def as_json(self) -> str:
        """For whoever started this."""
        # asdict makes of a Counter one of pairs.
        told = {"skipped": dict(self.skipped), "same": self.difference.is_none}
        return json.dumps(asdict(self) | told, indent=2)


class Rebuilt:
    """A board that is fed from records in one order, with Kafka's timestamps for a clock."""

    def __init__(self, history: int) -> None:
        self._now = 0.0
        self.board = Board(history=history)
        self._feed = Feed(
            board=self.board, costs=Costs(history=history), watchers=Watchers(limit=1), now=lambda: self._now
        )
        self.events = 0
        self.skipped: Counter[str] = Counter()

    async def take(self, record: ConsumerRecord) -> None:
        """One more record."""
        headers = dict(record.headers)
        try:
            message: Any = decode(record.topic, record.value, headers)
        except UndecodableEvent as error:
            self.skipped[error.reason] += 1
            return
        self.events += 1
        self._now = max(self._now, record.timestamp / 1000)
        event = ConsumedEvent(
            message=message,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key or b"",
            headers=headers,
            event_id=message.metadata.event_id,
            timestamp_ms=record.timestamp,
            value=record.value,
        )
        await self._feed.handle([event])

    @property
    def span(self) -> tuple[int, int]:
        """All of event time that it holds, in microseconds."""
        starts = [part.start for part in self.board.parts()]
        return (min(starts), max(starts) + HOUR) if starts else (0, MINUTE)

    async def points(self, start: int, end: int) -> Points:
        """Its answers to every question, by what they are about."""
        service: Any = InsightService(board=self.board, watchers=Watchers(limit=1))

        async def ask(request: pb.QueryMetricsRequest) -> pb.QueryMetricsResponse:
            answer: pb.QueryMetricsResponse = await service.QueryMetrics(request, None)
            return answer

        return await _answers(ask, start, end)


async def run(settings: InsightSettings, *, export: Path) -> Report:
    """Rebuild until the live board answers the same, or does not after some rounds: it reads on meanwhile."""
    async with connect(target_of(settings, "insight"), settings) as channel:
        stub: Any = InsightServiceStub(channel)
        for last in range(ROUNDS):
            report, rebuilt = await _rebuilt(settings, export)
            await _compare(report, rebuilt, stub, history=settings.history_hours * HOUR)
            if report.difference.is_none or last == ROUNDS - 1:
                return report
            await asyncio.sleep(ROUND_SECONDS)
    raise AssertionError("unreachable")


async def _rebuilt(settings: InsightSettings, export: Path) -> tuple[Report, Rebuilt]:
    rebuilt, report = Rebuilt(settings.history_hours * HOUR), Report(str(export))
    async with OrderedReader.opened(settings) as reader:
        spans = await reader.spans([topic_of(event).name for event in EVENTS])
        async for record in reader.records(spans):
            await rebuilt.take(record)
    report.spans = _told(spans)
    report.events, report.skipped = rebuilt.events, rebuilt.skipped
    report.deleted_before = {
        f"{tp.topic}/{tp.partition}": span.start for tp, span in sorted(spans.items()) if span.start
    }
    with export.open("wb") as file:
        report.sha256 = write_dump((await rebuilt.points(*rebuilt.span)).values(), file)
    return report, rebuilt


def _told(spans: Mapping[TopicPartition, Span]) -> list[dict[str, Any]]:
    return [
        {"topic": tp.topic, "partition": tp.partition, "from": span.start, "until": span.end}
        for tp, span in sorted(spans.items())
    ]


async def _compare(report: Report, rebuilt: Rebuilt, stub: Any, *, history: int) -> None:
    start, end = rebuilt.span
    start = max(start, int(time.time() * 1_000_000) - history + EDGE)
    start -= start % MINUTE
    if start >= end:
        return

    async def ask(request: pb.QueryMetricsRequest) -> pb.QueryMetricsResponse:
        answer: pb.QueryMetricsResponse = await stub.QueryMetrics(request, timeout=ANSWER_SECONDS)
        return answer

    try:
        live = await _answers(ask, start, end)
    except grpc.aio.AioRpcError as error:
        raise Refused(f"The live board does not answer ({error.code().name}): is insight running?") from None
    report.difference = difference(live, await rebuilt.points(start, end))


async def _answers(ask: Any, start: int, end: int) -> Points:
    """Every metric of every series, minute by minute."""
    found: dict[tuple[Any, ...], MetricPoint] = {}
    dimensions = set(pb.Dimension.values()) - {pb.DIMENSION_UNSPECIFIED}
    of_policies = {name for name in METRICS if name.startswith(OF_REDACTION_POLICIES)}
    for names, told_apart in (
        (of_policies, dimensions),
        (METRICS.keys() - of_policies, dimensions - {pb.DIMENSION_REDACTION_POLICY}),
    ):
        asked = sorted(names)
        for first in range(0, len(asked), MOST_METRICS):
            request = pb.QueryMetricsRequest(page_size=LARGEST_PAGE)
            request.query.metrics.extend(asked[first : first + MOST_METRICS])
            request.query.group_by.extend(sorted(told_apart))
            request.start_time.FromMicroseconds(start)
            request.end_time.FromMicroseconds(end)
            await _take_pages(ask, request, found)
    return found


async def _take_pages(ask: Any, request: pb.QueryMetricsRequest, found: dict[tuple[Any, ...], MetricPoint]) -> None:
    while True:
        answer = await ask(request)
        found.update({_about(point): point for point in answer.points})
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def _about(point: MetricPoint) -> tuple[Any, ...]:
    series = point.series.SerializeToString(deterministic=True)
    return point.metric, point.unit, series, point.window.start.ToMicroseconds(), point.window.length.ToMicroseconds()


def difference(live: Points, replayed: Points) -> PointDifference:
    """Point by point."""
    counts = dict.fromkeys(("same", "different", "only_live", "only_replayed"), 0)
    examples: list[str] = []
    for about in sorted(live.keys() | replayed.keys()):
        left, right = live.get(about), replayed.get(about)
        kind = "only_replayed" if left is None else "only_live" if right is None else "different"
        kind = "same" if left == right else kind
        counts[kind] += 1
        if kind != "same" and len(examples) < _EXAMPLES:
            told = [json.dumps(_plain(point)) if point is not None else "nothing" for point in (left, right)]
            examples.append(f"live {told[0]}, replayed {told[1]}")
    return PointDifference(**counts, examples=tuple(examples))


def write_dump(points: Iterable[MetricPoint], file: IO[bytes]) -> str:
    """One JSON line a point, in one order; returns the SHA-256 of what was written."""
    digest = hashlib.sha256()
    for point in sorted(points, key=_about):
        line = json.dumps(_plain(point), sort_keys=True, separators=(",", ":")).encode() + b"\n"
        digest.update(line)
        file.write(line)
    return digest.hexdigest()


def _plain(point: MetricPoint) -> dict[str, Any]:
    return MessageToDict(point, preserving_proto_field_name=True)


def main() -> None:
    """Entry point of `python -m sluice_insight.replay`. Exit code 0 the same, 3 not, 1 cannot be done."""
    parser = argparse.ArgumentParser(prog="sluice_insight.replay")
    parser.add_argument("--into", default="replay")
    parser.add_argument("--from", dest="begin", default="")
    parser.add_argument("--export", type=Path)
    parser.add_argument("--switch", action="store_true")
    parser.add_argument("--accept-differences", action="store_true")
    arguments = parser.parse_args()
    if arguments.switch:
        sys.exit(
            "The board is in memory, and rebuilt from the topics at every start: restart insight, and it is switched."
        )
    if arguments.begin:
        sys.exit("The board is rebuilt as a whole, as insight does it: leave out --from.")
    settings = load(InsightSettings)
    export = arguments.export or settings.home / "insight" / f"board.{arguments.into}.jsonl"
    export.parent.mkdir(parents=True, exist_ok=True)
    try:
        report = asyncio.run(run(settings, export=export))
    except (Refused, Unavailable) as error:
        sys.exit(str(error))
    sys.stdout.write(report.as_json() + "\n")
    sys.exit(0 if report.difference.is_none else 3)


if __name__ == "__main__":
    main()
