"""Budgets in SQL: versions are only ever added, every addition leaves an audit row, and counters always equal the ledger."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from sluice_cost.adapters import budget_tables, tables
from sluice_cost.adapters.bulk import add_up, insert_missing
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.sql_books import account_row, as_hold, guard, hold_row, read_account, read_budgets
from sluice_cost.domain.budget import (
    Account,
    AccountKey,
    Audit,
    Budget,
    BudgetIndex,
    BudgetManagedByFile,
    Difference,
    Scope,
    Standing,
)
from sluice_cost.domain.holds import Hold, HoldKind, HoldState
from sluice_cost.domain.ledger import JUDGE
from sluice_cost.domain.windows import WindowKind

_KEY = ("budget_id", "subject_id")


class SqlBudgets:
    """Fits domain.budget.BudgetStore."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def budgets(self) -> BudgetIndex:
        """The newest version of every budget."""
        return await self._database.read(read_budgets)

    async def put(self, budget: Budget, *, recorded_at: int) -> Budget:
        """Stores a new version; see domain.budget.BudgetStore."""

        def work(connection: Connection) -> Budget:
            guard(connection, alone=True)
            newest = read_budgets(connection).find(budget.budget_id)
            if newest is not None and newest.origin == "file" and not newest.is_disabled:
                raise BudgetManagedByFile(budget.budget_id)
            return _put(connection, budget, newest, recorded_at)

        return await self._database.write_beside(work)

    async def put_file(self, budgets: Sequence[Budget], *, approved_by: str, recorded_at: int) -> int:
        """Makes the budgets of the file the ones in force; those that were in it before are disabled. Returns how many changed."""

        def work(connection: Connection) -> int:
            guard(connection, alone=True)
            stored = read_budgets(connection)
            wanted = {budget.budget_id for budget in budgets}
            gone = [
                replace(budget, is_disabled=True, approved_by=approved_by)
                for budget in stored
                if budget.origin == "file" and budget.budget_id not in wanted and not budget.is_disabled
            ]
            changed = [
                (budget, newest)
                for budget in [*budgets, *gone]
                if not _is_same(budget, newest := stored.find(budget.budget_id))
            ]
            for budget, newest in changed:
                _put(connection, budget, newest, recorded_at)
            return len(changed)

        return await self._database.write_beside(work)

    async def standing(self, key: AccountKey, *, at: int) -> Standing | None:
        """Where a budget stands."""

        def work(connection: Connection) -> Standing | None:
            budget = read_budgets(connection).find(key.budget_id)
            if budget is None:
                return None
            return Standing(budget, read_account(connection, budget, key, at=at), budget.window_end(at))

        return await self._database.read(work)

    async def reconcile(self, *, at: int) -> Sequence[Difference]:
        """Adds up the ledger and the holds anew and tells every counter that differs: none, if all is well."""
        return (await self.audit(at=at)).differences

    async def audit(self, *, at: int) -> Audit:
        """As reconcile; tells also how many accounts there are. See domain.budget.BudgetStore."""
        return await self._database.read(lambda connection: _audit(connection, at))


def _is_same(budget: Budget, newest: Budget | None) -> bool:
    return newest is not None and replace(budget, version=newest.version) == newest


def _put(connection: Connection, budget: Budget, newest: Budget | None, recorded_at: int) -> Budget:
    stored = replace(budget, version=newest.version + 1 if newest else 1)
    row = _row(stored, recorded_at)
    connection.execute(insert(budget_tables.budgets).values(row))
    connection.execute(
        insert(tables.audit).values(
            recorded_at_us=recorded_at,
            actor=budget.approved_by,
            action="budget.put",
            subject=budget.budget_id,
            details=json.dumps(row, sort_keys=True),
        )
    )
    if newest is None or newest.shape != stored.shape:
        _count_anew(connection, stored, recorded_at)
    else:
        # Another limit, other shares: what is crossed now is told anew.
        held_in = budget_tables.accounts.c.budget_id == budget.budget_id
        connection.execute(update(budget_tables.accounts).where(held_in).values(notified_percent=0))
    return stored


def _count_anew(connection: Connection, budget: Budget, now: int) -> None:
    """Makes a budget's counters from the ledger and the open holds. The guard keeps everyone else out meanwhile."""
    held_in = budget_tables.accounts.c.budget_id == budget.budget_id
    connection.execute(delete(budget_tables.accounts).where(held_in))
    connection.execute(delete(budget_tables.spent).where(budget_tables.spent.c.budget_id == budget.budget_id))
    buckets = {} if budget.is_disabled else _ledger_buckets(connection, budget, now)
    if buckets:
        rows = [
            {"budget_id": key.budget_id, "subject_id": key.subject_id, "bucket_us": bucket, "spent_nano": spent}
            for (key, bucket), spent in sorted(buckets.items())
        ]
        add_up(connection, budget_tables.spent, rows, key=(*_KEY, "bucket_us"), sums=["spent_nano"])
    accounts = _accounts_of(budget, buckets, now)
    _hold_anew(connection, budget, accounts, now)
    if rows := [account_row(account) for _, account in sorted(accounts.items())]:
        insert_missing(connection, budget_tables.accounts, rows, key=_KEY)


