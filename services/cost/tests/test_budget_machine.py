"""Whatever happens in which order, a hard budget's spent and held never exceed its limit, and counters equal the ledger."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import to_microseconds
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.adapters.sql_holds import SqlHolds
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.domain.budget import AccountKey, Budget, Caller, Scope
from sluice_cost.domain.holds import (
    ExtendOrder,
    HoldRefused,
    LeaseOrder,
    Order,
    ReserveOrder,
    ReturnOrder,
    SettleOrder,
)
from sluice_cost.domain.ledger import Completion, Partition
from sluice_cost.domain.pricing import Price
from sluice_cost.domain.usage import Usage
from sluice_cost.domain.windows import WindowKind

T = TypeVar("T")
EVENING = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)  # a day and a month end soon
SECOND, MINUTE = 1_000_000, timedelta(minutes=1)
GRACE, LASTS = timedelta(minutes=30), timedelta(minutes=10)
NANO_A_TOKEN = 1_000
CALLERS = [
    Caller("acme", "shop", "key-1", "anna"),
    Caller("acme", "shop", "key-2", "bert"),
    Caller("acme", "blog", "key-1", ""),
    Caller("umbrella", "", "key-3", "carl"),
]


def a_budget(budget_id: str, scope: Scope, limit_tokens: int, **changes: Any) -> Budget:
    values: dict[str, Any] = {
        "tenant_ids": ("acme",),
        "scope_id": "",
        "currency": "USD",
        "window": WindowKind.DAY,
        "rolling_minutes": 0,
        "is_hard": True,
        "notify_percent": (50, 80),
        "approved_by": "test",
    }
    return Budget(budget_id, scope, limit_nano=limit_tokens * NANO_A_TOKEN, **{**values, **changes})


BUDGETS = [
    a_budget("all", Scope.ORGANISATION, 4_000, tenant_ids=("acme", "umbrella"), scope_id="x", window=WindowKind.MONTH),
    a_budget("acme", Scope.TENANT, 2_500),
    a_budget("key", Scope.API_KEY, 1_200, scope_id="key-1", window=WindowKind.ROLLING, rolling_minutes=20),
    a_budget("person", Scope.SUBJECT, 800),
    a_budget("told", Scope.PROJECT, 300, scope_id="shop", is_hard=False),
]


@dataclass
class Asked:
    """A request or a lease as its gateway knows it."""

    caller: Caller
    name: str
    hold_id: str
    begun: datetime
    tokens: int
    """Bound of what may be used on it."""
    used: int | None = None
    """What was settled or given back."""
    entered: int = 0


class BudgetMachine(RuleBasedStateMachine):
    """Gateways that tell the truth, and processes and gateways that die."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sluice-budgets-"))
        shutil.copy(self.template, self.folder / "cost.db")
        self.runner = asyncio.Runner()
        self.now, self.number = EVENING, 0
        self.requests: list[Asked] = []
        self.leases: list[Asked] = []
        self.events: list[Completion] = []
        self.open()

    def open(self) -> None:
        self.database = Database(f"sqlite:///{self.folder / 'cost.db'}")
        self.holds = SqlHolds(self.database, default_currency="USD", expired_grace=GRACE, clock=lambda: self.now)
        self.ledger = SqlLedger(self.database, default_currency="USD")
        self.budgets = SqlBudgets(self.database)

    def do(self, work: Awaitable[T]) -> T:
        async def whole() -> T:
            return await work

        return self.runner.run(whole())

    def submit(self, order: Order) -> Any:
        try:
            return self.do(self.holds.submit(order))
        except HoldRefused:
            return None

    def next_name(self, kind: str) -> str:
        self.number += 1
        return f"{kind}-{self.number}"

    def enter(self, asked: Asked, tokens: int) -> None:
        self.number += 1
        # Some events come late: when they are entered, a rolling window may have left their moment behind.
        occurred_at = asked.begun if self.number % 2 else self.now
        event = Completion(
            f"event-{self.number}", occurred_at, asked.name, asked.caller.tenant_id, asked.caller.project_id,
            asked.caller.subject_id, asked.caller.api_key_id, "chat", "alias", "small", "", "completed",
            Usage(output_tokens=tokens), False, "", Partition("t", 0), self.number, cost_hold_id=asked.hold_id,
        )  # fmt: skip
        asked.entered += tokens
        self.events.append(event)
        self.append(event)

    def append(self, *events: Completion) -> None:
        self.do(self.ledger.append(events, {}, recorded_at=self.now, encode=encode))

    @initialize()
    def begin(self) -> None:
        amounts = dict.fromkeys(("uncached_input", "cached_input", "cache_write", "output", "reasoning"), 1_000_000_000)
        price = Price("small", "USD", EVENING - timedelta(days=90), **amounts)
        self.do(SqlPrices(self.database, default_currency="USD").put(price, recorded_at=EVENING))
        for budget in BUDGETS:
            self.do(self.budgets.put(budget, recorded_at=to_microseconds(EVENING)))

    @rule(caller=st.sampled_from(CALLERS), tokens=st.integers(1, 600), least=st.integers(1, 600))
    def reserve(self, caller: Caller, tokens: int, least: int) -> None:
        name = self.next_name("request")
        lasts = LASTS // timedelta(microseconds=1)
        order = ReserveOrder(caller, name, "alias", ("small",), 0, tokens, min(least, tokens), lasts)
        answer = self.submit(order)
        if answer is not None and answer.hold is not None:
            self.requests.append(Asked(caller, name, answer.hold.hold_id, self.now, answer.hold.output_tokens))

    @rule(data=st.data(), share=st.floats(0, 1))
    def settle(self, data: st.DataObject, share: float) -> None:
        if running := [asked for asked in self.requests if asked.used is None]:
            asked = data.draw(st.sampled_from(running))
            asked.used = int(asked.tokens * share)
            usage = Usage(output_tokens=asked.used) if asked.used else None
            self.submit(SettleOrder(asked.caller.tenant_id, asked.name, usage, "small"))

    @rule(data=st.data(), tokens=st.integers(1, 400))
    def extend(self, data: st.DataObject, tokens: int) -> None:
        if running := [asked for asked in self.requests if asked.used is None]:
            asked = data.draw(st.sampled_from(running))
            answer = self.submit(ExtendOrder(asked.caller.tenant_id, asked.name, tokens, asked.tokens))
            if answer is not None:
                asked.tokens = answer.hold.output_tokens

    @rule(data=st.data(), share=st.floats(0, 1))
    def enter_request(self, data: st.DataObject, share: float) -> None:
        if self.requests:
            asked = data.draw(st.sampled_from(self.requests))
            self.requests.remove(asked)
            self.enter(asked, int(asked.tokens * share) if asked.used is None else asked.used)

    @rule(caller=st.sampled_from(CALLERS), tokens=st.integers(1, 900))
    def lease(self, caller: Caller, tokens: int) -> None:
        name = self.next_name("lease")
        lasts = LASTS // timedelta(microseconds=1)
        order = LeaseOrder(caller, name, "gateway", "alias", ("small",), tokens * NANO_A_TOKEN, "USD", lasts)
        answer = self.submit(order)
        if answer is not None and answer.hold is not None:
            self.leases.append(Asked(caller, name, name, self.now, answer.hold.granted // NANO_A_TOKEN))

    @rule(data=st.data(), share=st.floats(0, 1))
    def spend_of_lease(self, data: st.DataObject, share: float) -> None:
        if self.leases:
            asked = data.draw(st.sampled_from(self.leases))
            bound = asked.tokens if asked.used is None else asked.used
            self.enter(asked, int((bound - asked.entered) * share))

    @rule(data=st.data(), share=st.floats(0, 1))
    def give_back(self, data: st.DataObject, share: float) -> None:
        if self.leases:
            asked = data.draw(st.sampled_from(self.leases))
            bound = asked.tokens if asked.used is None else asked.used
            spent = asked.entered + int((bound - asked.entered) * share)
            if self.submit(ReturnOrder(asked.caller.tenant_id, asked.name, spent * NANO_A_TOKEN, "USD")) is not None:
                asked.used = spent

    @rule(minutes=st.integers(0, 45))
    def wait(self, minutes: int) -> None:
        """Time passes; gateways whose holds have expired long ago are dead, and with them their events."""
        self.now += minutes * MINUTE
        alive = self.now - LASTS - GRACE
        self.requests = [asked for asked in self.requests if asked.begun > alive]
        self.leases = [asked for asked in self.leases if asked.begun > alive]
        self.do(self.holds.sweep())

    @rule(data=st.data())
    def events_come_again(self, data: st.DataObject) -> None:
        if self.events:
            self.append(*data.draw(st.lists(st.sampled_from(self.events), min_size=1, max_size=5)))

    @rule(caller=st.sampled_from(CALLERS))
    def die_inside_a_transaction(self, caller: Caller) -> None:
        order = ReserveOrder(caller, self.next_name("lost"), "alias", ("small",), 0, 1, 1, SECOND)

        def work(connection: Any) -> None:
            self.holds._carry_out(connection, [order], to_microseconds(self.now))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.do(self.database.write_beside(work))
        self.do(self.database.close())
        self.open()

    @rule(index=st.integers(0, len(BUDGETS) - 1))
    def put_again(self, index: int) -> None:
        """Taken out and put back, its counters are made anew."""
        for is_disabled in (True, False):
            changed = replace(BUDGETS[index], is_disabled=is_disabled)
            self.do(self.budgets.put(changed, recorded_at=to_microseconds(self.now)))

    @invariant()
    def no_hard_budget_is_exceeded(self) -> None:
        for budget, key in self.accounts():
            account = self.account(key)
            assert account.held >= account.leased >= 0
            assert account.spent >= 0
            if budget.is_hard:
                assert account.spent + account.held <= budget.limit_nano, (key, account)

    @invariant()
    def counters_equal_the_ledger_and_the_holds(self) -> None:
        assert self.do(self.budgets.reconcile(at=to_microseconds(self.now))) == []

    def accounts(self) -> Iterator[tuple[Budget, AccountKey]]:
        for budget in BUDGETS:
            for subject_id in ("anna", "bert", "carl") if budget.is_for_every_person else ("",):
                yield budget, AccountKey(budget.budget_id, subject_id)

    def account(self, key: AccountKey) -> Any:
        standing = self.do(self.budgets.standing(key, at=to_microseconds(self.now)))
        assert standing is not None
        return standing.account

    def teardown(self) -> None:
        """Everything ends and is entered: nothing is held any more."""
        for asked in self.requests:
            self.enter(asked, asked.tokens if asked.used is None else asked.used)
        for asked in self.leases:
            self.submit(ReturnOrder(asked.caller.tenant_id, asked.name, asked.entered * NANO_A_TOKEN, "USD"))
        self.now += timedelta(seconds=1)
        lost = LASTS + GRACE
        self.no_hard_budget_is_exceeded()
        self.counters_equal_the_ledger_and_the_holds()
        self.now += lost
        self.do(self.holds.sweep())
        assert all(self.account(key).held == 0 for _, key in self.accounts())
        self.counters_equal_the_ledger_and_the_holds()
        self.do(self.database.close())
        self.runner.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def test_hard_budgets_are_never_exceeded_and_counters_always_equal_the_ledger(migrated_file: Path) -> None:
    BudgetMachine.template = migrated_file
    from hypothesis.stateful import run_state_machine_as_test

    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        BudgetMachine,
        settings=settings(max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=checks),
    )
