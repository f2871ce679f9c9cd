"""Several processes reserve, settle and enter at once, and are killed on the way: budgets hold, counters equal the ledger."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sluice_cost.adapters import budget_tables
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import to_microseconds
from sluice_cost.adapters.sql_books import as_hold
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.adapters.sql_holds import SqlHolds
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.domain.budget import AccountKey, Budget, Scope
from sluice_cost.domain.holds import HoldKind, HoldState, ReturnOrder, SettleOrder
from sluice_cost.domain.pricing import Price
from sluice_cost.domain.windows import WindowKind
from sqlalchemy import select

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(hours=2)
DIME = 100_000_000
Start = Callable[..., subprocess.Popen[str]]

# One replica: `fifty` asks for 25 dimes at once and tells how many it got; `work` does everything a replica does, for ever.
CHILD = """
import asyncio, random, sys
from datetime import UTC, datetime, timedelta
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.sql_holds import SqlHolds
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.domain.budget import Caller
from sluice_cost.domain.holds import *
from sluice_cost.domain.ledger import Completion, LedgerUnavailable, Partition
from sluice_cost.domain.usage import Usage

url, mode, name, seed = sys.argv[1:5]
noon, chance = datetime(2026, 11, 24, 12, 0, tzinfo=UTC), random.Random(int(seed))
database = Database(url)
holds = SqlHolds(database, default_currency="USD", expired_grace=timedelta(hours=1), clock=lambda: noon)
ledger = SqlLedger(database, default_currency="USD")
callers = [Caller(tenant, "shop", "key", person) for tenant in ("acme", "umbrella") for person in ("anna", "bert", "carl")]

def order(request_id, tokens=20_000, caller=callers[0]):
    return ReserveOrder(caller, request_id, "small", (), 0, tokens, tokens, 600_000_000)

def entry(caller, request_id, hold_id, tokens):
    return Completion("event-" + request_id, noon, request_id, caller.tenant_id, caller.project_id, caller.subject_id,
                      caller.api_key_id, "chat", "small", "small", "", "completed", Usage(output_tokens=tokens), False, "",
                      Partition("t", 0), 0, cost_hold_id=hold_id)

