"""Holds and leases in SQL. Orders that arrive while a transaction runs share the next one, so that many cost one commit."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sluice_kit.process import describe
from sluice_kit.telemetry import logger
from sqlalchemy import Connection, delete, select

from sluice_cost.adapters import budget_tables as tables
from sluice_cost.adapters.budget_events import put_crossings
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import DAY_US, to_microseconds
from sluice_cost.adapters.sql_books import Terms, close_books, guard, look_into_books, open_books, read_budgets
from sluice_cost.domain.budget import AccountKey, BudgetIndex
from sluice_cost.domain.holds import Answer, ExpireOrder, HoldRefused, HoldState, LeaseOrder, Order, ReserveOrder
from sluice_cost.domain.ledger import LedgerUnavailable
from sluice_cost.domain.windows import WindowKind

log = logger(__name__)

_MOST_ORDERS = 100
_SWEEP_LIMIT = 500
_SWEEP_SECONDS = 5.0
# Ids of closed holds are remembered for a while, so that a late repeat is not taken for a new order.
_REMEMBERED_US = DAY_US


@dataclass(slots=True)
class _Waiting:
    order: Order
    answered: asyncio.Future[Answer]


class SqlHolds:
    """Fits domain.holds.HoldDesk."""

    def __init__(
        self,
        database: Database,
        *,
        default_currency: str,
        expired_grace: timedelta,
        clock: Callable[[], datetime],
        on_told: Callable[[], None] = lambda: None,
    ) -> None:
        self._database, self._clock, self._on_told = database, clock, on_told
        self._terms = Terms(default_currency=default_currency)
        self._grace = expired_grace // timedelta(microseconds=1)
        self._waiting: list[_Waiting] = []
        self._carrying: asyncio.Task[None] | None = None

    async def submit(self, order: Order) -> Answer:
        """Carries out an order, durably; see domain.holds.HoldDesk."""
        if isinstance(order, LeaseOrder) and not order.amount:
            now = to_microseconds(self._clock())
            return await self._database.read(lambda connection: self._answer(connection, order, now))
        waiting = _Waiting(order, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._carrying is None or self._carrying.done():
            self._carrying = asyncio.create_task(self._carry_out_waiting())
        return await waiting.answered

    async def sweep(self) -> int:
        """Closes what has expired for longer than the grace, and forgets what was closed long ago. Returns how many it closed."""
        now = to_microseconds(self._clock())
        due = (
            select(tables.holds.c.hold_id)
            .where(tables.holds.c.state != HoldState.CLOSED.value, tables.holds.c.expires_at_us <= now - self._grace)
            .limit(_SWEEP_LIMIT)
        )
        expired = await self._database.read(lambda connection: connection.execute(due).scalars().all())
        await asyncio.gather(*(self.submit(ExpireOrder(hold_id)) for hold_id in expired))
        await self._database.write_beside(lambda connection: _forget(connection, now - self._grace - _REMEMBERED_US))
        return len(expired)

    def _answer(self, connection: Connection, question: LeaseOrder, now: int) -> Answer:
        budgets, prices = self._terms.read(connection)
        keys = _keys_of(question, budgets)
        return look_into_books(connection, budgets, prices, keys=keys, now=now).carry_out(question)

    async def _carry_out_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MOST_ORDERS], self._waiting[_MOST_ORDERS:]
            answers = await self._answers([waiting.order for waiting in batch])
            for waiting, answer in zip(batch, answers, strict=True):
                if waiting.answered.done():
                    continue  # its caller is gone
                if isinstance(answer, Exception):
                    waiting.answered.set_exception(answer)
                else:
                    waiting.answered.set_result(answer)

    async def _answers(self, orders: Sequence[Order]) -> Sequence[Answer | Exception]:
        try:
            return await self._transact(orders)
        except LedgerUnavailable as error:
            # All of them waited for the one transaction that failed, and nothing of it happened.
            return [error] * len(orders)
        except Exception as error:
            if len(orders) == 1:
                return [error]
            # One of them cannot be carried out: the others must not suffer for it.
            return [answer for order in orders for answer in await self._answers([order])]

    async def _transact(self, orders: Sequence[Order]) -> Sequence[Answer | Exception]:
        now = to_microseconds(self._clock())
        answers, is_told = await self._database.write_beside(lambda c: self._carry_out(c, orders, now))
        if is_told:
            self._on_told()
        return answers

    def _carry_out(
        self, connection: Connection, orders: Sequence[Order], now: int
    ) -> tuple[Sequence[Answer | Exception], bool]:
        guard(connection)
        budgets, prices = self._terms.read(connection)
        keys = {key for order in orders for key in _keys_of(order, budgets)}
        books = open_books(
            connection, budgets, prices, keys=keys, hold_ids=(order.hold_id for order in orders), now=now
        )
        answers: list[Answer | Exception] = []
        for order in orders:
            try:
                answers.append(books.carry_out(order))
            except HoldRefused as refused:
                answers.append(refused)
        close_books(connection, books)
        put_crossings(connection, books.crossings, budgets)
        return answers, bool(books.crossings)


async def sweep_for_ever(holds: SqlHolds, stop: asyncio.Event) -> None:
    """Sweeps every few seconds until `stop`."""
    while not stop.is_set():
        try:
            closed = await holds.sweep()
        except LedgerUnavailable as error:
            log.warning("cost.sweep_waits", **describe(error))
            closed = 0
        if closed < _SWEEP_LIMIT:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _SWEEP_SECONDS)


def _keys_of(order: Order, budgets: BudgetIndex) -> list[AccountKey]:
    if isinstance(order, ReserveOrder | LeaseOrder):
        return [budget.account_of(order.caller) for budget in budgets.over(order.caller)]
    return []


def _forget(connection: Connection, before: int) -> None:
    closed = (tables.holds.c.state == HoldState.CLOSED.value) & (tables.holds.c.expires_at_us < before)
    connection.execute(delete(tables.holds).where(closed))
    # Minutes that a rolling window has left behind: it never moves back. A day of grace keeps clear of late events.
    account, spent = tables.accounts.c, tables.spent.c
    start = select(account.window_start_us).where(
        account.budget_id == spent.budget_id, account.subject_id == spent.subject_id
    )
    for budget in read_budgets(connection):
        if budget.window is WindowKind.ROLLING:
            left_behind = spent.bucket_us < start.scalar_subquery() - DAY_US
            connection.execute(delete(tables.spent).where(spent.budget_id == budget.budget_id, left_behind))
