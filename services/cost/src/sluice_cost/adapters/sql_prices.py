"""Prices in SQL: versions are only ever added, and every addition leaves an audit row."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select

from sluice_cost.adapters import tables
from sluice_cost.adapters.database import Database, serialise
from sluice_cost.adapters.moments import from_microseconds, to_microseconds
from sluice_cost.domain.price_book import PriceBook, PriceBookMistakes
from sluice_cost.domain.pricing import BUCKETS, Price, PriceHistory, Tier

_AMOUNTS = (*BUCKETS, "per_request", "minimum", "cpu_second", "accelerator_second", "cpus_milli", "accelerators_milli")


class SqlPrices:
    """Fits domain.pricing.PriceStore."""

    def __init__(self, database: Database, *, default_currency: str) -> None:
        self._database = database
        self._default_currency = default_currency

    async def prices(self) -> PriceHistory:
        """Every price ever in force."""
        return await self._database.read(
            lambda connection: read_prices(connection, default_currency=self._default_currency)
        )

    async def put(self, price: Price, *, recorded_at: datetime) -> Price:
        """Stores a new version of a model's price."""
        return await self._database.write(lambda connection: _add(connection, price, recorded_at))

    async def put_all(self, prices: Sequence[Price], *, recorded_at: datetime) -> Sequence[Price]:
        """Stores several in one transaction."""
        return await self._database.write(lambda connection: [_add(connection, price, recorded_at) for price in prices])

    async def load(self, book: PriceBook, *, recorded_at: datetime) -> bool:
        """Stores a book's prices once; False when this version of it is stored already.

        Raises PriceBookMistakes when the version is stored with other content: what was charged must stay explainable.
        """
        return await self._database.write(lambda connection: _load(connection, book, recorded_at))


def read_prices(connection: Connection, *, default_currency: str) -> PriceHistory:
    """Every price ever in force."""
    rows = connection.execute(select(tables.prices)).all()
    return PriceHistory((price_of_row(row) for row in rows), default_currency=default_currency)


def price_of_row(row: Any) -> Price:
    """A stored price."""
    return Price(
        row.model,
        row.currency,
        from_microseconds(row.effective_from_us),
        **{name: getattr(row, name) for name in _AMOUNTS},
        tiers=tuple(Tier(**tier) for tier in json.loads(row.tiers)),
        book=row.book,
        approved_by=row.approved_by,
        version=row.version,
        price_id=row.price_id,
    )


def _load(connection: Connection, book: PriceBook, recorded_at: datetime) -> bool:
    serialise(connection, "cost price books")
    digest = _digest(book)
    stored = connection.execute(
        select(tables.price_books.c.digest).where(
            tables.price_books.c.book_id == book.id, tables.price_books.c.version == book.version
        )
    ).scalar()
    if stored == digest:
        return False
    if stored is not None:
        raise PriceBookMistakes(
            [f"version: {book.version!r} of {book.id!r} is in use with other content; raise the version"]
        )
    for price in book.prices:
        _add(connection, price, recorded_at)
    connection.execute(
        insert(tables.price_books).values(
            book_id=book.id,
            version=book.version,
            digest=digest,
            approved_by=book.approved_by,
            recorded_at_us=to_microseconds(recorded_at),
        )
    )
    return True


def _add(connection: Connection, price: Price, recorded_at: datetime) -> Price:
    serialise(connection, "cost price versions")
    newest = connection.execute(
        select(func.max(tables.prices.c.version)).where(tables.prices.c.model == price.model)
    ).scalar()
    numbered = replace(price, version=(newest or 0) + 1)
    amounts = {name: getattr(price, name) for name in _AMOUNTS}
    row = {
        "model": price.model,
        "version": numbered.version,
        "currency": price.currency,
        "effective_from_us": to_microseconds(price.effective_from),
        **amounts,
        "tiers": json.dumps([asdict(tier) for tier in price.tiers]),
        "book": price.book,
        "approved_by": price.approved_by,
        "recorded_at_us": to_microseconds(recorded_at),
    }
    price_id = connection.execute(insert(tables.prices).values(row)).inserted_primary_key
    assert price_id is not None
    connection.execute(
        insert(tables.audit).values(
            recorded_at_us=to_microseconds(recorded_at),
            actor=price.approved_by,
            action="price.put",
            subject=price.model,
            details=json.dumps(row, sort_keys=True),
        )
    )
    return replace(numbered, price_id=price_id[0])


def _digest(book: PriceBook) -> str:
    return hashlib.sha256(json.dumps(asdict(book), sort_keys=True, default=str).encode()).hexdigest()
