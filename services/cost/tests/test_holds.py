"""Budgets are bounds: whatever comes at once, in which order and from how many, no more is admitted than they hold."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sluice.events.v1 import cost_pb2
from sluice_cost.adapters import budget_tables
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import to_microseconds
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.adapters.sql_holds import SqlHolds
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.adapters.sql_recompute import SqlRecomputer
from sluice_cost.domain.budget import AccountKey, Budget, Caller, Scope, Standing
from sluice_cost.domain.corrections import Scope as RecomputeScope
from sluice_cost.domain.holds import (
    BudgetExhausted,
    CurrenciesMixed,
    CurrencyNotBudgeted,
    ExtendOrder,
    HoldConflict,
    HoldUnknown,
    LeaseOrder,
    ModelUnpriced,
    Order,
    ReserveOrder,
    ReturnOrder,
    SettleOrder,
)
from sluice_cost.domain.ledger import Completion
from sluice_cost.domain.pricing import Price, Tier
from sluice_cost.domain.usage import Usage
from sluice_cost.domain.windows import DAY_US, MINUTE_US, WindowKind
from sqlalchemy import select

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


async def test_a_request_that_is_sent_again_finds_its_hold_and_one_with_other_content_is_refused(world: World) -> None:
    await world.put(budget())
    first, again = await world.all_of(reserve(), reserve())
    assert first.hold == again.hold
    assert await world.used() == (0, DIME, 0)
    other_content = (reserve(max_output_tokens=3, min_output_tokens=3), reserve(caller=replace(CALLER, project_id="x")))
    for changed in other_content:
        with pytest.raises(HoldConflict):
            await world.submit(changed)
    await world.submit(reserve(caller=replace(CALLER, tenant_id="umbrella")))  # another tenant's request of that id
    await world.submit(settle())
    with pytest.raises(HoldConflict):
        await world.submit(reserve())


async def test_settling_again_answers_the_same_and_with_another_amount_is_refused(world: World) -> None:
    await world.put(budget())
    await world.submit(reserve())
    ended = await world.submit(settle(output_tokens=1))
    assert await world.submit(settle(output_tokens=1)) == ended
    with pytest.raises(HoldConflict):
        await world.submit(settle(output_tokens=2))
    with pytest.raises(HoldUnknown):
        await world.submit(settle(2))
    with pytest.raises(HoldUnknown):
        await world.submit(replace(settle(), tenant_id="umbrella"))


async def test_a_request_that_used_nothing_gives_everything_back(world: World) -> None:
    await world.put(budget())
    await world.submit(reserve())
    assert (await world.submit(settle(output_tokens=None))).released == DIME
    assert await world.used() == (0, 0, 0)


async def test_settling_what_the_ledger_has_entered_already_changes_nothing(
    world: World, done: Callable[..., Completion]
) -> None:
    await world.put(budget())
    hold = (await world.submit(reserve())).hold
    await world.enter(done(1, hold.hold_id))
    assert (await world.submit(settle())).amount == DIME
    assert await world.used() == (DIME, 0, 0)
    assert await world.differences() == []


async def test_where_not_all_fits_as_many_tokens_are_held_as_fit_but_no_fewer_than_are_of_use(world: World) -> None:
    await world.put(budget(limit_nano=DIME + DIME // 2))
    await world.submit(reserve(1))
    with pytest.raises(BudgetExhausted):
        await world.submit(reserve(2))
    with pytest.raises(BudgetExhausted):
        await world.submit(reserve(3, min_output_tokens=10_001))
    hold = (await world.submit(reserve(4, min_output_tokens=10_000))).hold
    assert (hold.output_tokens, hold.granted) == (10_000, DIME // 2)
    with pytest.raises(BudgetExhausted):
        await world.submit(reserve(5, max_output_tokens=20_000, min_output_tokens=1))


async def test_a_hold_grows_while_there_is_something_left_and_stays_as_it_was_when_not(world: World) -> None:
    await world.put(budget(limit_nano=2 * DIME))
    await world.submit(reserve())
    more = ExtendOrder("acme", "request-1", 10_000, 20_000)
    for _ in range(2):  # sent again, it changes nothing
        assert (await world.submit(more)).hold.output_tokens == 30_000
    assert await world.used() == (0, DIME + DIME // 2, 0)
    with pytest.raises(BudgetExhausted):
        await world.submit(ExtendOrder("acme", "request-1", 10_001, 0))
    assert await world.used() == (0, DIME + DIME // 2, 0)
    await world.submit(settle())
    with pytest.raises(HoldConflict):
        await world.submit(more)


async def test_every_budget_over_a_caller_is_held_and_the_tightest_refuses(world: World) -> None:
    await world.put(
        budget("organisation", scope=Scope.ORGANISATION, tenant_ids=("acme", "umbrella"), scope_id="holding"),
        budget("tenant"),
        budget("project", scope=Scope.PROJECT, scope_id="shop", limit_nano=3 * DIME),
        budget("key", scope=Scope.API_KEY, scope_id="key-1", limit_nano=2 * DIME),
        budget("other-key", scope=Scope.API_KEY, scope_id="key-2", limit_nano=0),
        budget("person", scope=Scope.SUBJECT, limit_nano=DIME),
    )
    await world.submit(reserve(1))
    for who, tightest in ((CALLER, "person"), (replace(CALLER, subject_id="bert"), None)):
        order = reserve(2, caller=who)
        if tightest:
            with pytest.raises(BudgetExhausted, match=tightest):
                await world.submit(order)
        else:
            await world.submit(order)
    with pytest.raises(BudgetExhausted, match="key"):
        await world.submit(reserve(3, caller=replace(CALLER, subject_id="carl")))
    await world.submit(reserve(4, caller=Caller("umbrella")))
    assert await world.used("organisation") == (0, 3 * DIME, 0)
    assert await world.used("tenant") == await world.used("project") == await world.used("key") == (0, 2 * DIME, 0)
    assert await world.used("person", "anna") == await world.used("person", "bert") == (0, DIME, 0)
    assert await world.differences() == []


async def test_what_is_refused_is_held_nowhere(world: World) -> None:
    await world.put(budget("wide"), budget("narrow", limit_nano=1))
    with pytest.raises(BudgetExhausted, match="narrow"):
        await world.submit(reserve())
    assert await world.used("wide") == await world.used("narrow") == (0, 0, 0)


async def test_a_soft_budget_counts_and_refuses_nothing(world: World, done: Callable[..., Completion]) -> None:
    await world.put(budget(is_hard=False, limit_nano=DIME))
    holds = [(await world.submit(reserve(number))).hold for number in range(3)]
    await world.enter(*(done(number, hold.hold_id) for number, hold in enumerate(holds)))
    assert await world.used() == (3 * DIME, 0, 0)


async def test_a_model_without_a_price_is_refused_under_a_hard_budget_only(world: World) -> None:
    await world.put(budget(is_hard=False))
    assert (await world.submit(reserve(model="unheard-of"))).hold is None
    await world.put(budget())
    for order in (reserve(2, model="unheard-of"), lease(2, model="unheard-of", amount=None)):
        with pytest.raises(ModelUnpriced):
            await world.submit(order)
    assert (await world.submit(reserve(3, model="alias", served_models=("small",)))).hold.granted == DIME


async def test_budgets_of_several_currencies_each_bound_their_own(
    world: World, make_price: Callable[..., Price]
) -> None:
    euros = make_price(model="euros", currency="EUR", reasoning=5_000_000_000)
    await world.prices.put(euros, recorded_at=NOON)
    await world.put(budget("dollars"))
    with pytest.raises(CurrencyNotBudgeted):
        await world.submit(reserve(1, model="euros"))
    await world.put(budget("euros", currency="EUR", limit_nano=DIME))
    await world.submit(reserve(2, model="euros"))
    await world.submit(reserve(3))
    assert await world.used("dollars") == await world.used("euros") == (0, DIME, 0)
    with pytest.raises(BudgetExhausted, match="euros"):
        await world.submit(reserve(4, model="euros"))
    with pytest.raises(CurrenciesMixed):
        await world.submit(reserve(5, model="small", served_models=("small", "euros")))
    with pytest.raises(CurrenciesMixed):
        await world.submit(lease(currency="EUR"))


async def test_the_worst_case_is_at_the_dearest_price_until_the_hold_expires(
    world: World, make_price: Callable[..., Price]
) -> None:
    later = NOON + timedelta(minutes=5)
    dearer = make_price(effective_from=later, output=50_000_000_000)
    await world.prices.put(dearer, recorded_at=NOON)
    await world.put(budget())
    assert (await world.submit(reserve(1, lasts=299 * SECOND))).hold.granted == DIME
    assert (await world.submit(reserve(2, lasts=300 * SECOND))).hold.granted == 10 * DIME


async def test_a_lease_is_a_slice_that_the_ledger_uses_up(world: World, done: Callable[..., Completion]) -> None:
    await world.put(budget(limit_nano=3 * DIME))
    answer = await world.submit(lease(amount=2 * DIME))
    assert (answer.hold.granted, answer.left, answer.price.output) == (2 * DIME, DIME, 5_000_000_000)
    assert await world.submit(lease(amount=2 * DIME)) == answer
    assert await world.used() == (0, 2 * DIME, 2 * DIME)
    await world.enter(done(1, "lease-1"))
    assert await world.used() == (DIME, DIME, DIME)
    assert (await world.submit(lease(2, amount=9 * DIME))).hold.granted == DIME
    nothing = await world.submit(lease(3))
    assert (nothing.hold, nothing.left) == (None, 0)
    assert nothing.retry_at == NOON_US + 2 * SECOND  # what is missing is only held
    assert await world.differences() == []


async def test_what_is_spent_of_a_returned_lease_counts_until_the_ledger_has_it(
    world: World, done: Callable[..., Completion]
) -> None:
    await world.put(budget())
    await world.submit(lease(amount=10 * DIME))
    back = ReturnOrder("acme", "lease-1", 3 * DIME, "USD")
    assert (await world.submit(back)).released == 7 * DIME
    assert (await world.submit(back)).released == 7 * DIME
    assert await world.used() == (0, 3 * DIME, 3 * DIME)
    assert (await world.submit(replace(back, spent=2 * DIME))).released == 8 * DIME
    with pytest.raises(HoldConflict):
        await world.submit(replace(back, spent=4 * DIME))
    await world.enter(done(1, "lease-1"))
    assert await world.used() == (DIME, DIME, DIME)
    await world.enter(done(2, "lease-1"))
    assert await world.used() == (2 * DIME, 0, 0)
    with pytest.raises(HoldConflict):
        await world.submit(lease(amount=10 * DIME))


async def test_a_question_for_a_lease_tells_what_is_left_and_takes_nothing(world: World) -> None:
    await world.put(budget(), budget("person", scope=Scope.SUBJECT, limit_nano=2 * DIME))
    answer = await world.submit(lease(amount=None))
    assert (answer.hold, answer.left, answer.is_by_person, answer.price.model) == (None, 2 * DIME, True, "small")
    assert await world.used() == (0, 0, 0)


async def test_what_expired_is_free_only_after_the_grace(world: World, done: Callable[..., Completion]) -> None:
    await world.put(budget())
    hold = (await world.submit(reserve(lasts=60 * SECOND))).hold
    await world.submit(lease())
    world.now = NOON + timedelta(minutes=60, seconds=59)
    assert await world.holds.sweep() == 0
    assert await world.used() == (0, 2 * DIME, DIME)
    world.now += timedelta(seconds=1)
    assert await world.holds.sweep() == 2
    assert await world.used() == (0, 0, 0)
    await world.enter(done(1, hold.hold_id), done(2, "lease-1"))  # too late to be relieved, never too late to count
    assert await world.used() == (2 * DIME, 0, 0)
    assert await world.differences() == []
    world.now += timedelta(days=2)
    await world.holds.sweep()
    with pytest.raises(HoldUnknown):
        await world.submit(settle())


async def test_a_day_begins_with_nothing_spent_and_keeps_what_is_held(
    world: World, done: Callable[..., Completion]
) -> None:
    await world.put(budget())
    late, early = [(await world.submit(reserve(number))).hold for number in (1, 2)]
    await world.enter(done(3))
    world.now = datetime(2026, 11, 25, 0, 0, 1, tzinfo=UTC)
    assert await world.used() == (0, 2 * DIME, 0)
    await world.enter(
        done(1, late.hold_id, occurred_at=datetime(2026, 11, 24, 23, 59, 59, tzinfo=UTC)),
        done(2, early.hold_id, occurred_at=world.now),
    )
    assert await world.used() == (DIME, 0, 0)
    standing = await world.standing()
    assert (standing.account.window_start, standing.window_end) == (NOON_US + DAY_US // 2, NOON_US + DAY_US * 3 // 2)
    assert await world.differences() == []


async def test_a_month_ends_with_the_month(world: World, done: Callable[..., Completion]) -> None:
    await world.put(budget(window=WindowKind.MONTH))
    await world.enter(done(1, occurred_at=datetime(2026, 11, 1, tzinfo=UTC)))
    await world.enter(done(2, occurred_at=datetime(2026, 10, 31, 23, 59, tzinfo=UTC)))
    assert await world.used() == (DIME, 0, 0)
    world.now = datetime(2026, 12, 31, 23, tzinfo=UTC)
    assert await world.used() == (0, 0, 0)
    assert (await world.standing()).window_end == to_microseconds(datetime(2027, 1, 1, tzinfo=UTC))


async def test_a_rolling_window_forgets_minute_by_minute(world: World, done: Callable[..., Completion]) -> None:
    await world.put(budget(window=WindowKind.ROLLING, rolling_minutes=60, limit_nano=2 * DIME))
    at = [NOON, NOON + timedelta(minutes=20), NOON + timedelta(minutes=40)]
    for number, moment in enumerate(at[:2]):
        world.now = moment
        hold = (await world.submit(reserve(number))).hold
        await world.enter(done(number, hold.hold_id, occurred_at=moment))
    world.now = at[2]
    with pytest.raises(BudgetExhausted) as caught:
        await world.submit(reserve(2))
    assert caught.value.retry_at == to_microseconds(at[2]) + MINUTE_US
    for minutes, spent in ((60, 2 * DIME), (61, DIME), (80, DIME), (81, 0)):
        world.now = NOON + timedelta(minutes=minutes)
        assert await world.used() == (spent, 0, 0)
        assert await world.differences() == []
    await world.enter(done(7, occurred_at=NOON))  # long after its window
    assert await world.used() == (0, 0, 0)


async def test_minutes_that_a_rolling_window_left_behind_are_forgotten(
    world: World, done: Callable[..., Completion]
) -> None:
    await world.put(budget(window=WindowKind.ROLLING, rolling_minutes=60), budget("day"))
    await world.enter(*(done(minute, occurred_at=NOON + timedelta(minutes=minute)) for minute in range(5)))
    world.now = NOON + timedelta(days=2)
    await world.enter(done(9, occurred_at=world.now))
    await world.holds.sweep()
    kept = await world.database.read(lambda c: c.execute(select(budget_tables.spent.c.budget_id)).scalars().all())
    assert sorted(kept) == ["acme-day", "day", "day"]
    assert await world.used() == (DIME, 0, 0)


async def test_a_budget_that_is_put_late_counts_what_was_spent_and_is_held_already(
    world: World, done: Callable[..., Completion]
) -> None:
    await world.put(budget("first"))
    await world.submit(reserve(1))
    await world.submit(lease())
    await world.enter(done(2), done(3, tenant_id="umbrella"), done(4, subject_id="bert"))
    await world.put(budget(), budget("person", scope=Scope.SUBJECT), budget("other", tenant_ids=("umbrella",)))
    assert await world.used() == (2 * DIME, 2 * DIME, DIME)
    assert await world.used("person", "anna") == (DIME, 2 * DIME, DIME)
    assert await world.used("person", "bert") == (DIME, 0, 0)
    assert await world.used("other") == (DIME, 0, 0)
    await world.submit(settle(output_tokens=None))
    await world.put(budget(is_disabled=True))
    assert await world.used("person", "anna") == (DIME, DIME, DIME)
    assert await world.differences() == []


async def test_a_new_limit_holds_at_once_and_every_version_is_audited(world: World, database: Database) -> None:
    await world.put(budget())
    await world.submit(reserve(1))
    await world.put(budget(limit_nano=DIME))
    with pytest.raises(BudgetExhausted):
        await world.submit(reserve(2))
    await world.put(budget(limit_nano=2 * DIME))
    await world.submit(reserve(3))
    assert (await world.standing()).budget.version == 3
    assert await world.used() == (0, 2 * DIME, 0)


async def test_a_request_is_not_counted_twice_however_often_its_event_comes(
    world: World, done: Callable[..., Completion]
) -> None:
    await world.put(budget())
    hold = (await world.submit(reserve())).hold
    for _ in range(2):
        await world.enter(done(1, hold.hold_id), done(1, hold.hold_id))
    assert await world.used() == (DIME, 0, 0)


async def test_another_tenants_event_relieves_nobodys_hold(world: World, done: Callable[..., Completion]) -> None:
    await world.put(budget())
    hold = (await world.submit(reserve())).hold
    await world.enter(done(1, hold.hold_id, tenant_id="umbrella"))
    assert await world.used() == (0, DIME, 0)


async def told(world: World) -> list[Any]:
    """The BudgetChanged events of the outbox, oldest first."""
    events: list[Any] = []

    def take(waiting: Any) -> None:
        events.extend(
            cost_pb2.BudgetChanged.FromString(one.payload) for one in waiting if one.event_type == "BudgetChanged"
        )

    while await world.ledger.hand_over(take, limit=100):
        pass
    return events


async def test_every_share_of_the_limit_is_told_once_a_window(world: World, done: Callable[..., Completion]) -> None:
    await world.put(budget(limit_nano=10 * DIME, notify_percent=(50, 80), is_hard=False))
    told_by_cost = []
    for number in range(12):
        await world.enter(done(number))
        told_by_cost.append([(event.percent, event.spent.nano_units // DIME) for event in await told(world)])
    assert told_by_cost == [[], [], [], [], [(50, 5)], [], [], [(80, 8)], [], [(100, 10)], [], []]
    world.now += timedelta(days=1)
    await world.enter(*(done(100 + number, occurred_at=world.now) for number in range(9)))
    events = await told(world)
    assert [event.percent for event in events] == [50, 80]
    (first, _) = events
    assert (first.metadata.tenant_id, first.budget_id, first.budget_version, first.hard) == (
        "acme",
        "acme-day",
        1,
        False,
    )
    assert (first.state, first.reason) == (cost_pb2.BUDGET_STATE_NOTIFIED, cost_pb2.BUDGET_CHANGE_REASON_SPENT)
    assert first.window_start.ToDatetime(tzinfo=UTC) == datetime(2026, 11, 25, tzinfo=UTC)
    assert first.window_end.ToDatetime(tzinfo=UTC) == datetime(2026, 11, 26, tzinfo=UTC)


async def test_the_first_refusal_of_a_window_is_told_and_no_other(world: World) -> None:
    await world.put(
        budget("organisation", scope=Scope.ORGANISATION, scope_id="holding", limit_nano=DIME),
        budget("person", scope=Scope.SUBJECT),
    )
    await world.submit(reserve(1))
    for number in (2, 3):
        with pytest.raises(BudgetExhausted):
            await world.submit(reserve(number))
    (event,) = await told(world)
    assert (event.budget_id, event.percent, event.metadata.tenant_id) == ("organisation", 100, "")
    assert (event.state, event.reason) == (cost_pb2.BUDGET_STATE_EXHAUSTED, cost_pb2.BUDGET_CHANGE_REASON_REFUSED)
    assert (event.spent.nano_units, event.held.nano_units) == (0, DIME)
    world.now += timedelta(days=1)
    with pytest.raises(BudgetExhausted):
        await world.submit(reserve(4))
    assert len(await told(world)) == 1
    await world.put(budget("organisation", scope=Scope.ORGANISATION, scope_id="holding", limit_nano=0))
    with pytest.raises(BudgetExhausted):
        await world.submit(reserve(5))
    assert [event.budget_version for event in await told(world)] == [2]


async def test_a_rolling_window_tells_again_only_when_a_whole_window_has_passed(
    world: World, done: Callable[..., Completion]
) -> None:
    rolling = budget(window=WindowKind.ROLLING, rolling_minutes=60, limit_nano=2 * DIME, notify_percent=(50,))
    await world.put(rolling)
    counts = []
    for number, minutes in enumerate((0, 30, 59, 90, 130, 200)):
        world.now = NOON + timedelta(minutes=minutes)
        await world.enter(done(number, occurred_at=world.now))
        counts.append([event.percent for event in await told(world)])
    # At 130 minutes half of the limit was reached all along, so only the limit is crossed anew.
    assert counts == [[50], [100], [], [], [100], [50]]


async def test_a_deployments_own_price_and_every_tier_are_in_the_worst_case(
    world: World, make_price: Callable[..., Price]
) -> None:
    await world.put(budget(limit_nano=100 * DIME))
    long = Tier(1000, 2_000_000_000, 1_000_000_000, 3_000_000_000, 10_000_000_000, 5_000_000_000)
    await world.prices.put(make_price("tiered", reasoning=5_000_000_000, tiers=(long,)), recorded_at=NOON)
    assert (await world.submit(reserve(1, model="tiered"))).hold.granted == 2 * DIME
    dear = make_price("route:small/gpu", output=20_000_000_000)
    await world.prices.put(dear, recorded_at=NOON)
    assert (await world.submit(reserve(2))).hold.granted == 4 * DIME


async def test_a_correction_changes_what_was_spent_in_the_window_it_is_for(
    world: World, done: Callable[..., Completion], make_price: Callable[..., Price]
) -> None:
    await world.put(budget())
    await world.enter(done(1))
    cheaper = make_price(output=1_000_000_000, effective_from=NOON - timedelta(hours=1))
    await world.prices.put(cheaper, recorded_at=NOON)
    recomputer = SqlRecomputer(world.database, default_currency="USD", encode=encode)
    scope = RecomputeScope(NOON - timedelta(hours=2), NOON + timedelta(hours=2))
    await recomputer.correct(scope, approved_by="test", plan_digest="", recorded_at=NOON)
    assert await world.used() == (DIME // 5, 0, 0)
    assert await world.differences() == []


async def test_an_order_that_cannot_be_carried_out_harms_none_of_those_it_came_with(world: World) -> None:
    await world.put(budget(is_hard=False, limit_nano=10**18))
    # More than a 64-bit column holds, all together: no order of a gateway, but a desk is asked by anybody in the mesh.
    huge = [lease(n, amount=10**18) for n in range(10)]
    answers = await world.all_of(reserve(1), *huge, reserve(2))
    assert answers[0].hold is not None
    assert answers[-1].hold is not None
    assert any(isinstance(answer, Exception) for answer in answers)
    assert await world.differences() == []


async def test_a_budget_that_moves_to_another_tenant_takes_that_tenants_open_holds_and_leaves_the_others(
    world: World,
) -> None:
    name = 'budget "%_of\\ all'  # as awkward as an id may be
    await world.put(
        budget(name), budget("both", scope=Scope.ORGANISATION, scope_id="h", tenant_ids=("acme", "umbrella"))
    )
    theirs = replace(CALLER, tenant_id="umbrella")
    await world.all_of(reserve(1), reserve(2, caller=theirs), reserve(3, caller=theirs))
    assert (await world.used(name))[1] == DIME
    await world.put(budget(name, tenant_ids=("umbrella",)))
    assert (await world.used(name))[1] == 2 * DIME
    assert await world.differences() == []
    await world.all_of(settle(1, output_tokens=None), replace(settle(2, output_tokens=None), tenant_id="umbrella"))
    assert ((await world.used(name))[1], (await world.used("both"))[1]) == (DIME, DIME)
    assert await world.differences() == []
