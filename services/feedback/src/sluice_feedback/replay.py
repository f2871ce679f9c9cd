"""Rebuilds feedback and its register from the topics into a new database beside the live one, compares both, and switches.

`python -m sluice_feedback.replay --into NAME [--export FILE]`, then `... --into NAME --switch`. The report is JSON on standard
output.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from aiokafka import ConsumerRecord, TopicPartition
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.privacy_pb2 import SubjectErased
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import Unavailable
from sluice_kit.events import UndecodableEvent, decode, topic_of
from sluice_kit.ordered import OrderedReader, Span
from sluice_kit.settings import load
from sqlalchemy import Connection

from sluice_feedback.adapters import versions
from sluice_feedback.adapters.database import Database, open_database
from sluice_feedback.adapters.feedback_events import encode, feedback_of
from sluice_feedback.adapters.register_dump import RegisterDifference, compare, write_dump
from sluice_feedback.adapters.sql_replay import ReplayedFeedback, carry_over, positions, take_over_erasures
from sluice_feedback.consumer import erasure_of, known_request
from sluice_feedback.domain.feedback import StoreUnavailable
from sluice_feedback.domain.known_requests import Partition
from sluice_feedback.settings import FeedbackSettings

TOLD = topic_of(FeedbackReceived).name
LEARNT = (topic_of(RequestCompleted).name, topic_of(SubjectErased).name)
BATCH = 500
# An event leaves the service within a second of its row where Kafka is there.
_ON_ITS_WAY_US = 10_000_000
_ROUNDS = 5

Spans = Mapping[TopicPartition, Span]


@dataclass
class Report:
    """What a replay did, and how its database differs from the live one."""

    into: str
    spans: list[dict[str, Any]] = field(default_factory=list)
    events: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    difference: RegisterDifference = field(default_factory=RegisterDifference)
    sums_same: bool | None = None
    sha256: str = ""
    deleted_before: dict[str, int] = field(default_factory=dict)
    kept_as: str = ""

    @property
    def is_same(self) -> bool:
        """True when the live database could be replaced without anybody noticing."""
        return self.difference.is_none

    def as_json(self) -> str:
        """For whoever started this."""
        # asdict makes of a Counter one of pairs.
        told = {"skipped": dict(self.skipped), "same": self.is_same}
        return json.dumps(asdict(self) | told, indent=2)


class Replay:
    """One replay: the live database, the version beside it, and the topics."""

    def __init__(self, settings: FeedbackSettings, *, into: str) -> None:
        self._settings, self._into = settings, versions.check_name(into)

    async def build(self, export: Path | None) -> Report:
        """A fresh version of everything the topics hold, to where the live register stands."""
        live = await asyncio.to_thread(open_database, self._settings.database)
        target = await asyncio.to_thread(versions.create, self._settings.database, self._into)
        try:
            await target.write(lambda to: live.read_now(lambda of: take_over_erasures(of, to)))
            return await self._follow(live, target, export)
        finally:
            await live.close()
            await target.close()

    async def switch(self, *, accept_differences: bool = False) -> Report:
        """Bring the version to where the live one stopped, and put it in its place if every row is the same, or differences are
        accepted. What the topics do not hold is carried over in any case."""
        if not versions.exists(self._settings.database, self._into):
            raise versions.Refused(f"There is no replayed version {self._into}: replay without --switch first.")
        await asyncio.to_thread(versions.refuse_while_in_use, self._settings.database)
        live = await asyncio.to_thread(open_database, self._settings.database)
        target = await asyncio.to_thread(open_database, versions.url_of(self._settings.database, self._into))
        try:
            await target.write(lambda to: live.read_now(lambda of: take_over_erasures(of, to)))
            report = await self._follow(live, target, None)
            agreed = report.is_same or accept_differences
            if agreed:
                await target.write(lambda to: live.read_now(lambda of: carry_over(of, to)))
                await target.scrub()
        finally:
            await live.close()
            await target.close()
        if agreed:
            report.kept_as = await asyncio.to_thread(versions.exchange, self._settings.database, self._into)
        return report

    async def _follow(self, live: Database, target: Database, export: Path | None) -> Report:
        """Read on until the live register has not moved meanwhile: only what both have read can be compared."""
        rebuilt, report = ReplayedFeedback(target, encode=encode), Report(self._into)
        async with OrderedReader.opened(self._settings) as reader:
            for _ in range(_ROUNDS):
                began_us = time.time_ns() // 1000
                reached = await live.read(positions)
                await self._enter(reader, rebuilt, reached, report)
                await rebuilt.forget_outbox()
                found, stood = await live.read(
                    partial(_compared, target=target, told_before_us=began_us - _ON_ITS_WAY_US)
                )
                if stood == reached:
                    report.difference = found
                    report.sha256 = await target.read(lambda connection: _dumped(connection, export))
                    return report
        raise versions.Refused(
            "The live register moves on too fast to be compared: stop the feedback service, or wait."
        )

    async def _enter(
        self, reader: OrderedReader, rebuilt: ReplayedFeedback, reached: Mapping[Partition, int], report: Report
    ) -> None:
        held = await reader.spans([TOLD, *LEARNT])
        done = await rebuilt.positions()
        spans = {tp: _to_read(tp, span, reached, done) for tp, span in held.items()}
        report.spans += [
            {"topic": tp.topic, "partition": tp.partition, "from": span.start, "until": span.end}
            for tp, span in sorted(spans.items())
            if span.start < span.end
        ]
        report.deleted_before = {f"{tp.topic}/{tp.partition}": span.start for tp, span in held.items() if span.start}
        batch: list[ConsumerRecord] = []
        async for record in reader.records(spans):
            # What is told and what is learnt keep their order: each batch is of one sort.
            if batch and (len(batch) == BATCH or (record.topic == TOLD) != (batch[0].topic == TOLD)):
                await _enter_batch(rebuilt, batch, report)
                batch = []
            batch.append(record)
        if batch:
            await _enter_batch(rebuilt, batch, report)
        ends = {Partition(tp.topic, tp.partition): span.end for tp, span in spans.items() if span.start < span.end}
        await rebuilt.register.learn([], ends, at=datetime.fromtimestamp(0, UTC))


def _compared(
    live: Connection, *, target: Database, told_before_us: int
) -> tuple[RegisterDifference, dict[Partition, int]]:
    """And where the live register stood at the moment of the comparison."""
    found = target.read_now(lambda right: compare(live, right, told_before_us=told_before_us))
    return found, positions(live)


def _to_read(tp: TopicPartition, span: Span, reached: Mapping[Partition, int], done: Mapping[Partition, int]) -> Span:
    place = Partition(tp.topic, tp.partition)
    end = span.end if tp.topic == TOLD else min(span.end, reached.get(place, 0))
    return Span(min(max(span.start, done.get(place, 0)), end), end)


async def _enter_batch(rebuilt: ReplayedFeedback, batch: Sequence[ConsumerRecord], report: Report) -> None:
    events = [event for record in batch if (event := _event(record, report)) is not None]
    report.events += len(events)
    # Kafka's timestamp and no clock of ours: the same records give the same rows.
    at = datetime.fromtimestamp(max(record.timestamp for record in batch) / 1000, UTC)
    if batch[0].topic == TOLD:
        told = []
        for event in events:
            try:
                told.append(feedback_of(cast(FeedbackReceived, event.message)))
            except KeyError:
                report.skipped["kind of a later version"] += 1
        await rebuilt.enter(told, at=at)
        return
    requests = [found for event in events if (found := known_request(event)) is not None]
    erasures = [erasure for event in events if (erasure := erasure_of(event)) is not None]
    await rebuilt.register.learn(requests, {}, at=at, erasures=erasures)


def _event(record: ConsumerRecord, report: Report) -> ConsumedEvent | None:
    headers = dict(record.headers)
    try:
        message: Any = decode(record.topic, record.value, headers)
    except UndecodableEvent as error:
        report.skipped[error.reason] += 1
        return None
    return ConsumedEvent(
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


def _dumped(connection: Any, export: Path | None) -> str:
    with export.open("wb") if export is not None else tempfile.TemporaryFile() as file:
        return write_dump(connection, file)


async def run(arguments: argparse.Namespace, settings: FeedbackSettings) -> Report:
    """What the command line asks for."""
    if arguments.begin:
        raise versions.Refused(
            "Feedback is replayed as a whole: what was said is judged by requests and erasures of any time before. Leave out --from."
        )
    replay = Replay(settings, into=arguments.into)
    if arguments.switch:
        return await replay.switch(accept_differences=arguments.accept_differences)
    return await replay.build(arguments.export)


def main() -> None:
    """Entry point of `python -m sluice_feedback.replay`. Exit code 0 the same or switched, 3 not, 1 cannot be done."""
    parser = argparse.ArgumentParser(prog="sluice_feedback.replay")
    parser.add_argument("--into", default="replay")
    parser.add_argument("--from", dest="begin", default="")
    parser.add_argument("--export", type=Path)
    parser.add_argument("--switch", action="store_true")
    parser.add_argument("--accept-differences", action="store_true")
    arguments = parser.parse_args()
    try:
        report = asyncio.run(run(arguments, load(FeedbackSettings)))
    except (versions.Refused, StoreUnavailable, Unavailable) as error:
        sys.exit(str(error))
    sys.stdout.write(report.as_json() + "\n")
    sys.exit(0 if report.is_same or report.kept_as else 3)


if __name__ == "__main__":
    main()
