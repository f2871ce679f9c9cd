"""Budgets are bounds: whatever comes at once, in which order and from how many, no more is admitted than they hold."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import to_microseconds
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.adapters.sql_holds import SqlHolds
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.domain.budget import AccountKey, Budget, Caller, Scope, Standing
from sluice_cost.domain.holds import (
    BudgetExhausted,
    LeaseOrder,
    Order,
    ReserveOrder,
    SettleOrder,
)
from sluice_cost.domain.ledger import Completion
from sluice_cost.domain.pricing import Price
from sluice_cost.domain.usage import Usage
from sluice_cost.domain.windows import WindowKind

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NOON_US = to_microseconds(NOON)
SECOND = 1_000_000
DIME = 100_000_000
CALLER = Caller("acme", "shop", "key-1", "anna")


def budget(budget_id: str = "acme-day", **changes: Any) -> Budget:
    """A hard budget of 5 USD a day over the tenant."""
    values: dict[str, Any] = {
        "scope": Scope.TENANT,
        "tenant_ids": ("acme",),
        "scope_id": "",
        "limit_nano": 50 * DIME,
        "currency": "USD",
        "window": WindowKind.DAY,
        "rolling_minutes": 0,
        "is_hard": True,
        "notify_percent": (),
        "approved_by": "test",
    }
    return Budget(budget_id, **{**values, **changes})


def reserve(number: int = 1, **changes: Any) -> ReserveOrder:
    """Asks for 20,000 tokens of the answer, which cost a dime at the price of the tests."""
    order = ReserveOrder(CALLER, f"request-{number}", "small", (), 0, 20_000, 20_000, 600 * SECOND)
    return replace(order, **changes)


def lease(number: int = 1, **changes: Any) -> LeaseOrder:
    return replace(LeaseOrder(CALLER, f"lease-{number}", "gateway/0", "small", (), DIME, "USD", 60 * SECOND), **changes)


def settle(number: int = 1, *, output_tokens: int | None = 20_000) -> SettleOrder:
    usage = None if output_tokens is None else Usage(output_tokens=output_tokens)
    return SettleOrder("acme", f"request-{number}", usage, "small")


class World:
    """A database with a price and a clock that stands still until it is moved."""

    def __init__(self, database: Database) -> None:
        self.now = NOON
        self.database = database
        self.budgets, self.prices = SqlBudgets(database), SqlPrices(database, default_currency="USD")
        self.ledger = SqlLedger(database, default_currency="USD")
        self.holds = self.another_desk()

    def another_desk(self) -> SqlHolds:
        grace = timedelta(hours=1)
        return SqlHolds(self.database, default_currency="USD", expired_grace=grace, clock=lambda: self.now)

    async def put(self, *budgets: Budget) -> None:
        for each in budgets:
            await self.budgets.put(each, recorded_at=to_microseconds(self.now))

    async def submit(self, order: Order) -> Any:
        return await self.holds.submit(order)

    async def all_of(self, *orders: Order) -> list[Any]:
        return await asyncio.gather(*(self.holds.submit(order) for order in orders), return_exceptions=True)

    async def enter(self, *completions: Completion) -> None:
        await self.ledger.append(completions, {}, recorded_at=self.now, encode=encode)

    async def standing(self, budget_id: str = "acme-day", subject_id: str = "") -> Standing:
        found = await self.budgets.standing(AccountKey(budget_id, subject_id), at=to_microseconds(self.now))
        assert found is not None
        return found

    async def used(self, budget_id: str = "acme-day", subject_id: str = "") -> tuple[int, int, int]:
        """Spent, held and leased."""
        account = (await self.standing(budget_id, subject_id)).account
        return account.spent, account.held, account.leased

    async def differences(self) -> Any:
        return await self.budgets.reconcile(at=to_microseconds(self.now))


@pytest.fixture
async def world(database: Database, make_price: Callable[..., Price]) -> World:
    made = World(database)
    # Reasoning costs what output does: a worst case is then what the tokens cost when they are used.
    await made.prices.put(make_price(reasoning=5_000_000_000), recorded_at=NOON)
    return made


@pytest.fixture
def done(make_completion: Callable[..., Completion]) -> Callable[..., Completion]:
    """The completion of the n-th request: `output_tokens` tokens at 5,000 nano-units, admitted on `hold_id`."""

    def make(number: int, hold_id: str = "", *, output_tokens: int = 20_000, **changes: Any) -> Completion:
        usage = Usage(output_tokens=output_tokens)
        who = {"project_id": "shop", "api_key_id": "key-1", "subject_id": "anna"}
        return make_completion(number, usage=usage, cost_hold_id=hold_id, **{**who, **changes})

    return make


@pytest.mark.parametrize("desks", [1, 4])
async def test_a_hundred_requests_of_a_dime_at_once_against_five_dollars_admit_exactly_fifty(
    desks: int, world: World
) -> None:
    await world.put(budget())
    asked = [world.another_desk() for _ in range(desks)]
    answers = await asyncio.gather(
        *(asked[number % desks].submit(reserve(number)) for number in range(100)), return_exceptions=True
    )
    refused = [answer for answer in answers if isinstance(answer, BudgetExhausted)]
    assert (len(answers) - len(refused), len(refused)) == (50, 50)
    assert await world.used() == (0, 50 * DIME, 0)


async def test_without_a_budget_nothing_is_held(world: World) -> None:
    await world.put(budget(tenant_ids=("umbrella",)))
    assert (await world.submit(reserve())).hold is None
    assert (await world.submit(lease())).price is None


async def test_a_hold_goes_from_worst_case_to_settled_to_spent(world: World, done: Callable[..., Completion]) -> None:
    await world.put(budget())
    hold = (await world.submit(reserve())).hold
    assert await world.used() == (0, DIME, 0)
    ended = await world.submit(settle(output_tokens=5_000))
    assert (ended.amount, ended.released) == (DIME // 4, DIME - DIME // 4)
    assert await world.used() == (0, DIME // 4, 0)
    await world.enter(done(1, hold.hold_id, output_tokens=5_000))
    assert await world.used() == (DIME // 4, 0, 0)
    assert await world.differences() == []
