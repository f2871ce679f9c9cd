"""Sums what was spent: whole hours from the hourly sums, the rest of a range from the ledger rows themselves."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, and_, func, select

from sluice_cost.adapters import tables
from sluice_cost.adapters.database import Database
from sluice_cost.adapters.moments import DAY_US, HOUR_US, from_microseconds, to_microseconds
from sluice_cost.adapters.sql_entries import LEDGER_SUMS
from sluice_cost.adapters.sql_ledger import read_positions
from sluice_cost.domain.ledger import JUDGE, SYNTHETIC
from sluice_cost.domain.spend import (
    MOST_GROUPS,
    Dimension,
    Spend,
    SpendGroup,
    SpendQuery,
    SpendReport,
    TooManyGroups,
    largest_first,
)

_LENGTHS = {Dimension.DAY: DAY_US, Dimension.HOUR: HOUR_US}
_HOUR_SUMS: Mapping[str, Any] = {name: func.sum(tables.spend_hours.c[name]) for name in tables.SPEND_SUMS}


class SqlSpend:
    """Fits domain.spend.SpendReader."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def spend(self, query: SpendQuery) -> SpendReport:
        """Sums, groups and tells how far the events were read, all in one view of the data."""
        return await self._database.read(lambda connection: _report(connection, query))


def _report(connection: Connection, query: SpendQuery) -> SpendReport:
    groups: dict[SpendGroup, Spend] = {}
    for statement in _statements(query):
        for row in connection.execute(statement.limit(MOST_GROUPS + 1)):
            values = tuple(_text(query.group_by[i], row[i]) for i in range(len(query.group_by)))
            sums = Spend(**{name: int(getattr(row, name) or 0) for name in tables.SPEND_SUMS})
            groups.setdefault(SpendGroup(values, row.currency), Spend()).add(sums)
    if len(groups) > MOST_GROUPS:
        raise TooManyGroups
    return SpendReport(largest_first(groups), read_positions(connection))


def _statements(query: SpendQuery) -> Iterator[Select[Any]]:
    start, end = to_microseconds(query.start), to_microseconds(query.end)
    first_hour, last_hour = -(-start // HOUR_US) * HOUR_US, end // HOUR_US * HOUR_US
    # The hourly sums do not know subjects: there are too many of them.
    needs_rows = Dimension.SUBJECT in {*query.group_by, *(chosen.dimension for chosen in query.filters)}
    if needs_rows or first_hour >= last_hour:
        yield _sums(tables.ledger, tables.ledger.c.occurred_at_us, LEDGER_SUMS, query, start, end)
        return
    yield _sums(tables.spend_hours, tables.spend_hours.c.hour_us, _HOUR_SUMS, query, first_hour, last_hour)
    for edge in ((start, first_hour), (last_hour, end)):
        if edge[0] < edge[1]:
            yield _sums(tables.ledger, tables.ledger.c.occurred_at_us, LEDGER_SUMS, query, *edge)


def _sums(
    table: Table, moment: ColumnElement[int], sums: Mapping[str, Any], query: SpendQuery, start: int, end: int
) -> Select[Any]:
    def column(dimension: Dimension) -> ColumnElement[Any]:
        length = _LENGTHS.get(dimension)
        return table.c[dimension.value] if length is None else moment - moment % length

    def chosen(dimension: Dimension, values: Sequence[str]) -> ColumnElement[bool]:
        return column(dimension).in_([_stored(dimension, value) for value in values])

    wanted = [chosen(f.dimension, f.values) for f in query.filters]
    if query.callers_only:
        wanted.append(table.c.charge_kind.not_in((SYNTHETIC, JUDGE)))
    grouped = [column(dimension).label(f"group_{i}") for i, dimension in enumerate(query.group_by)]
    return (
        select(*grouped, table.c.currency, *(value.label(name) for name, value in sums.items()))
        .where(and_(moment >= start, moment < end, *wanted))
        .group_by(*grouped, table.c.currency)
    )


def _stored(dimension: Dimension, value: str) -> Any:
    return value if dimension not in _LENGTHS else to_microseconds(datetime.fromisoformat(value).replace(tzinfo=UTC))


def _text(dimension: Dimension, value: Any) -> str:
    if dimension is Dimension.DAY:
        return from_microseconds(value).date().isoformat()
    return f"{from_microseconds(value):%Y-%m-%dT%H}" if dimension is Dimension.HOUR else str(value)
