"""Versions of the cost database side by side: a new one beside the live one, and the exchange of the two."""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, Table, create_engine, delete, func, insert, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from sluice_cost.adapters import budget_tables, tables
from sluice_cost.adapters.database import Database, open_database
from sluice_cost.domain.ledger import LedgerUnavailable

REBUILT = frozenset({"cost_ledger", "cost_chain_heads", "cost_spend_hours", "cost_consumer_offsets"})
"""What a replay makes from events. Everything else is decided or under way: it is carried over."""
KEPT_FOR_PRICING = ("cost_prices", "cost_price_books")
PATIENCE_SECONDS = 5.0
_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,29}")


class Refused(Exception):
    """It cannot be done; the message says why and what to do."""


def check_name(name: str) -> str:
    """The name of a version; Refused for what cannot be one."""
    if not _NAME.fullmatch(name) or name.startswith("before_"):
        raise Refused(f"--into {name}: take 1 to 30 small letters, digits and underscores, and not before_....")
    return name


def url_of(live: str, name: str) -> str:
    """Where the version `name` stands beside the live database."""
    address = make_url(live)
    return _beside(address, name).render_as_string(hide_password=False)


def create(live: str, name: str) -> Database:
    """An empty database beside the live one; one of this name is replaced."""
    drop(live, name)
    address = make_url(url_of(live, name))
    if address.get_backend_name() != "sqlite":
        _administer(live, [f"CREATE DATABASE {_quoted(str(address.database))}"])
    return open_database(address.render_as_string(hide_password=False))


def drop(live: str, name: str) -> None:
    """No more a version of this name."""
    address = make_url(url_of(live, name))
    if address.get_backend_name() != "sqlite":
        _administer(live, [f"DROP DATABASE IF EXISTS {_quoted(str(address.database))} WITH (FORCE)"])
        return
    for path in _files(Path(str(address.database))):
        path.unlink(missing_ok=True)


def exists(live: str, name: str) -> bool:
    """Whether there is a version of this name."""
    address = make_url(url_of(live, name))
    if address.get_backend_name() == "sqlite":
        return Path(str(address.database)).exists()
    engine = create_engine(live)
    try:
        with engine.connect() as connection:
            asked = text("SELECT count(*) FROM pg_database WHERE datname = :name")
            return bool(connection.execute(asked, {"name": address.database}).scalar())
    finally:
        engine.dispose()


def _others(live: str) -> int:
    """Connections of others that stay: of who has just gone PostgreSQL ends the process a moment later, and renaming waits as long."""
    engine = create_engine(
        live, isolation_level="AUTOCOMMIT"
    )  # within one transaction it would tell the same again and again
    asked = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend'"
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        with engine.connect() as connection:
            while (others := int(connection.execute(asked).scalar_one())) and time.monotonic() < deadline:
                time.sleep(0.1)
            return others
    finally:
        engine.dispose()


def refuse_while_in_use(live: str) -> None:
    """Refused while anybody is connected to the live database. (The broker's word would not do: a group remembers who left.)"""
    address = make_url(live)
    if address.get_backend_name() == "sqlite":
        _empty_journal(Path(str(address.database)))
        return
    if others := _others(live):
        raise Refused(
            f"The database {address.database} is in use by {others} connections: stop every cost service first."
        )


def exchange(live: str, name: str) -> str:
    """Puts the version `name` in the live one's place, at once; returns where the former live one is kept.

    Nobody may be connected to either.
    """
    before = f"before_{name}"
    if exists(live, before):
        raise Refused(
            f"The ledger of before a former switch is still kept as `{before}`: move it away, or take another --into."
        )
    if make_url(live).get_backend_name() == "sqlite":
        return _exchange_files(live, name, before)
    return _exchange_databases(live, name, before)


def copy_tables(source: Connection, target: Connection, names: Sequence[str]) -> None:
    """Rows with their numbers, into tables that may hold some of them already."""
    for table in tables.metadata.sorted_tables:
        if table.name in names:
            _copy(source, target, table)
            _go_on_numbering(target, table)


def carried() -> tuple[str, ...]:
    """The tables that a switch takes from the live database."""
    assert budget_tables.metadata is tables.metadata  # its tables are among them once it is imported
    return tuple(table.name for table in tables.metadata.sorted_tables if table.name not in REBUILT)


def empty(target: Connection, name: str) -> None:
    """Delete the rows of a table."""
    target.execute(delete(tables.metadata.tables[name]))


def _copy(source: Connection, target: Connection, table: Table) -> None:
    rows = [dict(row._mapping) for row in source.execute(select(table))]
    held = {tuple(row) for row in target.execute(select(table))}
    if held == {tuple(row.values()) for row in rows}:
        return
    if not held <= {tuple(row.values()) for row in rows}:
        # Only where a row changed: tables that are only added to refuse it, and never need it.
        target.execute(delete(table))
        held = set()
    missing = [row for row in rows if tuple(row.values()) not in held]
    if missing:
        target.execute(insert(table), missing)


def _go_on_numbering(target: Connection, table: Table) -> None:
    if target.dialect.name != "postgresql":
        return  # SQLite numbers from the highest on
    for column in table.primary_key:
        sequence = target.execute(
            text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
        ).scalar()
        highest = target.execute(select(func.max(column))).scalar() if sequence else None
        if highest is not None:
            target.execute(text("SELECT setval(:sequence, :highest)"), {"sequence": sequence, "highest": highest})


def _beside(address: URL, name: str) -> URL:
    if address.get_backend_name() == "sqlite":
        live = Path(str(address.database))
        return address.set(database=str(live.with_name(f"{live.stem}.{name}{live.suffix}")))
    return address.set(database=f"{address.database}_{name}")


def _files(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))]


def _exchange_files(live: str, name: str, before: str) -> str:
    path, fresh, kept = (Path(str(make_url(url).database)) for url in (live, url_of(live, name), url_of(live, before)))
    for database in (path, fresh):
        _empty_journal(database)
    # A second name first, then one rename over the first: at no moment is there no ledger.
    os.link(path, kept)
    os.replace(fresh, path)
    return str(kept)


def _empty_journal(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
    finally:
        engine.dispose()
    # Whoever closes it last deletes the journal: where it is left, somebody has it open.
    if busy or _files(path)[1].exists():
        raise Refused(f"{path} is in use: stop every cost service first.")


def _exchange_databases(live: str, name: str, before: str) -> str:
    current, fresh, kept = (str(make_url(url).database) for url in (live, url_of(live, name), url_of(live, before)))
    engine = create_engine(make_url(live).set(database="postgres"))
    try:
        with engine.begin() as connection:  # both renames or none
            connection.exec_driver_sql(f"ALTER DATABASE {_quoted(current)} RENAME TO {_quoted(kept)}")
            connection.exec_driver_sql(f"ALTER DATABASE {_quoted(fresh)} RENAME TO {_quoted(current)}")
    except DBAPIError as error:
        raise Refused(
            f"The databases cannot be exchanged ({type(error.orig).__name__}): stop the cost service, and connect as their owner."
        ) from None
    finally:
        engine.dispose()
    return kept


def _administer(live: str, statements: Sequence[str]) -> None:
    engine = create_engine(live, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    except DBAPIError as error:
        raise LedgerUnavailable(
            f"a database beside {make_url(live).render_as_string(hide_password=True)} cannot be made ({type(error.orig).__name__}): "
            "its user needs CREATEDB"
        ) from None
    finally:
        engine.dispose()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
