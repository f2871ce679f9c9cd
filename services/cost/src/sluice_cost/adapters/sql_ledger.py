"""The ledger in SQL: entries, sums, outbox and offsets in one transaction a batch."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, case, delete, func, select

from sluice_cost.adapters import tables
from sluice_cost.adapters.bulk import add_up, insert_new, replace
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import HOUR_US, to_microseconds
from sluice_cost.adapters.sql_books import Terms
from sluice_cost.adapters.sql_prices import read_prices
from sluice_cost.adapters.sql_spent import count_spent
from sluice_cost.domain.budget import Caller
from sluice_cost.domain.holds import Posting
from sluice_cost.domain.ledger import Completion, LedgerEntry, Partition, enter
from sluice_cost.domain.pricing import Priced, PriceHistory
from sluice_cost.domain.usage import TOKEN_BUCKETS


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
    ) -> Sequence[LedgerEntry]:
        """Enters what is new; see domain.ledger.Ledger."""

        def work(connection: Connection) -> list[LedgerEntry]:
            prices = self._current_prices(connection)
            entries = {
                completion.event_id: enter(completion, prices, recorded_at=recorded_at) for completion in completions
            }
            new = _insert_new(connection, entries)
            _add_to_spend(connection, new)
            _put_in_outbox(connection, new, encode)
            _keep_offsets(connection, next_offsets)
            # Last: it locks the budgets' accounts until the commit.
            count_spent(connection, [_posting(entry) for entry in new], self._terms, now=to_microseconds(recorded_at))
            return new

        return await self._database.write(work)

    async def next_offsets(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """The offset to read next of those of `partitions` that were read before."""
        positions = await self._database.read(read_positions)
        return {partition: positions[partition] for partition in partitions if partition in positions}

    async def hand_over(self, deliver: Callable[[Sequence[bytes]], None], *, limit: int) -> int:
        """Gives the oldest waiting events to `deliver` and takes them out of the outbox when it returns.

        Runs `deliver` in a thread, inside the transaction: when it raises, the events wait on. Returns how many went.
        """
        oldest = select(tables.outbox).order_by(tables.outbox.c.outbox_id).limit(limit)

        def work(connection: Connection) -> int:
            # Other replicas take other rows meanwhile. (SQLite has one writer and ignores the lock.)
            rows = connection.execute(oldest.with_for_update(skip_locked=True)).all()
            if rows:
                deliver([row.payload for row in rows])
                sent = [row.outbox_id for row in rows]
                connection.execute(delete(tables.outbox).where(tables.outbox.c.outbox_id.in_(sent)))
            return len(rows)

        return await self._database.write(work)

    def _current_prices(self, connection: Connection) -> PriceHistory:
        # Asked in the transaction of every batch: a price put through another replica is in force at once.
        newest = connection.execute(select(func.max(tables.prices.c.price_id))).scalar() or 0
        if newest != self._newest_price_id:
            self._prices = read_prices(connection, default_currency=self._default_currency)
            self._newest_price_id = newest
        return self._prices


def _insert_new(connection: Connection, entries: Mapping[str, LedgerEntry]) -> list[LedgerEntry]:
    if not entries:
        return []
    # Sorted: two replicas that insert the same events during a rebalance then wait for, and never deadlock, each other.
    rows = [_as_row(entries[event_id]) for event_id in sorted(entries)]
    inserted = insert_new(connection, tables.ledger, rows, key="event_id")
    return [entry for event_id, entry in entries.items() if event_id in inserted]


def _add_to_spend(connection: Connection, new: Sequence[LedgerEntry]) -> None:
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in new:
        key, amounts = _spend_of(entry)
        group = sums.setdefault(key, dict.fromkeys(tables.SPEND_SUMS, 0))
        for name, amount in amounts.items():
            group[name] += amount
    if sums:
        rows = [dict(zip(tables.SPEND_KEY, key, strict=True)) | sums[key] for key in sorted(sums)]
        add_up(connection, tables.spend_hours, rows, key=tables.SPEND_KEY, sums=tables.SPEND_SUMS)


def _put_in_outbox(connection: Connection, new: Sequence[LedgerEntry], encode: Callable[[LedgerEntry], bytes]) -> None:
    if new:
        rows = [{"cost_event_id": entry.cost_event_id, "payload": encode(entry)} for entry in new]
        insert_new(connection, tables.outbox, rows, key="cost_event_id")


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


def _posting(entry: LedgerEntry) -> Posting:
    completion = entry.completion
    return Posting(
        Caller(completion.tenant_id, completion.project_id, completion.api_key_id, completion.subject_id),
        to_microseconds(completion.occurred_at),
        entry.charge.currency,
        entry.charge.total,
        completion.cost_hold_id,
    )


def _as_row(entry: LedgerEntry) -> dict[str, Any]:
    completion, charge, usage = entry.completion, entry.charge, entry.completion.usage
    return {
        "event_id": completion.event_id,
        "cost_event_id": entry.cost_event_id,
        "charge_kind": entry.charge_kind,
        "occurred_at_us": to_microseconds(completion.occurred_at),
        "recorded_at_us": to_microseconds(entry.recorded_at),
        "request_id": completion.request_id,
        "tenant_id": completion.tenant_id,
        "project_id": completion.project_id,
        "subject_id": completion.subject_id,
        "api_key_id": completion.api_key_id,
        "model": completion.model,
        "served_model": completion.served_model,
        "route": completion.route,
        "operation": completion.operation,
        "outcome": completion.outcome,
        "priced": charge.priced.value,
        "price_id": charge.price.price_id if charge.price else None,
        "currency": charge.currency,
        "amount_nano": charge.total,
        **{line: getattr(charge, line.removesuffix("_nano")) for line in tables.LINES},
        **{bucket: getattr(usage, bucket) for bucket in TOKEN_BUCKETS},
        "usage_estimated": int(usage.is_estimated),
        "source_topic": completion.partition.topic,
        "source_partition": completion.partition.number,
        "source_offset": completion.offset,
    }


def _spend_of(entry: LedgerEntry) -> tuple[tuple[Any, ...], dict[str, int]]:
    """The group of the hourly sums an entry belongs to, in the order of SPEND_KEY, and what it adds."""
    completion, usage = entry.completion, entry.completion.usage
    moment = to_microseconds(completion.occurred_at)
    key = (
        moment - moment % HOUR_US,
        completion.tenant_id,
        completion.project_id,
        completion.model,
        completion.api_key_id,
        completion.route,
        entry.charge_kind,
        completion.outcome,
        entry.charge.currency,
    )
    amounts = {
        "row_count": 1,
        "request_count": 1,
        "unpriced_request_count": int(entry.charge.priced is Priced.UNPRICED),
        "estimated_request_count": int(usage.is_estimated),
        "amount_nano": entry.charge.total,
    }
    return key, amounts | {bucket: getattr(usage, bucket) for bucket in TOKEN_BUCKETS}


# The same sums over ledger rows, for the parts of a range that are no whole hours.
LEDGER_SUMS: Mapping[str, Any] = {
    "row_count": func.count(),
    "request_count": func.count(),
    "unpriced_request_count": func.sum(case((tables.ledger.c.priced == Priced.UNPRICED.value, 1), else_=0)),
    "estimated_request_count": func.sum(tables.ledger.c.usage_estimated),
    "amount_nano": func.sum(tables.ledger.c.amount_nano),
    **{bucket: func.sum(tables.ledger.c[bucket]) for bucket in TOKEN_BUCKETS},
}
