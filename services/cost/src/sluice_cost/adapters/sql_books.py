"""Opens the books of budgets inside a transaction: accounts locked in the order of their keys, holds read under those locks.

Every transaction that touches budgets goes the same way, so that none ever waits for another in a circle: the shared guard
(which PutBudget takes alone), accounts that are not there yet, locks on all accounts in one statement, then everything else.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Text, bindparam, func, select, text, tuple_
from sqlalchemy.dialects import postgresql

from sluice_cost.adapters import budget_tables as tables
from sluice_cost.adapters.bulk import add_up, insert_missing, replace
from sluice_cost.adapters.database import BeginAgain
from sluice_cost.adapters.sql_prices import read_prices
from sluice_cost.adapters.tables import prices as price_table
from sluice_cost.domain.budget import Account, AccountKey, Budget, BudgetIndex, Caller, Scope
from sluice_cost.domain.budget_books import BudgetBooks
from sluice_cost.domain.holds import Hold, HoldKind, HoldState
from sluice_cost.domain.pricing import PriceHistory
from sluice_cost.domain.windows import WindowKind

_ACCOUNT_KEY = ("budget_id", "subject_id")
_NEWEST = select(
    select(func.coalesce(func.max(tables.budgets.c.put_id), 0)).scalar_subquery(),
    select(func.coalesce(func.max(price_table.c.price_id), 0)).scalar_subquery(),
)


class Terms:
    """Budgets and prices as they are now: read again only when something was put. Threads may share it."""

    def __init__(self, *, default_currency: str) -> None:
        self._default_currency = default_currency
        # Replaced whole: another thread never sees new numbers beside old terms.
        self._known = (-1, BudgetIndex([])), (-1, PriceHistory([], default_currency=default_currency))

    def read(self, connection: Connection) -> tuple[BudgetIndex, PriceHistory]:
        """Asked in every transaction: what another replica put is in force at once."""
        put_id, price_id = connection.execute(_NEWEST).one()
        (known_put_id, budgets), (known_price_id, prices) = self._known
        if put_id != known_put_id:
            budgets = read_budgets(connection)
        if price_id != known_price_id:
            prices = read_prices(connection, default_currency=self._default_currency)
        self._known = (put_id, budgets), (price_id, prices)
        return budgets, prices


def guard(connection: Connection, *, alone: bool = False) -> None:
    """Keeps the budgets as they are until the transaction ends; `alone` waits for all others. (SQLite does so anyway.)"""
    if connection.dialect.name == "postgresql":
        lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
        connection.execute(text(f"SELECT {lock}(hashtext('cost budgets'))"))


def open_books(
    connection: Connection,
    budgets: BudgetIndex,
    prices: PriceHistory,
    *,
    keys: set[AccountKey],
    hold_ids: Iterable[str],
    now: int,
) -> BudgetBooks:
    """The books with the accounts of `keys` and of the holds, locked. Raises BeginAgain."""
    wanted = sorted({hold_id for hold_id in hold_ids if hold_id})
    keys = keys | {key for hold in read_holds(connection, wanted) for key in hold.accounts}
    accounts = _lock(connection, budgets, keys, now)
    holds = read_holds(connection, wanted)
    if any(key not in accounts for hold in holds for key in hold.accounts):
        raise BeginAgain  # a hold appeared meanwhile whose accounts are not locked
    return BudgetBooks(budgets, prices, accounts=accounts, holds=holds, now=now)


def look_into_books(
    connection: Connection, budgets: BudgetIndex, prices: PriceHistory, *, keys: Iterable[AccountKey], now: int
) -> BudgetBooks:
    """The books as they stand, for a question: nothing is locked, and nothing can be stored."""
    found = ((key, budgets.find(key.budget_id)) for key in keys)
    accounts = {key: read_account(connection, budget, key, at=now) for key, budget in found if budget is not None}
    return BudgetBooks(budgets, prices, accounts=accounts, holds=[], now=now)


def close_books(connection: Connection, books: BudgetBooks) -> None:
    """Stores what changed."""
    account_rows = [account_row(books.account(key)) for key in sorted(books.changed_accounts)]
    if account_rows:
        names = [name for name in account_rows[0] if name not in _ACCOUNT_KEY]
        replace(connection, tables.accounts, account_rows, key=_ACCOUNT_KEY, values=names)
    hold_rows = [hold_row(books.changed_holds[hold_id]) for hold_id in sorted(books.changed_holds)]
    if hold_rows:
        names = [name for name in hold_rows[0] if name != "hold_id"]
        replace(connection, tables.holds, hold_rows, key=["hold_id"], values=names)
    spent_rows = [
        {"budget_id": key.budget_id, "subject_id": key.subject_id, "bucket_us": bucket, "spent_nano": amount}
        for (key, bucket), amount in sorted(books.spent.items())
    ]
    if spent_rows:
        add_up(connection, tables.spent, spent_rows, key=(*_ACCOUNT_KEY, "bucket_us"), sums=["spent_nano"])


def read_budgets(connection: Connection) -> BudgetIndex:
    """The newest version of every budget."""
    newest = select(func.max(tables.budgets.c.put_id)).group_by(tables.budgets.c.budget_id)
    rows = connection.execute(select(tables.budgets).where(tables.budgets.c.put_id.in_(newest))).all()
    return BudgetIndex(_as_budget(row) for row in rows)


def read_holds(connection: Connection, hold_ids: Sequence[str]) -> list[Hold]:
    """The holds of these ids that there are."""
    if not hold_ids:
        return []
    if connection.dialect.name == "postgresql":
        one_of = tables.holds.c.hold_id == func.any(bindparam("hold_ids", type_=postgresql.ARRAY(Text)))
        rows = connection.execute(select(tables.holds).where(one_of), {"hold_ids": list(hold_ids)}).all()
    else:
        rows = connection.execute(select(tables.holds).where(tables.holds.c.hold_id.in_(hold_ids))).all()
    return [as_hold(row) for row in rows]


def read_account(connection: Connection, budget: Budget, key: AccountKey, *, at: int) -> Account:
    """An account as it stands at a moment; stores and locks nothing."""
    row = connection.execute(select(tables.accounts).where(_is(key))).one_or_none()
    account = _as_account(row) if row is not None else _new_account(connection, budget, key, at)
    _move_window(connection, budget, account, at)
    return account


def spent_between(connection: Connection, key: AccountKey, start: int, end: int | None = None) -> int:
    """The sum of an account's buckets from `start` until before `end`."""
    within = tables.spent.c.bucket_us >= start
    if end is not None:
        within &= tables.spent.c.bucket_us < end
    of_account = (tables.spent.c.budget_id == key.budget_id) & (tables.spent.c.subject_id == key.subject_id)
    return int(connection.execute(select(func.sum(tables.spent.c.spent_nano)).where(of_account & within)).scalar() or 0)


