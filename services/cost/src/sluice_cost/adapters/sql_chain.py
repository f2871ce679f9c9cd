"""The hash chain in SQL: locks and moves its heads with every batch, and walks it again to see whether it still holds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, func, select, tuple_

from sluice_cost.adapters import tables
from sluice_cost.adapters.bulk import insert_missing, replace
from sluice_cost.adapters.database import Database
from sluice_cost.domain.chain import (
    EMPTY,
    GENESIS,
    SEALED_COLUMNS,
    ChainWalk,
    Head,
    StoredRow,
    Verification,
    seal,
)
from sluice_cost.domain.ledger import Partition

_KEY = ("topic", "partition_number")
_PAGE = 2_000
_PRICE_COLUMNS = {"price_model": "", "price_version": 0}


def lock_heads(connection: Connection, chains: Iterable[Partition]) -> dict[Partition, Head]:
    """The heads of `chains`, which no other transaction moves until this one ends.

    A chain is a partition, and a partition has one reader: replicas wait for each other during a rebalance only.
    """
    wanted = sorted(set(chains), key=lambda chain: (chain.topic, chain.number))
    heads = _locked(connection, wanted)
    missing = [chain for chain in wanted if chain not in heads]
    if missing:
        fresh = [_as_row(chain, EMPTY) for chain in missing]
        insert_missing(connection, tables.chain_heads, fresh, key=_KEY)
        heads |= _locked(connection, missing)
    return heads


def move_heads(connection: Connection, heads: Mapping[Partition, Head]) -> None:
    """Keeps the new ends of chains that are locked."""
    if heads:
        rows = [_as_row(chain, head) for chain, head in heads.items()]
        replace(connection, tables.chain_heads, rows, key=_KEY, values=("number", "hash"))


def read_heads(connection: Connection) -> dict[Partition, Head]:
    """The ends of all chains."""
    return {_chain(row): _head(row) for row in connection.execute(select(tables.chain_heads)).all()}


def _locked(connection: Connection, chains: Sequence[Partition]) -> dict[Partition, Head]:
    columns = tables.chain_heads.c
    wanted = tuple_(columns.topic, columns.partition_number).in_([(chain.topic, chain.number) for chain in chains])
    query = select(tables.chain_heads).where(wanted).order_by(columns.topic, columns.partition_number)
    return {_chain(row): _head(row) for row in connection.execute(query.with_for_update()).all()}


def _as_row(chain: Partition, head: Head) -> dict[str, Any]:
    return {
        "topic": chain.topic,
        "partition_number": chain.number,
        "number": head.number,
        "hash": head.hash,
        "unsealed": head.unsealed,
    }


def _chain(row: Row[Any]) -> Partition:
    return Partition(row.topic, row.partition_number)


def _head(row: Row[Any]) -> Head:
    return Head(row.number, bytes(row.hash), row.unsealed)


def stored_rows(connection: Connection) -> Iterator[list[StoredRow]]:
    """All ledger rows in the order they were entered, some thousand at a time."""
    ledger, prices = tables.ledger.c, tables.prices.c
    sealed = (name for name in SEALED_COLUMNS if name not in _PRICE_COLUMNS)
    query = (
        select(
            ledger.entry_id,
            ledger.chain_number,
            ledger.entry_hash,
            *(ledger[name] for name in sealed),
            func.coalesce(prices.model, "").label("price_model"),
            func.coalesce(prices.version, 0).label("price_version"),
        )
        .select_from(tables.ledger.outerjoin(tables.prices, ledger.price_id == prices.price_id))
        .order_by(ledger.entry_id)
        .limit(_PAGE)
    )
    last = -1
    # Not a cursor: SQLite and psycopg's default cursor would hold the whole answer.
    while page := connection.execute(query.where(ledger.entry_id > last)).all():
        last = page[-1].entry_id
        yield [_stored(row) for row in page]


def _stored(row: Any) -> StoredRow:
    found = row._mapping
    return StoredRow(
        row.entry_id,
        Partition(row.source_topic, row.source_partition),
        row.event_id,
        row.chain_number,
        bytes(row.entry_hash or b""),
        [found[name] for name in SEALED_COLUMNS],
    )


def begin_chains(connection: Connection) -> None:
    """For the migration: makes the heads over the rows that were written before there were chains."""
    heads: dict[Partition, tuple[int, bytes]] = {}
    for page in stored_rows(connection):
        for row in page:
            number, before = heads.get(row.chain, (0, GENESIS))
            heads[row.chain] = number + 1, seal(before, number + 1, row.values)
    rows = [_as_row(chain, Head(number, last, unsealed=number)) for chain, (number, last) in heads.items()]
    chunks = iter(rows)
    while chunk := list(islice(chunks, 500)):
        insert_missing(connection, tables.chain_heads, chunk, key=_KEY)


class SqlChainVerifier:
    """Fits domain.chain.ChainVerifier."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def verify(
        self, published: Mapping[Partition, Sequence[Head]], report_rows: Callable[[int], None]
    ) -> Verification:
        """Walks all rows in one view of the data; calls `report_rows` from another thread."""
        return await self._database.read(lambda connection: _verify(connection, published, report_rows))

    async def heads(self) -> Mapping[Partition, Head]:
        """The ends of all chains, as kept."""
        return await self._database.read(read_heads)


def _verify(
    connection: Connection, published: Mapping[Partition, Sequence[Head]], report_rows: Callable[[int], None]
) -> Verification:
    walk = ChainWalk(read_heads(connection), published)
    for page in stored_rows(connection):
        if (broken := walk.broken_by(page)) is not None:
            return Verification(walk.rows, broken)
        report_rows(walk.rows)
    if (broken := walk.broken_at_the_end()) is not None:
        return Verification(walk.rows, broken)
    sums_agree = _totals(connection, tables.ledger, func.count()) == _totals(
        connection, tables.spend_hours, func.sum(tables.spend_hours.c.row_count)
    )
    return Verification(walk.rows, None, walk.heads, sums_agree)


def _totals(connection: Connection, table: Table, count: ColumnElement[Any]) -> dict[str, tuple[int, int]]:
    """Rows and nano-units by currency."""
    query = select(table.c.currency, count, func.sum(table.c.amount_nano)).group_by(table.c.currency)
    return {currency: (int(rows), int(amount)) for currency, rows, amount in connection.execute(query)}
