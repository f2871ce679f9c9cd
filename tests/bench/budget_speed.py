"""Reserve + Settle per second and their latencies, beside the bare driver carrying out the same statements.

    .venv/bin/python tests/bench/budget_speed.py [--pairs 2000] [--runs 3] [--clients 64] [--postgres-url postgresql://...]
        [--telling-ms 50]

`hot`: every request under one tenant budget; `many`: 50 tenants, each request under three budgets. Clients ask at once, as
gRPC calls do, so orders share transactions; `alone` is one client that waits for every answer. The bare driver begins and
commits a transaction for every Reserve and every Settle: read and lock the account, read the hold, write both. Database
settings are the service's own (SQLite: WAL, synchronous FULL; PostgreSQL: the server's). Runs are interleaved, medians told.
With `--telling-ms` the relay hands over events all the time, and Kafka takes so long for each batch.
"""

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from sluice_cost.adapters.database import Database, open_database
from sluice_cost.adapters.moments import to_microseconds
from sluice_cost.adapters.outbox import Telling, tell
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.adapters.sql_holds import SqlHolds
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.domain.budget import Budget, Caller, Scope
from sluice_cost.domain.holds import ReserveOrder, SettleOrder
from sluice_cost.domain.pricing import Price
from sluice_cost.domain.usage import Usage
from sluice_cost.domain.windows import WindowKind

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TENANTS = 50
AMOUNTS = ("uncached_input", "cached_input", "cache_write", "output", "reasoning")
Result = tuple[float, float, float]
"""Pairs a second; median and 99th percentile of one Reserve, in milliseconds."""


def budgets(run: str, *, tenants: int) -> list[Budget]:
    found = []
    for number in range(tenants):
        tenant = f"{run}-{number}"
        scopes = [(Scope.TENANT, "")]
        scopes += [(Scope.PROJECT, "shop"), (Scope.API_KEY, "key")] if tenants > 1 else []
        found += [
            Budget(
                f"{tenant}-{scope}", scope, (tenant,), scope_id, 10**17, "USD", WindowKind.DAY, 0, True, (80,), "bench"
            )
            for scope, scope_id in scopes
        ]
    return found


async def measure(url: str, *, tenants: int, pairs: int, clients: int, telling_ms: float) -> Result:
    database = open_database(url)
    run = uuid.uuid4().hex[:8]
    try:
        price = Price("small", "USD", NOW - timedelta(days=1), **dict.fromkeys(AMOUNTS, 1_000_000_000))
        await SqlPrices(database, default_currency="USD").put(price, recorded_at=NOW)
        for budget in budgets(run, tenants=tenants):
            await SqlBudgets(database).put(budget, recorded_at=to_microseconds(NOW))
        relaying = asyncio.create_task(_relay(database, telling_ms / 1000)) if telling_ms else None
        try:
            return await _pairs(database, run, tenants=tenants, pairs=pairs, clients=clients)
        finally:
            if relaying is not None:
                relaying.cancel()
                await asyncio.wait([relaying])
    finally:
        await database.close()


async def _relay(database: Database, seconds: float) -> None:
    """Tells of batches of events until cancelled."""
    ledger = SqlLedger(database, default_currency="USD")
    while True:
        waiting = [Telling(str(uuid.uuid4()), "CostRecorded", bytes(800)) for _ in range(100)]
        await database.write(lambda connection, waiting=waiting: tell(connection, waiting))  # type: ignore[misc]
        await ledger.hand_over(lambda _: time.sleep(seconds), limit=100)


async def _pairs(database: Database, run: str, *, tenants: int, pairs: int, clients: int) -> Result:
    holds = SqlHolds(database, default_currency="USD", expired_grace=timedelta(hours=1), clock=lambda: NOW)
    latencies: list[float] = []
    numbers = iter(range(pairs))

    async def client() -> None:
        for number in numbers:
            tenant = f"{run}-{number % tenants}"
            begun = time.perf_counter()
            order = ReserveOrder(Caller(tenant, "shop", "key"), f"r{number}", "small", (), 500, 200, 200, 600_000_000)
            await holds.submit(order)
            latencies.append(time.perf_counter() - begun)
            await holds.submit(SettleOrder(tenant, f"r{number}", Usage(400, output_tokens=100), "small"))

    begun = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return _result(pairs, time.perf_counter() - begun, latencies)


