"""Ledger rows per second: from the bytes of RequestCompleted to committed rows, sums, outbox and offsets.

    .venv/bin/python tests/bench/ledger_speed.py [--events 20000] [--runs 3] [--batch 500] [--postgres-url postgresql://...]

SQLite is measured with the settings the service uses (WAL, synchronous FULL). PostgreSQL is measured where a URL is
given; its database must be empty or a former run's. Runs are interleaved; the median is told, with all runs beside it,
and the rows per second of this process's own processor time, which a busy machine does not change much.
No broker takes part: this is what one process adds behind it.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from sluice.events.v1 import gateway_pb2
from sluice_cost.adapters.cost_events import encode as encode_cost
from sluice_cost.adapters.database import open_database
from sluice_cost.adapters.price_file import load_price_book
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.consumer import CompletionConsumer
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.events import decode, encode

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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        urls = {"SQLite": f"sqlite:///{Path(folder) / 'cost.db'}"}
        if options.postgres_url:
            urls["PostgreSQL"] = options.postgres_url.replace("postgresql://", "postgresql+psycopg://", 1)
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in urls}
        for _ in range(options.runs):
            for name, url in urls.items():
                rates[name].append(asyncio.run(measure(url, events=options.events, batch=options.batch)))
    for name, measured in rates.items():
        runs = ", ".join(f"{rate:,.0f}" for rate, _ in measured)
        median, per_cpu = (statistics.median(values) for values in zip(*measured, strict=True))
        print(f"{name}: {median:,.0f} rows/s, {per_cpu:,.0f} per CPU second (runs: {runs}; batches of {options.batch})")


if __name__ == "__main__":
    main()
