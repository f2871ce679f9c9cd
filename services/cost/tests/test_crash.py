"""The process is killed in the middle of its work; what is on disk is all or nothing, and going on makes it whole."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sluice_cost.adapters import tables
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.domain.ledger import Completion, Partition
from sqlalchemy import func, select

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
STREAM = Partition("t", 0)
Start = Callable[..., subprocess.Popen[str]]
EVENTS, BATCH = 1_500, 25

# Reads a topic of EVENTS events from where the database says, as the service does; told to, it stops inside a transaction.
CHILD = f"""
EVENTS, BATCH = {EVENTS}, {BATCH}
import asyncio, sys, time
from datetime import UTC, datetime
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.domain.ledger import Completion, Partition
from sluice_cost.domain.usage import Usage

url, stop_at = sys.argv[1], int(sys.argv[2])
noon, stream = datetime(2026, 11, 24, 12, 0, tzinfo=UTC), Partition("t", 0)

def completion(number):
    return Completion(f"event-{{number}}", noon, f"request-{{number}}", "acme", "", "", "key", "chat", "alias", "small", "", "completed",
                      Usage(output_tokens=1), False, "", stream, number)

def told(entry):
    if entry.completion.offset == stop_at:
        print("in the middle", flush=True)
        time.sleep(60)
    return entry.cost_event_id.encode()

async def main():
    ledger = SqlLedger(Database(url), default_currency="USD")
    at = (await ledger.next_offsets({{stream}})).get(stream, 0)
    print("started", flush=True)
    while at < EVENTS:
        batch = [completion(number) for number in range(at, at + BATCH)]
        at += BATCH
        await ledger.append(batch, {{stream: at}}, recorded_at=noon, encode=told)
    print("done", flush=True)

asyncio.run(main())
"""


@pytest.fixture
def start(start_process: Callable[..., subprocess.Popen[str]]) -> Start:
    def begin(url: str, *, stop_at: int = -1) -> subprocess.Popen[str]:
        return start_process([sys.executable, "-c", CHILD, url, str(stop_at)], stdout=subprocess.PIPE)

    return begin


def kill(child: subprocess.Popen[str]) -> None:
    os.kill(child.pid, signal.SIGKILL)
    child.communicate(timeout=10)


async def state(url: str) -> tuple[int, int, int, int]:
    """Rows, events to tell, requests in the sums, next offset."""
    database = Database(url)

    def read(connection):  # type: ignore[no-untyped-def]
        return [
            int(connection.execute(query).scalar() or 0)
            for query in (
                select(func.count()).select_from(tables.ledger),
                # The rows' own events: the model of these has no price, of which one alert is told beside them.
                select(func.count()).select_from(tables.outbox).where(tables.outbox.c.event_type == "CostRecorded"),
                select(func.sum(tables.spend_hours.c.request_count)),
            )
        ]

    rows, told, spent = await database.read(read)
    offsets = await SqlLedger(database, default_currency="USD").next_offsets({STREAM})
    await database.close()
    return rows, told, spent, offsets.get(STREAM, 0)


async def test_a_process_killed_inside_a_transaction_leaves_nothing_of_it(database_url: str, start: Start) -> None:
    child = start(database_url, stop_at=BATCH * 2 + 3)
    assert child.stdout is not None
    assert [child.stdout.readline() for _ in range(2)] == ["started\n", "in the middle\n"]
    kill(child)
    assert await state(database_url) == (BATCH * 2,) * 4


async def test_a_process_killed_at_any_moment_and_started_again_loses_and_doubles_nothing(
    database_url: str, start: Start
) -> None:
    for pause in (0.05, 0.25):
        child = start(database_url)
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        time.sleep(pause)  # the moment of death, not a wait for something
        kill(child)
        rows, told, spent, offset = await state(database_url)
        assert rows == told == spent == offset
    last = start(database_url)
    output, _ = last.communicate(timeout=60)
    assert output.endswith("done\n")
    assert await state(database_url) == (EVENTS,) * 4


@pytest.mark.parametrize("position", ["lost", "too far back"])
async def test_a_position_that_was_lost_costs_a_replay_and_no_money(
    position: str, database: Database, make_completion: Callable[..., Completion]
) -> None:
    ledger = SqlLedger(database, default_currency="USD")
    batch = [make_completion(number) for number in range(10)]
    await ledger.append(batch, {STREAM: 10}, recorded_at=NOON, encode=encode)
    again = {} if position == "lost" else {STREAM: 3}
    assert await ledger.append(batch, again, recorded_at=NOON, encode=encode) == []