async def one(request_id):
    caller, tokens = chance.choice(callers), chance.randint(1, 400)
    if chance.random() < 0.2:
        answer = await holds.submit(LeaseOrder(caller, request_id, name, "small", (), tokens * 5_000, "USD", 60_000_000))
        if answer.hold is None:
            return
        used = chance.randint(0, answer.hold.granted // 5_000)
        await ledger.append([entry(caller, request_id, request_id, used)], {}, recorded_at=noon, encode=encode)
        await holds.submit(ReturnOrder(caller.tenant_id, request_id, used * 5_000, "USD"))
        return
    hold = (await holds.submit(order(request_id, tokens, caller))).hold
    used = chance.randint(0, tokens)
    if chance.random() < 0.7:
        usage = Usage(output_tokens=used) if used else None
        await holds.submit(SettleOrder(caller.tenant_id, request_id, usage, "small"))
    if chance.random() < 0.8:
        await ledger.append([entry(caller, request_id, hold.hold_id, used)], {}, recorded_at=noon, encode=encode)

async def work():
    print("started", flush=True)
    number = 0
    while True:
        number += 8
        ids = [f"{name}-{number + i}" for i in range(8)]
        answers = await asyncio.gather(*(one(request_id) for request_id in ids), return_exceptions=True)
        bad = [a for a in answers if a is not None and not isinstance(a, (HoldRefused, LedgerUnavailable))]
        if bad:
            raise bad[0]

async def fifty():
    print("started", flush=True)
    sys.stdin.readline()
    answers = await asyncio.gather(*(holds.submit(order(f"{name}-{i}")) for i in range(25)), return_exceptions=True)
    bad = [a for a in answers if isinstance(a, Exception) and not isinstance(a, BudgetExhausted)]
    if bad:
        raise bad[0]
    print(sum(not isinstance(answer, Exception) for answer in answers), flush=True)

asyncio.run({"work": work, "fifty": fifty}[mode]())
"""


def budget(budget_id: str, scope: Scope, limit_nano: int, **changes: Any) -> Budget:
    values: dict[str, Any] = {
        "tenant_ids": ("acme",), "scope_id": "", "currency": "USD", "window": WindowKind.DAY, "rolling_minutes": 0,
        "is_hard": True, "notify_percent": (50, 80), "approved_by": "test",
    }  # fmt: skip
    return Budget(budget_id, scope, limit_nano=limit_nano, **{**values, **changes})


@pytest.fixture
async def budgets(database: Database, make_price: Callable[..., Price]) -> SqlBudgets:
    price = make_price(reasoning=5_000_000_000)
    await SqlPrices(database, default_currency="USD").put(price, recorded_at=NOON)
    return SqlBudgets(database)


@pytest.fixture
def start(database_url: str, start_process: Callable[..., subprocess.Popen[str]]) -> Start:
    def begin(mode: str, name: str, *, seed: int = 0) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, database_url, mode, name, str(seed)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        child = start_process(command, **pipes)
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n", child.communicate()[1]
        return child

    return begin


async def test_four_processes_that_ask_for_a_hundred_dimes_of_five_dollars_get_exactly_fifty(
    budgets: SqlBudgets, start: Start
) -> None:
    await budgets.put(budget("acme", Scope.TENANT, 50 * DIME), recorded_at=to_microseconds(NOON))
    children = [start("fifty", f"replica-{number}") for number in range(4)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    told = [child.communicate(timeout=120) for child in children]
    assert sum(int(output or "0") for output, _ in told) == 50, told
    standing = await budgets.standing(AccountKey("acme"), at=to_microseconds(NOON))
    assert standing is not None
    assert (standing.account.held, standing.account.spent) == (50 * DIME, 0)


@pytest.mark.parametrize("seed", [1])
async def test_replicas_killed_at_any_moment_exceed_no_budget_and_leave_exact_counters(
    seed: int, budgets: SqlBudgets, database: Database, start: Start
) -> None:
    chance = random.Random(seed)
    limits = {"all": 40 * DIME, "acme": 4 * DIME, "person": 2 * DIME}
    at = to_microseconds(NOON)
    for each in (
        budget("all", Scope.ORGANISATION, limits["all"], tenant_ids=("acme", "umbrella"), scope_id="x"),
        budget("acme", Scope.TENANT, limits["acme"], window=WindowKind.ROLLING, rolling_minutes=60),
        budget("person", Scope.SUBJECT, limits["person"]),
    ):
        await budgets.put(each, recorded_at=at)
    replicas = [start("work", f"r{number}-0", seed=seed * 100 + number) for number in range(2)]
    for killed in range(1, 4):
        time.sleep(chance.uniform(0.1, 1.0))  # the moment of death, not a wait for something
        number = chance.randrange(2)
        assert replicas[number].poll() is None, replicas[number].communicate()[1]
        os.kill(replicas[number].pid, signal.SIGKILL)
        replicas[number].communicate(timeout=10)
        await check(budgets, limits)
        replicas[number] = start("work", f"r{number}-{killed}", seed=seed * 100 + killed)
    for replica in replicas:
        assert replica.poll() is None, replica.communicate()[1]
        replica.kill()
        replica.communicate(timeout=10)
    await check(budgets, limits)
    await end_everything(database)
    assert all(held == 0 for _, held in await check(budgets, limits, moment=LATER))


async def check(budgets: SqlBudgets, limits: dict[str, int], *, moment: datetime = NOON) -> list[tuple[int, int]]:
    """No budget is exceeded, and every counter is what the ledger and the holds add up to. Tells spent and held."""
    at = to_microseconds(moment)
    assert await budgets.reconcile(at=at) == []
    used = []
    for budget_id, limit in limits.items():
        for subject_id in ("anna", "bert", "carl") if budget_id == "person" else ("",):
            standing = await budgets.standing(AccountKey(budget_id, subject_id), at=at)
            assert standing is not None
            account = standing.account
            assert account.spent + account.held <= limit
            used.append((account.spent, account.held))
    assert any(spent for spent, _ in used)
    return used


async def end_everything(database: Database) -> None:
    """What the dead left open is settled with nothing used, and what waits for the ledger expires."""

    def open_holds(connection: Any) -> list[Any]:
        is_open = budget_tables.holds.c.state != HoldState.CLOSED.value
        return [as_hold(row) for row in connection.execute(select(budget_tables.holds).where(is_open))]

    desk = SqlHolds(database, default_currency="USD", expired_grace=timedelta(hours=1), clock=lambda: LATER)
    running = [hold for hold in await database.read(open_holds) if hold.state is HoldState.OPEN]
    await asyncio.gather(
        *(
            desk.submit(
                SettleOrder(hold.caller.tenant_id, hold.request_id, None, "")
                if hold.kind is HoldKind.REQUEST
                else ReturnOrder(hold.caller.tenant_id, hold.hold_id, hold.entered, "USD")
            )
            for hold in running
        )
    )
    while await desk.sweep():
        pass
