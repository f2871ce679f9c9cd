"""Prices entries anew, page by page: each page's corrections in one transaction, so that the ledger goes on meanwhile."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, case, func, insert, or_, select, tuple_

from sluice_cost.adapters import tables
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import to_microseconds
from sluice_cost.adapters.sql_books import Terms
from sluice_cost.adapters.sql_chain import lock_heads
from sluice_cost.adapters.sql_entries import Encode, insert_entries
from sluice_cost.adapters.sql_ledger import posting_of
from sluice_cost.adapters.sql_prices import read_prices
from sluice_cost.adapters.sql_rows import completion_of
from sluice_cost.adapters.sql_spent import count_spent
from sluice_cost.domain.corrections import (
    CORRECTIONS,
    LINES,
    Charged,
    OtherPlan,
    Recomputation,
    Scope,
    corrections_of,
)
from sluice_cost.domain.ledger import CORRECTION, IDLE, JUDGE, SYNTHETIC, LedgerEntry
from sluice_cost.domain.pricing import Priced

_PAGE = 500
_LINE_COLUMNS = tuple(tables.ledger.c[f"{line}_nano"] for line in LINES)
# Corrections are in what an entry was charged; self-tests cost nothing; idle time follows its hour (sql_idle.py).
_NOT_PRICED_ANEW = (CORRECTION, SYNTHETIC, IDLE, JUDGE)

Place = tuple[int, int]
# Where to go on (None at the end), how many entries there were, and the corrections they need with what was charged before.
Page = tuple[Place | None, int, Sequence[tuple[LedgerEntry, int]]]
_START: Place = (-(2**62), -1)


class SqlRecomputer:
    """Fits domain.corrections.Recomputer."""

    def __init__(self, database: Database, *, default_currency: str, encode: Encode) -> None:
        self._database, self._default_currency, self._encode = database, default_currency, encode
        self._terms = Terms(default_currency=default_currency)

    async def plan(self, scope: Scope) -> Recomputation:
        """What would be corrected, in one view of the data."""
        return (await self._planned(scope))[0]

    async def _planned(self, scope: Scope) -> tuple[Recomputation, int]:
        """The plan, and the newest price that it was made with."""

        def work(connection: Connection) -> tuple[Recomputation, int]:
            found = Recomputation()
            place: Place | None = _START
            while place is not None:
                place, rows, corrections = self._page(connection, scope, place, scope.start, "")
                found.take(corrections, rows=rows)
            return found, _newest_price(connection)

        return await self._database.read(work)

    async def correct(
        self, scope: Scope, *, approved_by: str, plan_digest: str, recorded_at: datetime
    ) -> Recomputation:
        """Enters the corrections. When it is broken off, what was entered is right and a second run does the rest."""
        plan, newest_price = await self._planned(scope)
        if plan_digest and plan.digest != plan_digest:
            raise OtherPlan
        done = Recomputation()
        if not plan.corrections:
            done.rows = plan.rows
            return done
        await self._audit("ledger.recompute_begun", scope, approved_by, recorded_at, plan)
        signed_price = newest_price if plan_digest else None
        place: Place | None = _START
        while place is not None:
            place, rows, corrections = await self._correct_page(scope, place, recorded_at, approved_by, signed_price)
            done.take(corrections, rows=rows)
        await self._audit("ledger.recomputed", scope, approved_by, recorded_at, done)
        return done

    async def _correct_page(
        self, scope: Scope, place: Place, recorded_at: datetime, approved_by: str, signed_price: int | None
    ) -> Page:
        def work(connection: Connection) -> Page:
            # Before reading: what another replica corrects meanwhile is then in what was charged.
            lock_heads(connection, [CORRECTIONS])
            if signed_price is not None and _newest_price(connection) != signed_price:
                raise OtherPlan  # a price was put since: nobody signed off what it gives
            page = self._page(connection, scope, place, recorded_at, approved_by)
            new = insert_entries(connection, [correction for correction, _ in page[2]], self._encode)
            # Last, as with every batch: it locks the budgets' accounts until the commit.
            count_spent(connection, [posting_of(entry) for entry in new], self._terms, now=to_microseconds(recorded_at))
            return page

        return await self._database.write(work)

    def _page(
        self, connection: Connection, scope: Scope, place: Place, recorded_at: datetime, approved_by: str
    ) -> Page:
        prices = read_prices(connection, default_currency=self._default_currency)
        rows = connection.execute(_entries(scope, place)).all()
        corrections = [
            correction
            for charged in _charged(connection, rows)
            for correction in corrections_of(charged, prices, recorded_at=recorded_at, approved_by=approved_by)
        ]
        after = (rows[-1].occurred_at_us, rows[-1].entry_id) if len(rows) == _PAGE else None
        return after, len(rows), corrections

    async def _audit(
        self, action: str, scope: Scope, approved_by: str, recorded_at: datetime, found: Recomputation
    ) -> None:
        details = {
            "from": scope.start.isoformat(),
            "until": scope.end.isoformat(),
            "corrections": found.corrections,
            "plan_digest": found.digest,
        }
        row = {
            "recorded_at_us": to_microseconds(recorded_at),
            "actor": approved_by,
            "action": action,
            "subject": scope.model or "all models",
            "details": json.dumps(details, sort_keys=True),
        }
        await self._database.write(lambda connection: connection.execute(insert(tables.audit).values(row)))


def _newest_price(connection: Connection) -> int:
    return int(connection.execute(select(func.max(tables.prices.c.price_id))).scalar() or 0)


def _entries(scope: Scope, place: Place) -> Select[Any]:
    ledger = tables.ledger.c
    chosen = [
        ledger.occurred_at_us >= max(to_microseconds(scope.start), place[0]),
        ledger.occurred_at_us < to_microseconds(scope.end),
        tuple_(ledger.occurred_at_us, ledger.entry_id) > tuple_(*place),
        ledger.charge_kind.not_in(_NOT_PRICED_ANEW),
    ]
    if scope.model:
        chosen.append(or_(ledger.model == scope.model, ledger.served_model == scope.model))
    return select(tables.ledger).where(and_(*chosen)).order_by(ledger.occurred_at_us, ledger.entry_id).limit(_PAGE)


def _charged(connection: Connection, rows: Sequence[Row[Any]]) -> Iterator[Charged]:
    corrected = _corrections(connection, [row.event_id for row in rows]) if rows else []
    by_entry: dict[str, list[Row[Any]]] = {}
    for row in corrected:
        by_entry.setdefault(row.corrects, []).append(row)
    for row in rows:
        lines = {row.currency: [getattr(row, column.name) for column in _LINE_COLUMNS]}
        was_priced = row.priced != Priced.UNPRICED.value
        for correction in by_entry.get(row.event_id, ()):
            before = lines.setdefault(correction.currency, [0] * len(LINES))
            sums = [int(getattr(correction, column.name)) for column in _LINE_COLUMNS]
            lines[correction.currency] = [old + new for old, new in zip(before, sums, strict=True)]
            was_priced = was_priced or bool(correction.newly_priced)
        yield Charged(completion_of(row), row.charge_kind, not was_priced, lines)


def _corrections(connection: Connection, event_ids: Sequence[str]) -> Sequence[Row[Any]]:
    ledger = tables.ledger.c
    newly_priced = func.sum(case((ledger.priced == Priced.NEWLY_PRICED.value, 1), else_=0))
    query = (
        select(
            ledger.corrects,
            ledger.currency,
            newly_priced.label("newly_priced"),
            *(func.sum(column).label(column.name) for column in _LINE_COLUMNS),
        )
        .where(ledger.corrects != "", ledger.corrects.in_(event_ids))
        .group_by(ledger.corrects, ledger.currency)
    )
    return connection.execute(query).all()
