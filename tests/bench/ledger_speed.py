"""Ledger rows per second: from the bytes of RequestCompleted to committed rows, seals, sums, outbox and offsets.

    .venv/bin/python tests/bench/ledger_speed.py [--events 20000] [--runs 3] [--batch 500] [--postgres-url postgresql://...]
                                                 [--grow 10000,100000,1000000]

SQLite is measured with the settings the service uses (WAL, synchronous FULL). PostgreSQL is measured where a URL is
given; its database must be empty or a former run's. Runs are interleaved; the median is told, with all runs beside it,
and the rows per second of this process's own processor time, which a busy machine does not change much.
Beside it stands the bare driver in the same run: the same rows into a table of the same columns and indexes, in
transactions of the same size, and nothing else. No broker takes part: this is what one process adds behind it.
With --grow the ledger is filled to each size first (rows of their own chain, by the database itself) and then measured.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sluice.events.v1 import gateway_pb2
from sluice_cost.adapters import tables
from sluice_cost.adapters.bulk import insert_all
from sluice_cost.adapters.cost_events import encode as encode_cost
from sluice_cost.adapters.database import Database, open_database
from sluice_cost.adapters.price_file import load_price_book
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.consumer import CompletionConsumer
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.events import decode, encode
from sqlalchemy import Connection, func, select, text

TENANTS, KEYS = 50, 4


def make_records(count: int) -> list[tuple[str, bytes, list[tuple[str, bytes]]]]:
    """Kafka records of `count` requests of 50 tenants."""
    run = uuid.uuid4().hex[:8]
    records = []
    for number in range(count):
        event = gateway_pb2.RequestCompleted(
            outcome=gateway_pb2.REQUEST_OUTCOME_COMPLETED,
            operation=gateway_pb2.REQUEST_OPERATION_CHAT,
            model="sluice-small",
            served_model="smollm2-135m-instruct",
            route="sluice-small/smollm2-135m-instruct",
            api_key_id=f"key-{number % (TENANTS * KEYS)}",
        )
        event.metadata.event_id = f"{run}-{number:026d}"
        event.metadata.request_id = f"{run}{number:024d}"
        event.metadata.tenant_id = f"tenant-{number % TENANTS}"
        event.metadata.occurred_at.GetCurrentTime()
        event.usage.uncached_input_tokens = 100 + number % 900
        event.usage.output_tokens = number % 300
        record = encode(event)
        records.append((record.topic, record.value, record.headers))
    return records


async def measure(url: str, *, events: int, batch: int) -> tuple[float, float]:
    """Rows per second, and rows per second of processor time of this process, of one run."""
    database = open_database(url)
    book = load_price_book(None)
    now = datetime.now(UTC)
    await SqlPrices(database, default_currency=book.currency).load(book, recorded_at=now)
    ledger = SqlLedger(database, default_currency=book.currency)
    consumer = CompletionConsumer(
        ledger,
        encode=encode_cost,
        on_appended=lambda: None,
        report_health=lambda _check, _serving: None,
        clock=lambda: datetime.now(UTC),
    )
    records = make_records(events)
    begun, begun_cpu = time.perf_counter(), time.process_time()
    for start in range(0, events, batch):
        await consumer.handle([consumed(record, start + i) for i, record in enumerate(records[start : start + batch])])
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
    await database.close()
    return events / seconds, events / cpu_seconds


COLUMNS = tuple(column.name for column in tables.ledger.columns if column.name != "entry_id")


async def measure_bare(url: str, *, events: int, batch: int) -> tuple[float, float]:
    """The same for the driver alone: rows of the last run into a twin of the ledger's table."""
    database = Database(url)
    newest = (
        select(*(tables.ledger.c[name] for name in COLUMNS)).order_by(tables.ledger.c.entry_id.desc()).limit(events)
    )
    rows: Sequence[Any] = await database.read(lambda connection: connection.execute(newest).all())
    twin = tables.ledger.to_metadata(type(tables.metadata)(), name=f"bare_{uuid.uuid4().hex[:8]}")
    for index in twin.indexes:
        index.name = f"{twin.name}_{index.name}"
    for key in list(twin.foreign_key_constraints):
        twin.constraints.discard(key)
    await database.write(lambda connection: twin.create(connection))
    begun, begun_cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(rows), batch):
        part = [tuple(row) for row in rows[start : start + batch]]
        await database.write(lambda connection, part=part: insert_all(connection, twin, COLUMNS, part))  # type: ignore[misc]
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
    await database.write(lambda connection: twin.drop(connection))
    await database.close()
    return len(rows) / seconds, len(rows) / cpu_seconds


