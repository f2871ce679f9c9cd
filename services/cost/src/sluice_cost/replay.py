"""Rebuilds the ledger from RequestCompleted into a new database beside the live one, compares both, and switches on demand.

`python -m sluice_cost.replay --into NAME [--from OFFSET|TIME] [--export FILE]`, then `... --into NAME --switch`.
The report is JSON on standard output.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import Unavailable
from sluice_kit.events import UndecodableEvent, decode, topic_of
from sluice_kit.ordered import OrderedReader, Span
from sluice_kit.settings import load

from sluice_cost.adapters import versions
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database, open_database
from sluice_cost.adapters.ledger_dump import (
    Bounds,
    LedgerDifference,
    compare,
    corrections_held,
    heads,
    others_held,
    sums,
    write_dump,
)
from sluice_cost.adapters.price_file import load_price_book
from sluice_cost.adapters.sql_ledger import SqlLedger, read_positions
from sluice_cost.consumer import completion_of
from sluice_cost.domain.ledger import Completion, LedgerUnavailable, Partition
from sluice_cost.domain.price_book import PriceBookMistakes
from sluice_cost.settings import CostSettings

TOPIC = topic_of(RequestCompleted).name
BATCH = 500
_heads = partial(heads, topic=TOPIC)
_others_held = partial(others_held, topic=TOPIC)


@dataclass
class Report:
    """What a replay did, and how its ledger differs from the live one."""

    into: str
    spans: list[dict[str, Any]] = field(default_factory=list)
    events: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    """Records that can never become a row, by reason: the live service gave them up, too."""
    difference: LedgerDifference = field(default_factory=LedgerDifference)
    sums_same: bool | None = None
    """Whether the hourly sums are the same; None where only a part was replayed, or the live one holds what no replay makes."""
    chains_same: bool | None = None
    """Whether the hash chains end alike; None for a part, and where rows are older than the chain."""
    sha256: str = ""
    """Of the canonical dump: the same range and prices give the same."""
    deleted_before: dict[int, int] = field(default_factory=dict)
    """Partition to the first offset that its topic still holds, where retention deleted what was before."""
    kept_as: str = ""
    """Where the former ledger is after a switch."""

    @property
    def is_same(self) -> bool:
        """True when the live ledger could be replaced without anybody noticing."""
        return self.difference.is_none and self.sums_same is not False and self.chains_same is not False

    def as_json(self) -> str:
        """For whoever started this."""
        # asdict makes of a Counter one of pairs.
        told = {"skipped": dict(self.skipped), "same": self.is_same}
        return json.dumps(asdict(self) | told, indent=2)


class Replay:
    """One replay: the live database, the version beside it, and the topic."""

    def __init__(self, settings: CostSettings, *, into: str, currency: str) -> None:
        self._settings, self._into, self._currency = settings, versions.check_name(into), currency

    async def build(self, begin: str, export: Path | None) -> Report:
        """A fresh version from `begin` (offset, time or empty) to where the live ledger stands now."""
        live = await asyncio.to_thread(open_database, self._settings.database)
        target = await asyncio.to_thread(versions.create, self._settings.database, self._into)
        try:
            await _between(live, target, partial(versions.copy_tables, names=versions.KEPT_FOR_PRICING))
            async with OrderedReader.opened(self._settings) as reader:
                held = await reader.spans([TOPIC])
                spans = _until(await _from(reader, held, begin), await live.read(read_positions))
                report = self._report(held, spans)
                await self._enter(reader, target, spans, report)
            await target.write(
                partial(versions.empty, name="cost_outbox")
            )  # the live ledger has told or will tell of them
            await self._compare(live, target, spans, report, export, whole=not begin)
            return report
        finally:
            await live.close()
            await target.close()

    async def switch(self, *, accept_differences: bool = False) -> Report:
        """Bring the version to where the live ledger stopped, and put it in its place if every row is the same.

        Or if differences are accepted: what they change is not told again (a CostRecorded is told once).
        """
        if not versions.exists(self._settings.database, self._into):
            raise versions.Refused(f"There is no replayed ledger {self._into}: replay without --switch first.")
        await asyncio.to_thread(versions.refuse_while_in_use, self._settings.database)
        live = await asyncio.to_thread(open_database, self._settings.database)
        target = await asyncio.to_thread(open_database, versions.url_of(self._settings.database, self._into))
        try:
            await _refuse_what_would_be_lost(live)
            report = await self._catch_up(live, target)
            agreed = report.is_same or accept_differences
            if agreed:
                await _between(live, target, partial(versions.copy_tables, names=versions.carried()))
        finally:
            await live.close()
            await target.close()
        if agreed:
            report.kept_as = await asyncio.to_thread(versions.exchange, self._settings.database, self._into)
        return report

    async def _catch_up(self, live: Database, target: Database) -> Report:
        await _between(live, target, partial(versions.copy_tables, names=versions.KEPT_FOR_PRICING))
        positions, reached = await live.read(read_positions), await target.read(read_positions)
        async with OrderedReader.opened(self._settings) as reader:
            held = await reader.spans([TOPIC])
            spans = {tp: Span(max(span.start, reached.get(_partition(tp), 0)), span.end) for tp, span in held.items()}
            report = self._report(held, _until(held, positions))
            await self._enter(reader, target, _until(spans, positions), report)
        await target.write(partial(versions.empty, name="cost_outbox"))
        everything = {partition: Span(0, offset) for partition, offset in _kafka(positions).items()}
        await self._compare(live, target, everything, report, None, whole=True)
        return report

    def _report(self, held: Mapping[TopicPartition, Span], spans: Mapping[TopicPartition, Span]) -> Report:
        told = [
            {"partition": tp.partition, "from": span.start, "until": span.end} for tp, span in sorted(spans.items())
        ]
        deleted = {tp.partition: span.start for tp, span in held.items() if span.start}
        return Report(self._into, spans=told, deleted_before=deleted)

    async def _enter(
        self, reader: OrderedReader, target: Database, spans: Mapping[TopicPartition, Span], report: Report
    ) -> None:
        ledger = SqlLedger(target, default_currency=self._currency)
        async for records in _batches(reader, spans):
            completions = [found for record in records if (found := _completion(record, report)) is not None]
            report.events += len(completions)
            await _append(ledger, completions, records, report)
        # Where the last records of a partition were none of ours, the next reading still begins behind them.
        ends = {_partition(tp): span.end for tp, span in spans.items() if span.start < span.end}
        await ledger.append([], ends, recorded_at=datetime.fromtimestamp(0, UTC), encode=encode)

    async def _compare(
        self,
        live: Database,
        target: Database,
        spans: Mapping[TopicPartition, Span],
        report: Report,
        export: Path | None,
        *,
        whole: bool,
    ) -> None:
        bounds = {_partition(tp): (span.start, span.end) for tp, span in spans.items()}
        report.difference = await live.read(
            lambda left: target.read_now(lambda right: compare(left, right, bounds))  # both on one view each
        )
        unmade = await live.read(corrections_held) + await live.read(_others_held)
        if whole and not report.deleted_before and not unmade:
            report.sums_same = await live.read(sums) == await target.read(sums)
            report.chains_same = _chains_same(await live.read(_heads), await target.read(_heads))
        report.sha256 = await target.read(partial(_dumped, bounds=bounds, export=export))


def _chains_same(left: Mapping[int, tuple[int, str, int]], right: Mapping[int, tuple[int, str, int]]) -> bool | None:
    return None if any(unsealed for _, _, unsealed in left.values()) else left == right


def _dumped(connection: Any, *, bounds: Bounds, export: Path | None) -> str:
    if export is None:
        with tempfile.TemporaryFile() as nowhere:
            return write_dump(connection, bounds, nowhere)
    with export.open("wb") as file:
        return write_dump(connection, bounds, file)


async def _refuse_what_would_be_lost(live: Database) -> None:
    if held := await live.read(corrections_held):
        raise versions.Refused(
            f"The live ledger holds {held} corrections. They are decisions and not in the topics: a ledger priced anew "
            "would lose them or count them twice. It is not switched."
        )
    if held := await live.read(_others_held):
        raise versions.Refused(
            f"The live ledger holds {held} rows for machine seconds, filters or idle capacity. A replay makes the rows of "
            "requests alone, so a switch would lose them. It is not switched."
        )


async def _between(source: Database, target: Database, work: Any) -> None:
    """Runs `work(source, target)`, each in a transaction of its own."""
    await target.write(lambda to: source.read_now(lambda of: work(of, to)))


async def _append(
    ledger: SqlLedger, completions: Sequence[Completion], records: Sequence[ConsumerRecord], report: Report
) -> None:
    # Kafka's timestamp and no clock of ours: the same records give the same rows.
    recorded_at = datetime.fromtimestamp(max(record.timestamp for record in records) / 1000, UTC)
    offsets: dict[Partition, int] = {}
    for record in records:
        offsets[Partition(record.topic, record.partition)] = record.offset + 1
    enter = partial(ledger.append, recorded_at=recorded_at, encode=encode)
    await _enter_usable(enter, completions, report)
    await enter([], offsets)


async def _enter_usable(enter: Any, completions: Sequence[Completion], report: Report) -> None:
    """Enters what can be entered; what cannot is given up, as the live service does."""
    try:
        await enter(completions, {})
    except ValueError as error:
        if len(completions) == 1:
            report.skipped[type(error).__name__] += 1
            return
        middle = len(completions) // 2
        await _enter_usable(enter, completions[:middle], report)
        await _enter_usable(enter, completions[middle:], report)


def _completion(record: ConsumerRecord, report: Report) -> Completion | None:
    headers = dict(record.headers)
    try:
        message: Any = decode(record.topic, record.value, headers)
        return completion_of(
            ConsumedEvent(
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
        )
    except UndecodableEvent as error:
        report.skipped[error.reason] += 1
    except ValueError as error:
        report.skipped[type(error).__name__] += 1
    return None


async def _batches(
    reader: OrderedReader, spans: Mapping[TopicPartition, Span]
) -> AsyncIterator[Sequence[ConsumerRecord]]:
    """Always the same number of records, so that the same range is written in the same transactions."""
    batch: list[ConsumerRecord] = []
    async for record in reader.records(spans):
        batch.append(record)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


async def _from(
    reader: OrderedReader, held: Mapping[TopicPartition, Span], begin: str
) -> Mapping[TopicPartition, Span]:
    if not begin:
        return held
    if begin.isdecimal():
        return {tp: Span(min(max(span.start, int(begin)), span.end), span.end) for tp, span in held.items()}
    try:
        moment = datetime.fromisoformat(begin)
    except ValueError:
        raise versions.Refused(
            f"--from {begin}: give an offset, or a time such as 2026-11-24T12:00:00+00:00."
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return await reader.offsets_at(held, int(moment.timestamp() * 1000))


def _until(spans: Mapping[TopicPartition, Span], positions: Mapping[Partition, int]) -> dict[TopicPartition, Span]:
    """As far as the live ledger has read: only what both have seen can be compared."""
    ends = {tp: min(span.end, positions.get(_partition(tp), 0)) for tp, span in spans.items()}
    return {tp: Span(min(span.start, ends[tp]), ends[tp]) for tp, span in spans.items()}


def _partition(tp: TopicPartition) -> Partition:
    return Partition(tp.topic, tp.partition)


def _kafka(positions: Mapping[Partition, int]) -> dict[TopicPartition, int]:
    return {
        TopicPartition(place.topic, place.number): offset for place, offset in positions.items() if place.topic == TOPIC
    }


async def run(arguments: argparse.Namespace, settings: CostSettings) -> Report:
    """What the command line asks for."""
    replay = Replay(settings, into=arguments.into, currency=load_price_book(settings.price_book_file).currency)
    if arguments.switch:
        return await replay.switch(accept_differences=arguments.accept_differences)
    return await replay.build(arguments.begin, arguments.export)


def main() -> None:
    """Entry point of `python -m sluice_cost.replay`. Exit code 0 when the ledgers are the same, 3 when not, 1 when it cannot be done."""
    parser = argparse.ArgumentParser(prog="sluice_cost.replay")
    parser.add_argument("--into", default="replay")
    parser.add_argument("--from", dest="begin", default="")
    parser.add_argument("--export", type=Path)
    parser.add_argument("--switch", action="store_true")
    parser.add_argument("--accept-differences", action="store_true")
    arguments = parser.parse_args()
    try:
        report = asyncio.run(run(arguments, load(CostSettings)))
    except (versions.Refused, LedgerUnavailable, PriceBookMistakes, Unavailable) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    print(report.as_json())
    sys.exit(0 if report.is_same or report.kept_as else 3)


if __name__ == "__main__":
    main()
