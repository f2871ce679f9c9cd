"""The ledger in SQL: entries, sums, outbox and offsets in one transaction a batch."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from sluice_cost.adapters import tables
from sluice_cost.adapters.bulk import replace
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import to_microseconds
from sluice_cost.adapters.outbox import Telling
from sluice_cost.adapters.sql_books import Terms
from sluice_cost.adapters.sql_entries import insert_entries
from sluice_cost.adapters.sql_prices import read_prices
from sluice_cost.adapters.sql_spent import count_spent
from sluice_cost.domain.budget import Caller
from sluice_cost.domain.holds import Posting
from sluice_cost.domain.ledger import JUDGE, Completion, LedgerEntry, Measured, Partition, enter, enter_measured
from sluice_cost.domain.pricing import PriceHistory


class SqlLedger:
    """Fits domain.ledger.Ledger, and keeps the outbox of what is to be told."""

    def __init__(self, database: Database, *, default_currency: str) -> None:
        self._database = database
        self._default_currency = default_currency
        self._prices = PriceHistory([], default_currency=default_currency)
        self._newest_price_id = 0
        self._terms = Terms(default_currency=default_currency)

    async def append(
        self,
        completions: Sequence[Completion],
        next_offsets: Mapping[Partition, int],
        *,
        recorded_at: datetime,
        encode: Callable[[LedgerEntry], bytes],
        measured: Sequence[Measured] = (),
    ) -> Sequence[LedgerEntry]:
        """Enters what is new; see domain.ledger.Ledger."""

        def work(connection: Connection) -> list[LedgerEntry]:
            prices = self._current_prices(connection)
            entries = [enter(completion, prices, recorded_at=recorded_at) for completion in completions]
            times = (enter_measured(one, prices, recorded_at=recorded_at) for one in measured)
            new = insert_entries(connection, [*entries, *(entry for entry in times if entry)], encode)
            _keep_offsets(connection, next_offsets)
            # Last: it locks the budgets' accounts until the commit.
            count_spent(connection, postings_of(new), self._terms, now=to_microseconds(recorded_at))
            return new

        return await self._database.write(work)

    async def next_offsets(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """The offset to read next of those of `partitions` that were read before."""
        positions = await self._database.read(read_positions)
        return {partition: positions[partition] for partition in partitions if partition in positions}

    async def hand_over(self, deliver: Callable[[Sequence[Telling]], None], *, limit: int) -> int:
        """Gives the oldest waiting events to `deliver` and takes them out of the outbox when it returns.

        Runs `deliver` in a thread; neither the ledger nor Reserve waits for it. When it raises, or the process ends before
        they are taken out, the events wait on, and are sent again with the same ids. Returns how many went.
        """
        oldest = select(tables.outbox).order_by(tables.outbox.c.outbox_id).limit(limit)
        if self._database.dialect == "sqlite":
            # Its one writer must not be kept while Kafka is waited for: two short steps.
            rows = await self._database.read(lambda connection: connection.execute(oldest).all())
            if rows:
                await asyncio.to_thread(deliver, _tellings(rows))
                await self._database.write(lambda connection: _take_out(connection, rows))
            return len(rows)

        def work(connection: Connection) -> int:
            # Other replicas take other rows meanwhile.
            rows = connection.execute(oldest.with_for_update(skip_locked=True)).all()
            if rows:
                deliver(_tellings(rows))
                _take_out(connection, rows)
            return len(rows)

        return await self._database.write_apart(work)

    def _current_prices(self, connection: Connection) -> PriceHistory:
        # Asked in the transaction of every batch: a price put through another replica is in force at once.
        newest = connection.execute(select(func.max(tables.prices.c.price_id))).scalar() or 0
        if newest != self._newest_price_id:
            self._prices = read_prices(connection, default_currency=self._default_currency)
            self._newest_price_id = newest
        return self._prices


def _tellings(rows: Sequence[Row[Any]]) -> list[Telling]:
    return [Telling(row.cost_event_id, row.event_type, row.payload) for row in rows]


def _take_out(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    connection.execute(delete(tables.outbox).where(tables.outbox.c.outbox_id.in_([row.outbox_id for row in rows])))


def _keep_offsets(connection: Connection, next_offsets: Mapping[Partition, int]) -> None:
    rows = [
        {"topic": partition.topic, "partition_number": partition.number, "next_offset": next_offset}
        for partition, next_offset in sorted(next_offsets.items(), key=lambda item: (item[0].topic, item[0].number))
    ]
    if rows:
        # Not the greatest of old and new: a topic that was made anew starts at 0, and a replay is harmless.
        key = ("topic", "partition_number")
        replace(connection, tables.consumer_offsets, rows, key=key, values=["next_offset"])


def read_positions(connection: Connection) -> dict[Partition, int]:
    """How far every partition was read."""
    rows: Sequence[Row[Any]] = connection.execute(select(tables.consumer_offsets)).all()
    return {Partition(row.topic, row.partition_number): row.next_offset for row in rows}


def postings_of(entries: Sequence[LedgerEntry]) -> list[Posting]:
    """What entries are to budgets: judging is in nobody's, for no caller asked for it."""
    return [posting_of(entry) for entry in entries if entry.charge_kind != JUDGE]


def posting_of(entry: LedgerEntry) -> Posting:
    """What an entry is to the budgets over its caller."""
    completion = entry.completion
    return Posting(
        Caller(completion.tenant_id, completion.project_id, completion.api_key_id, completion.subject_id),
        to_microseconds(completion.occurred_at),
        entry.charge.currency,
        entry.charge.total,
        completion.cost_hold_id,
    )