def _accounts_of(budget: Budget, buckets: dict[tuple[AccountKey, int], int], now: int) -> dict[AccountKey, Account]:
    start = budget.window_start(now)
    accounts = {key: Account(key, start) for key in sorted({key for key, _ in buckets})}
    if not budget.is_for_every_person:
        accounts.setdefault(AccountKey(budget.budget_id), Account(AccountKey(budget.budget_id), start))
    for (key, bucket), spent in buckets.items():
        if bucket >= start if budget.window is WindowKind.ROLLING else bucket == start:
            accounts[key].spent += spent
    return accounts


def _hold_anew(connection: Connection, budget: Budget, accounts: dict[AccountKey, Account], now: int) -> None:
    """Open holds of callers that the budget is over now are held in it; others no longer are."""
    holds = budget_tables.holds.c
    # Of the many that may be open only those it is about, or was before: everybody waits meanwhile.
    concerned = holds.tenant_id.in_(budget.tenant_ids) | holds.accounts.contains(
        json.dumps(budget.budget_id), autoescape=True
    )
    chosen = select(budget_tables.holds).where(holds.state != HoldState.CLOSED.value, concerned)
    for row in connection.execute(chosen).all():
        hold = as_hold(row)
        others = [key for key in hold.accounts if key.budget_id != budget.budget_id]
        key = budget.account_of(hold.caller)
        is_held = not budget.is_disabled and budget.currency == hold.currency and budget.covers(hold.caller)
        if is_held:
            _add(accounts.setdefault(key, Account(key, budget.window_start(now))), hold)
        keys = tuple(sorted([*others, key] if is_held else others))
        if keys != hold.accounts:
            changed = hold_row(replace(hold, accounts=keys))
            same = budget_tables.holds.c.hold_id == hold.hold_id
            connection.execute(update(budget_tables.holds).where(same).values(accounts=changed["accounts"]))


def _add(account: Account, hold: Hold) -> None:
    account.held += hold.held
    account.leased += hold.held if hold.kind is HoldKind.LEASE else 0


def _ledger_buckets(connection: Connection, budget: Budget, now: int) -> dict[tuple[AccountKey, int], int]:
    """Sums of the ledger's rows that count, by account and bucket, from the window in force on."""
    ledger = tables.ledger.c
    minute = ledger.occurred_at_us - ledger.occurred_at_us % 60_000_000
    chosen = [
        ledger.occurred_at_us >= budget.window_start(now),
        ledger.tenant_id.in_(budget.tenant_ids),
        ledger.currency == budget.currency,
        ledger.amount_nano != 0,
        ledger.charge_kind != JUDGE,
    ]
    if budget.scope is Scope.PROJECT:
        chosen.append(ledger.project_id == budget.scope_id)
    if budget.scope is Scope.API_KEY:
        chosen.append(ledger.api_key_id == budget.scope_id)
    if budget.scope is Scope.SUBJECT:
        chosen.append(ledger.subject_id == budget.scope_id if budget.scope_id else ledger.subject_id != "")
    by = (minute, ledger.subject_id) if budget.is_for_every_person else (minute,)
    sums: dict[tuple[AccountKey, int], int] = {}
    for row in connection.execute(select(*by, func.sum(ledger.amount_nano)).where(*chosen).group_by(*by)):
        key = AccountKey(budget.budget_id, row[1] if budget.is_for_every_person else "")
        bucket = key, budget.bucket_of(row[0])
        sums[bucket] = sums.get(bucket, 0) + int(row[-1])
    return sums


def _audit(connection: Connection, at: int) -> Audit:
    accounts = connection.execute(select(func.count()).select_from(budget_tables.accounts)).scalar()
    return Audit(int(accounts or 0), list(_differences(connection, at)))


def _differences(connection: Connection, at: int) -> Iterable[Difference]:
    is_open = budget_tables.holds.c.state != HoldState.CLOSED.value
    holds = [as_hold(row) for row in connection.execute(select(budget_tables.holds).where(is_open))]
    columns = (budget_tables.accounts.c.budget_id, budget_tables.accounts.c.subject_id)
    stored = {AccountKey(row[0], row[1]) for row in connection.execute(select(*columns))}
    for budget in read_budgets(connection):
        buckets = {} if budget.is_disabled else _ledger_buckets(connection, budget, at)
        right = _accounts_of(budget, buckets, at)
        for hold in holds:
            for key in hold.accounts:
                if key.budget_id == budget.budget_id:
                    _add(right.setdefault(key, Account(key, budget.window_start(at))), hold)
        keys = {key for key in stored if key.budget_id == budget.budget_id} | right.keys()
        for key in sorted(keys):
            counted = read_account(connection, budget, key, at=at)
            added_up = right.get(key, Account(key, counted.window_start))
            for name in ("spent", "held", "leased"):
                if getattr(counted, name) != getattr(added_up, name):
                    yield Difference(key, budget.currency, name, getattr(counted, name), getattr(added_up, name))


def _row(budget: Budget, recorded_at: int) -> dict[str, Any]:
    return {
        "budget_id": budget.budget_id,
        "version": budget.version,
        "scope": budget.scope.value,
        "tenant_ids": json.dumps(budget.tenant_ids),
        "scope_id": budget.scope_id,
        "limit_nano": budget.limit_nano,
        "currency": budget.currency,
        "window_kind": budget.window.value,
        "rolling_minutes": budget.rolling_minutes,
        "is_hard": int(budget.is_hard),
        "notify_percent": json.dumps(budget.notify_percent),
        "approved_by": budget.approved_by,
        "is_disabled": int(budget.is_disabled),
        "origin": budget.origin,
        "recorded_at_us": recorded_at,
    }
