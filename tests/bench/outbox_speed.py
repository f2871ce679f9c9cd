"""What the outbox costs a request and how many events it takes, under each fsync policy, beside bare SQLite in the same run.

    python tests/bench/outbox_speed.py [--events N] [--rounds N]

Each round measures every policy once, in turn; the table shows the median of the rounds. No Kafka: this is what a request waits for.
`bare` is one INSERT and COMMIT of the same bytes by sqlite3 alone, in one thread, one after the other.
"""

import argparse
import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sluice.events.v1 import gateway_pb2
from sluice_kit.events import encode, new_event_id
from sluice_kit.outbox import Outbox

POLICIES = ("always", "interval", "os")
CONCURRENT = 64


@dataclass(frozen=True)
class Measured:
    """One way of storing events."""

    p50_ms: float
    p99_ms: float
    per_second: float


def event() -> gateway_pb2.RequestCompleted:
    """An event as the gateway publishes it, about 450 bytes with its headers."""
    made = gateway_pb2.RequestCompleted(model="smollm2")
    made.metadata.event_id, made.metadata.request_id = new_event_id(), new_event_id()
    made.metadata.tenant_id, made.metadata.producer = "acme", "sluice-gateway/0#12345678"
    made.metadata.traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    return made


def summary(latencies: Sequence[float], seconds: float) -> Measured:
    """Quantiles in milliseconds, and events a second."""
    ordered = sorted(latencies)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return Measured(statistics.median(ordered) * 1000, p99 * 1000, len(ordered) / seconds)


async def through_outbox(path: Path, fsync: str, *, events: int, concurrent: int) -> Measured:
    """Append events, `concurrent` callers at once."""
    outbox, latencies, left = Outbox(path, producer="bench/0", fsync=fsync), list[float](), iter(range(events))

    async def caller() -> None:
        for _ in left:
            made, begun = event(), time.perf_counter()
            await outbox.append([made])
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(concurrent)))
    seconds = time.perf_counter() - begun
    outbox.close()
    return summary(latencies, seconds)


def bare(path: Path, synchronous: str, *, events: int) -> Measured:
    """The same bytes by sqlite3 alone."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous}; CREATE TABLE t (k, v, h)")
    latencies, begun_all = [], time.perf_counter()
    for _ in range(events):
        record, begun = encode(event()), time.perf_counter()
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (?, ?, ?)", (record.key, record.value, str(record.headers)))
        connection.execute("COMMIT")
        latencies.append(time.perf_counter() - begun)
    seconds = time.perf_counter() - begun_all
    connection.close()
    return summary(latencies, seconds)


def one_round(folder: Path, events: int) -> dict[str, Measured]:
    """Every way once."""
    found = {}
    for synchronous in ("FULL", "NORMAL"):
        found[f"bare sqlite, {synchronous}"] = bare(folder / f"{synchronous}.db", synchronous, events=events)
    for policy in POLICIES:
        for concurrent in (1, CONCURRENT):
            number = events if concurrent == 1 else events * 4
            path = folder / f"{policy}-{concurrent}.db"
            found[f"{policy}, {concurrent} at once"] = asyncio.run(
                through_outbox(path, policy, events=number, concurrent=concurrent)
            )
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    rounds = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(one_round(Path(folder), given.events))
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {given.rounds} rounds of {given.events} events")
    print(f"{'':24}{'p50 ms':>9}{'p99 ms':>9}{'events/s':>10}")
    for name in rounds[0]:
        p50, p99, rate = (
            statistics.median(getattr(r[name], f) for r in rounds) for f in ("p50_ms", "p99_ms", "per_second")
        )
        print(f"{name:24}{p50:9.2f}{p99:9.2f}{rate:10,.0f}")


if __name__ == "__main__":
    main()