def _lock(connection: Connection, budgets: BudgetIndex, keys: set[AccountKey], now: int) -> dict[AccountKey, Account]:
    if not keys:
        return {}
    ordered = sorted(keys)
    _make_missing(connection, budgets, ordered, now)
    among, values = _among(connection, ordered)
    chosen = (
        select(tables.accounts)
        .where(tuple_(tables.accounts.c.budget_id, tables.accounts.c.subject_id).in_(among))
        .order_by(tables.accounts.c.budget_id, tables.accounts.c.subject_id)
        .with_for_update()
    )
    found = [_as_account(row) for row in connection.execute(chosen, values)]
    for account in found:
        budget = budgets.find(account.key.budget_id)
        if budget is not None:
            _move_window(connection, budget, account, now)
    return {account.key: account for account in found}


def _among(connection: Connection, keys: Sequence[AccountKey]) -> tuple[Any, dict[str, Any]]:
    """Keys for an IN, and the statement's parameters. On PostgreSQL the text is the same for any number, so it is prepared once."""
    if connection.dialect.name != "postgresql":
        return keys, {}
    arrays = (func.unnest(bindparam(name, type_=postgresql.ARRAY(Text))) for name in _ACCOUNT_KEY)
    return select(*arrays), {name: [getattr(key, name) for key in keys] for name in _ACCOUNT_KEY}


def _make_missing(connection: Connection, budgets: BudgetIndex, keys: Sequence[AccountKey], now: int) -> None:
    # Only those of persons: PutBudget makes every other. Before any lock is taken, and in order: see the module.
    persons = [key for key in keys if key.subject_id]
    if not persons:
        return
    columns = (tables.accounts.c.budget_id, tables.accounts.c.subject_id)
    there = {AccountKey(*row) for row in connection.execute(select(*columns).where(tuple_(*columns).in_(persons)))}
    rows = [
        account_row(_new_account(connection, budget, key, now))
        for key in persons
        if key not in there and (budget := budgets.find(key.budget_id)) is not None
    ]
    if rows:
        insert_missing(connection, tables.accounts, rows, key=_ACCOUNT_KEY)


