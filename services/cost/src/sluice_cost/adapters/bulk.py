"""Many rows in one INSERT, in the way each database is fastest at."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import psycopg
from sqlalchemy import Connection, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite

from sluice_cost.domain.ledger import LedgerUnavailable

Rows = Sequence[Mapping[str, Any]]


def insert_new(connection: Connection, table: Table, rows: Rows, *, key: str) -> set[Any]:
    """Inserts rows whose `key` is not there yet; returns the keys of those that were inserted."""
    statement = _insert(connection, table, rows).on_conflict_do_nothing(index_elements=[key])
    return set(connection.execute(statement.returning(table.c[key]), _parameters(connection, rows)).scalars())


def insert_missing(connection: Connection, table: Table, rows: Rows, *, key: Sequence[str]) -> None:
    """Inserts rows whose `key` is not there yet."""
    statement = _insert(connection, table, rows).on_conflict_do_nothing(index_elements=list(key))
    connection.execute(statement, _parameters(connection, rows))


def insert_all(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Inserts rows, values in the order of `names`. None of them may be there already."""
    if connection.dialect.name == "postgresql":
        _copy(connection, table, names, rows)
        return
    places = ", ".join("?" for _ in names)
    statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({places})"  # noqa: S608 - names of the code's own
    # By the driver: SQLAlchemy's own way reads every value through its type first.
    connection.exec_driver_sql(statement, [tuple(row) for row in rows])


def _copy(connection: Connection, table: Table, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    # Nothing is parsed, planned or looked up by row (tests/bench/ledger_speed.py tells what it gains over arrays).
    driver: Any = connection.connection.driver_connection
    statement = f"COPY {table.name} ({', '.join(names)}) FROM STDIN"
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.errors.UniqueViolation:
        # Another replica was faster with one of them: the whole transaction is tried again, and finds it there.
        raise LedgerUnavailable("another replica entered the same event just now") from None
    except psycopg.OperationalError as error:
        raise LedgerUnavailable(f"the cost database is not available ({type(error).__name__})") from None


def add_up(connection: Connection, table: Table, rows: Rows, *, key: Sequence[str], sums: Sequence[str]) -> None:
    """Inserts rows, or adds their `sums` to the row of the same `key`. No two rows may have the same key."""
    statement = _insert(connection, table, rows)
    adding = {name: table.c[name] + statement.excluded[name] for name in sums}
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(key), set_=adding), _parameters(connection, rows)
    )


def replace(connection: Connection, table: Table, rows: Rows, *, key: Sequence[str], values: Sequence[str]) -> None:
    """Inserts rows, or overwrites the `values` of the row of the same `key`."""
    statement = _insert(connection, table, rows)
    new = {name: statement.excluded[name] for name in values}
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(key), set_=new), _parameters(connection, rows)
    )


def _insert(connection: Connection, table: Table, rows: Rows) -> Any:
    if connection.dialect.name != "postgresql":
        return sqlite.insert(table)
    return _insert_from_arrays(table, tuple(rows[0]))


@cache
def _insert_from_arrays(table: Table, names: tuple[str, ...]) -> Any:
    # One array a column: the statement's text is the same for any number of rows, so it is parsed and prepared once.
    # With a parameter a value (500 rows of 37) it took three times as long (tests/bench/ledger_speed.py),
    # most of it spent on reading the statement.
    arrays = (func.unnest(bindparam(name, type_=postgresql.ARRAY(table.c[name].type))) for name in names)
    return postgresql.insert(table).from_select(names, select(*arrays))


def _parameters(connection: Connection, rows: Rows) -> Any:
    if connection.dialect.name != "postgresql":
        return rows
    return {name: [row[name] for row in rows] for name in rows[0]}