def fill(connection: Connection, size: int) -> int:
    """Doubles the ledger until it has `size` rows; the copies stand on a chain of their own, which nobody verifies.

    Their event ids ascend, as real ones do (UUIDv7), and come before them: random ones would touch every page of the index.
    """
    postgres = connection.dialect.name == "postgresql"
    count = int(connection.execute(select(func.count()).select_from(tables.ledger)).scalar() or 0)
    while count < size:
        more = min(count, size - count)
        newest = int(connection.execute(select(func.max(tables.ledger.c.entry_id))).scalar() or 0)
        number = f"entry_id + {newest}"
        ordered = f"lpad(({number})::text, 32, '0')" if postgres else f"printf('%032d', {number})"
        own = {"event_id": ordered, "source_topic": "'filled'"}
        chosen = ", ".join(own.get(name, name) for name in COLUMNS)
        connection.execute(
            text(f"INSERT INTO cost_ledger ({', '.join(COLUMNS)}) SELECT {chosen} FROM cost_ledger LIMIT {more}")
        )
        count += more
    return count


async def grown(url: str, size: int) -> int:
    database = Database(url)
    count = await database.write(lambda connection: fill(connection, size))
    await database.close()
    return count


def consumed(record: tuple[str, bytes, list[tuple[str, bytes]]], number: int) -> ConsumedEvent:
    topic, value, headers = record
    message = decode(topic, value, headers)
    return ConsumedEvent(
        message=message,
        topic=topic,
        partition=number % 4,
        offset=number // 4,
        key=b"",
        headers=dict(headers),
        event_id=message.metadata.event_id,  # type: ignore[attr-defined]
        timestamp_ms=0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--postgres-url", default="")
    parser.add_argument("--grow", default="", help="sizes to fill the ledger to, by commas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        urls = {"SQLite": f"sqlite:///{Path(folder) / 'cost.db'}"}
        if options.postgres_url:
            urls["PostgreSQL"] = options.postgres_url.replace("postgresql://", "postgresql+psycopg://", 1)
        for size in [int(size) for size in options.grow.split(",") if size] or [0]:
            compare(urls, options, size)


def compare(urls: dict[str, str], options: argparse.Namespace, size: int) -> None:
    """Ledger and bare driver in turns, on a ledger of `size` rows (0: as it is)."""
    rates: dict[str, list[tuple[float, float]]] = {}
    for _ in range(options.runs):
        for name, url in urls.items():
            if size:
                asyncio.run(measure(url, events=options.batch, batch=options.batch))  # something to copy
                asyncio.run(grown(url, size))
            sizes = {"events": options.events, "batch": options.batch}
            rates.setdefault(name, []).append(asyncio.run(measure(url, **sizes)))
            rates.setdefault(f"{name}, bare driver", []).append(asyncio.run(measure_bare(url, **sizes)))
    if size:
        print(f"a ledger of {size:,} rows:")
    for name, measured in rates.items():
        runs = ", ".join(f"{rate:,.0f}" for rate, _ in measured)
        median, per_cpu = (statistics.median(values) for values in zip(*measured, strict=True))
        print(f"{name}: {median:,.0f} rows/s, {per_cpu:,.0f} per CPU second (runs: {runs}; batches of {options.batch})")


if __name__ == "__main__":
    main()