def _new_account(connection: Connection, budget: Budget, key: AccountKey, now: int) -> Account:
    start = budget.window_start(now)
    return Account(key, start, spent=_spent_in_window(connection, budget, key, start))


def _spent_in_window(connection: Connection, budget: Budget, key: AccountKey, start: int) -> int:
    is_rolling = budget.window is WindowKind.ROLLING
    return spent_between(connection, key, start, None if is_rolling else start + 1)


def _move_window(connection: Connection, budget: Budget, account: Account, now: int) -> None:
    start = budget.window_start(now)
    if start <= account.window_start:
        return  # also where another replica's clock is ahead: a window never moves back
    if budget.window is WindowKind.ROLLING:
        spent = account.spent - spent_between(connection, account.key, account.window_start, start)
    else:
        spent = _spent_in_window(connection, budget, account.key, start)
    account.enter_window(budget, start, spent=spent)


def _is(key: AccountKey) -> Any:
    return (tables.accounts.c.budget_id == key.budget_id) & (tables.accounts.c.subject_id == key.subject_id)


def _as_budget(row: Any) -> Budget:
    return Budget(
        row.budget_id,
        Scope(row.scope),
        tuple(json.loads(row.tenant_ids)),
        row.scope_id,
        row.limit_nano,
        row.currency,
        WindowKind(row.window_kind),
        row.rolling_minutes,
        bool(row.is_hard),
        tuple(json.loads(row.notify_percent)),
        row.approved_by,
        bool(row.is_disabled),
        row.origin,
        row.version,
    )


def _as_account(row: Any) -> Account:
    return Account(
        AccountKey(row.budget_id, row.subject_id),
        row.window_start_us,
        row.spent_nano,
        row.held_nano,
        row.leased_nano,
        row.notified_percent,
        row.notified_at_us,
    )


def account_row(account: Account) -> dict[str, Any]:
    """An account as its row."""
    return {
        "budget_id": account.key.budget_id,
        "subject_id": account.key.subject_id,
        "window_start_us": account.window_start,
        "spent_nano": account.spent,
        "held_nano": account.held,
        "leased_nano": account.leased,
        "notified_percent": account.notified_percent,
        "notified_at_us": account.notified_at,
    }


def as_hold(row: Any) -> Hold:
    """A hold from its row."""
    return Hold(
        row.hold_id,
        HoldKind(row.kind),
        Caller(row.tenant_id, row.project_id, row.api_key_id, row.subject_id),
        row.request_id,
        row.holder,
        row.model,
        tuple(json.loads(row.served_models)),
        row.currency,
        tuple(AccountKey(*key) for key in json.loads(row.accounts)),
        row.fingerprint,
        row.granted_nano,
        row.created_at_us,
        row.expires_at_us,
        row.prompt_tokens,
        row.output_tokens,
        HoldState(row.state),
        row.held_nano,
        row.settled_nano,
        row.ended_by,
        row.entered_nano,
    )


def hold_row(hold: Hold) -> dict[str, Any]:
    """A hold as its row."""
    return {
        "hold_id": hold.hold_id,
        "kind": hold.kind.value,
        "tenant_id": hold.caller.tenant_id,
        "project_id": hold.caller.project_id,
        "api_key_id": hold.caller.api_key_id,
        "subject_id": hold.caller.subject_id,
        "request_id": hold.request_id,
        "holder": hold.holder,
        "model": hold.model,
        "served_models": json.dumps(hold.served_models),
        "currency": hold.currency,
        "accounts": json.dumps(hold.accounts),
        "fingerprint": hold.fingerprint,
        "granted_nano": hold.granted,
        "created_at_us": hold.created_at,
        "expires_at_us": hold.expires_at,
        "prompt_tokens": hold.prompt_tokens,
        "output_tokens": hold.output_tokens,
        "state": hold.state.value,
        "held_nano": hold.held,
        "settled_nano": hold.settled,
        "ended_by": hold.ended_by,
        "entered_nano": hold.entered,
    }