def _result(pairs: int, seconds: float, latencies: Sequence[float]) -> Result:
    ordered = sorted(latencies)
    return pairs / seconds, ordered[len(ordered) // 2] * 1000, ordered[len(ordered) * 99 // 100] * 1000


def bare(execute: Callable[[str, tuple[Any, ...]], Any], mark: str, *, lock: str, begin: str, pairs: int) -> Result:
    """One transaction for each Reserve and each Settle, with the tables of the service."""
    run = uuid.uuid4().hex[:8]
    execute(f"INSERT INTO cost_budget_accounts VALUES ({', '.join([mark] * 8)})", (run, "", 0, 0, 0, 0, 0, 0))
    names = (
        "hold_id, kind, tenant_id, project_id, api_key_id, subject_id, request_id, holder, model, served_models, currency,"
        " accounts, fingerprint, granted_nano, created_at_us, expires_at_us, prompt_tokens, output_tokens, state, held_nano,"
        " settled_nano, ended_by, entered_nano"
    )
    insert = f"INSERT INTO cost_holds ({names}) VALUES ({', '.join([mark] * 23)})"
    latencies = []
    begun = time.perf_counter()
    for number in range(pairs):
        hold = f"{run}-{number}"
        texts = (hold, "request", run, "shop", "key", "", hold, "", "small", "[]", "USD", f'[["{run}", ""]]', "f" * 32)
        numbers = (7, 0, 600_000_000, 500, 200, "open", 7, 0, "", 0)
        statements = (
            (insert, (*texts, *numbers)),
            (f"UPDATE cost_holds SET state = 'ended', held_nano = 3, settled_nano = 3 WHERE hold_id = {mark}", (hold,)),
        )
        for statement, values in statements:
            asked = time.perf_counter()
            execute(begin, ())
            execute(f"SELECT * FROM cost_budget_accounts WHERE budget_id = {mark}{lock}", (run,)).fetchall()
            execute(f"SELECT * FROM cost_holds WHERE hold_id = {mark}", (hold,)).fetchall()
            execute(statement, values)
            execute(f"UPDATE cost_budget_accounts SET held_nano = held_nano + 1 WHERE budget_id = {mark}", (run,))
            execute("COMMIT", ())
            if statement is insert:
                latencies.append(time.perf_counter() - asked)
    return _result(pairs, time.perf_counter() - begun, latencies)


def bare_sqlite(path: Path, pairs: int) -> Result:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    try:
        return bare(connection.execute, "?", lock="", begin="BEGIN IMMEDIATE", pairs=pairs)
    finally:
        connection.close()


def bare_postgres(url: str, pairs: int) -> Result:
    with psycopg.connect(url, autocommit=True) as connection:
        return bare(connection.execute, "%s", lock=" FOR UPDATE", begin="BEGIN", pairs=pairs)  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--postgres-url", default="")
    parser.add_argument("--telling-ms", type=float, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cost.db"
        found: dict[str, list[Result]] = {}
        for _ in range(options.runs):
            for name, work in ways(path, options).items():
                found.setdefault(name, []).append(work())
    for name, results in found.items():
        rate, median, slowest = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"{name:34} {rate:8,.0f} Reserve+Settle/s   Reserve p50 {median:7.2f} ms   p99 {slowest:7.2f} ms")


def ways(path: Path, options: argparse.Namespace) -> dict[str, Callable[[], Result]]:
    """What is measured, by name, in the order of one run."""
    found: dict[str, Callable[[], Result]] = {}
    urls = {"SQLite": f"sqlite:///{path}"}
    if options.postgres_url:
        urls["PostgreSQL"] = options.postgres_url.replace("postgresql://", "postgresql+psycopg://", 1)
    few = max(options.pairs // 4, 1)
    for name, url in urls.items():

        def one(url: str = url, tenants: int = 1, pairs: int = options.pairs, clients: int = options.clients) -> Result:
            telling = options.telling_ms
            return asyncio.run(measure(url, tenants=tenants, pairs=pairs, clients=clients, telling_ms=telling))

        found[f"{name}, hot, {options.clients} clients"] = one
        found[f"{name}, many, {options.clients} clients"] = lambda one=one: one(tenants=TENANTS)  # type: ignore[misc]
        found[f"{name}, hot, alone"] = lambda one=one: one(pairs=few, clients=1)  # type: ignore[misc]
    found["SQLite, bare driver, alone"] = lambda: bare_sqlite(path, few)
    if options.postgres_url:
        found["PostgreSQL, bare driver, alone"] = lambda: bare_postgres(options.postgres_url, few)
    return found


if __name__ == "__main__":
    main()
