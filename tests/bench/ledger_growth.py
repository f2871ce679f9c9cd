"""What an event costs the ledger as the ledger grows, beside the bare driver: it should stay flat from ten thousand rows to ten million.

    python tests/bench/ledger_growth.py [--rows 10000,100000,1000000] [--rounds 5] [--events 2000] [--postgres-url postgresql://...]

`ledger_speed.py` with a database of its own for every size, filled beforehand and measured in turn, so that a busy moment of the
machine meets every size; the medians are told. Without a URL a PostgreSQL server (fsync on) is started for it where Debian's package is installed.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from ledger_speed import grown, measure, measure_bare

BATCH = 500
ROWS = (10_000, 100_000, 1_000_000)
SEED_ROWS = 1_000


@dataclass
class Place:
    """One database, and what was measured in it: rows per second, and rows per second of processor time."""

    name: str
    url: str
    rows: int
    ledger: list[tuple[float, float]] = field(default_factory=list)
    bare: list[tuple[float, float]] = field(default_factory=list)

    def fill(self) -> None:
        """The ledger's own rows first; the rest are copies that the database makes."""
        begun = time.perf_counter()
        asyncio.run(measure(self.url, events=SEED_ROWS, batch=BATCH))
        asyncio.run(grown(self.url, self.rows))
        print(f"  {self.name} filled to {self.rows:,} rows in {time.perf_counter() - begun:.0f} s", flush=True)

    def measure(self, events: int) -> None:
        self.ledger.append(asyncio.run(measure(self.url, events=events, batch=BATCH)))

    def measure_bare(self, events: int) -> None:
        self.bare.append(asyncio.run(measure_bare(self.url, events=events, batch=BATCH)))


@contextlib.contextmanager
def postgres(given: str) -> Iterator[str]:
    """URL of a server; empty where there is none. fsync is on, unlike in the tests."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if given or not programs:
        yield given
        return
    # PostgreSQL refuses to run as root.
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="sluice-bench-pg-"))
    if user:
        shutil.chown(folder, "nobody", "nogroup")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
    cluster = str(folder / "data")
    subprocess.run(
        [programs[-1] / "initdb", "-D", cluster, "-A", "trust", "-U", "sluice", "--no-sync"], check=True, **quiet
    )
    settings = ("listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}", "max_wal_size=4GB")
    options = [word for setting in settings for word in ("-c", setting)]
    server = subprocess.Popen([str(programs[-1] / "postgres"), "-D", cluster, *options], **quiet)
    try:
        url = f"postgresql://sluice@127.0.0.1:{port}/postgres"
        _wait_for(url)
        yield url
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=20)
        server.kill()
        server.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def new_database(url: str, name: str) -> str:
    """URL of an empty database on that server."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{url.rsplit('/', 1)[0]}/{name}"


def run(folder: Path, server: str, rows: Sequence[int], *, events: int, rounds: int) -> list[Place]:
    """Fills, and then measures in turns; the bare driver in the smallest of each kind."""
    places = [Place("SQLite", f"sqlite:///{folder / f'cost-{size}.db'}", size) for size in rows]
    if server:
        made = {size: new_database(server, f"sluice_bench_{size}") for size in rows}
        places += [
            Place("PostgreSQL", made[size].replace("postgresql:", "postgresql+psycopg:", 1), size) for size in rows
        ]
    for place in places:
        place.fill()
    for _ in range(rounds):
        for place in places:
            if place.rows == rows[0]:
                place.measure_bare(events)
            place.measure(events)
    return places


def show(places: Sequence[Place]) -> None:
    """The table."""
    print(f"{'':26}{'rows/s':>9}{'us an event':>13}{'us of CPU':>11}   runs, rows/s")
    for place in places:
        if place.bare:
            _row(f"{place.name}, bare driver", place.bare)
        _row(f"{place.name}, {place.rows:,} rows", place.ledger)


def _row(name: str, measured: Sequence[tuple[float, float]]) -> None:
    rate, cpu_rate = (statistics.median(values) for values in zip(*measured, strict=True))
    runs = ", ".join(f"{rate:,.0f}" for rate, _ in measured)
    print(f"{name:26}{rate:>9,.0f}{1e6 / rate:>13,.0f}{1e6 / cpu_rate:>11,.0f}   {runs}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)), help="sizes of the ledgers, the smallest first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, default=2_000, help="measured a round and ledger")
    parser.add_argument("--postgres-url", default="", help="a server on which databases may be made")
    given = parser.parse_args()
    rows = [int(size) for size in given.rows.split(",")]
    load, cores = os.getloadavg()[0], os.cpu_count()
    print(
        f"load {load:.1f}, {cores} cores; {given.rounds} interleaved rounds of {given.events:,} events, batches of {BATCH}"
    )
    with tempfile.TemporaryDirectory() as folder, postgres(given.postgres_url) as server:
        show(run(Path(folder), server, rows, events=given.events, rounds=given.rounds))
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
