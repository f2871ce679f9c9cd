"""Ledger rows as they are stored -> entries again."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, select, tuple_

from sluice_cost.adapters import tables
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import from_microseconds, to_microseconds
from sluice_cost.adapters.sql_prices import price_of_row
from sluice_cost.domain.ledger import SYNTHETIC, Completion, LedgerEntry, Partition
from sluice_cost.domain.pricing import Charge, Price, Priced
from sluice_cost.domain.usage import COMPUTE_BUCKETS, TOKEN_BUCKETS, Usage

_PAGE = 1_000


class SqlEntries:
    """Fits domain.ledger.EntryReader."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def entries(self, start: datetime, end: datetime, *, tenant_id: str) -> AsyncIterator[Sequence[LedgerEntry]]:
        """Pages of entries that happened in [start, end), in order; of one tenant or of all (empty)."""
        place = (to_microseconds(start), -1)
        while page := await self._database.read(self._page(place, to_microseconds(end), tenant_id)):
            yield [entry for _, entry in page]
            place = page[-1][0]

    def _page(self, place: tuple[int, int], end: int, tenant_id: str) -> Any:
        ledger = tables.ledger.c
        query: Select[Any] = (
            select(tables.ledger)
            .where(ledger.occurred_at_us >= place[0], ledger.occurred_at_us < end)
            .where(tuple_(ledger.occurred_at_us, ledger.entry_id) > tuple_(*place))
            .order_by(ledger.occurred_at_us, ledger.entry_id)
            .limit(_PAGE)
        )
        if tenant_id:
            query = query.where(ledger.tenant_id == tenant_id)

        def read(connection: Connection) -> list[tuple[tuple[int, int], LedgerEntry]]:
            rows = connection.execute(query).all()
            prices = _prices(connection, {row.price_id for row in rows})
            return [((row.occurred_at_us, row.entry_id), entry_of(row, prices)) for row in rows]

        return read


def _prices(connection: Connection, price_ids: set[int | None]) -> Mapping[int, Price]:
    wanted = [price_id for price_id in price_ids if price_id is not None]
    rows = connection.execute(select(tables.prices).where(tables.prices.c.price_id.in_(wanted))) if wanted else ()
    return {row.price_id: price_of_row(row) for row in rows}


def entry_of(row: Row[Any], prices: Mapping[int, Price]) -> LedgerEntry:
    """An entry as it was entered. Its trace and hold are not stored."""
    lines = {line.removesuffix("_nano"): getattr(row, line) for line in tables.LINES}
    price = prices[row.price_id] if row.price_id is not None else None
    return LedgerEntry(
        completion_of(row),
        Charge(Priced(row.priced), row.currency, **lines, price=price),
        from_microseconds(row.recorded_at_us),
        row.charge_kind,
        row.corrects,
        row.approved_by,
    )


def completion_of(row: Row[Any]) -> Completion:
    """The facts of a stored entry. Its trace is not stored."""
    return Completion(
        event_id=row.event_id,
        occurred_at=from_microseconds(row.occurred_at_us),
        request_id=row.request_id,
        tenant_id=row.tenant_id,
        project_id=row.project_id,
        subject_id=row.subject_id,
        api_key_id=row.api_key_id,
        operation=row.operation,
        model=row.model,
        served_model=row.served_model,
        route=row.route,
        outcome=row.outcome,
        usage=Usage(
            **{bucket: getattr(row, bucket) for bucket in (*TOKEN_BUCKETS, *COMPUTE_BUCKETS)},
            is_estimated=bool(row.usage_estimated),
        ),
        is_synthetic=row.charge_kind == SYNTHETIC,
        traceparent="",
        partition=Partition(row.source_topic, row.source_partition),
        offset=row.source_offset,
        prompt_version=row.prompt_version,
        experiment_arm=row.experiment_arm,
    )
