"""Versions of the feedback database side by side: a new one beside the live one, and the exchange of the two."""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from sluice_feedback.adapters.database import Database, open_database

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
    """Where the version `name` stands: `feedback.NAME.db`, or the PostgreSQL database `..._NAME`."""
    address = make_url(live)
    if _is_file(address):
        path = _path(address)
        beside = str(path.with_name(f"{path.stem}.{name}{path.suffix}"))
    else:
        beside = f"{address.database}_{name}"
    return address.set(database=beside).render_as_string(hide_password=False)


def create(live: str, name: str) -> Database:
    """An empty database beside the live one; one of this name is replaced."""
    address = make_url(url_of(live, name))
    if _is_file(address):
        for path in _files(_path(address)):
            path.unlink(missing_ok=True)
    else:
        quoted = _quoted(address)
        _administer(live, [f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)", f"CREATE DATABASE {quoted}"])
    return open_database(address.render_as_string(hide_password=False))


def exists(live: str, name: str) -> bool:
    """Whether there is a version of this name."""
    address = make_url(url_of(live, name))
    if _is_file(address):
        return _path(address).exists()
    asked = "SELECT count(*) FROM pg_database WHERE datname = :name"
    return bool(_asked(live, asked, name=str(address.database)))


def _others(live: str) -> int:
    """Connections of others that stay: of who has just gone PostgreSQL ends the process a moment later, and renaming waits as long."""
    # One connection, or the one of the last question would be such another; without a transaction, which would tell the same again and again.
    engine = create_engine(live, isolation_level="AUTOCOMMIT")
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
    """Refused while anybody is connected to the live database."""
    address = make_url(live)
    if _is_file(address):
        _empty_journal(_path(address))
    elif others := _others(live):
        raise Refused(f"The database {address.database} is in use by {others} connections: stop the feedback service.")


def exchange(live: str, name: str) -> str:
    """Puts the version `name` in the live one's place, at once; returns where the former live one is kept.

    Nobody may be connected to either.
    """
    before = f"before_{name}"
    if exists(live, before):
        raise Refused(
            f"What a former switch replaced is still kept as `{before}`: move it away, or take another --into."
        )
    current, fresh, kept = make_url(live), make_url(url_of(live, name)), make_url(url_of(live, before))
    if not _is_file(current):
        # One transaction: both renames or none.
        _administer(
            live,
            [
                f"ALTER DATABASE {_quoted(current)} RENAME TO {_quoted(kept)}",
                f"ALTER DATABASE {_quoted(fresh)} RENAME TO {_quoted(current)}",
            ],
            together=True,
        )
        return str(kept.database)
    for address in (current, fresh):
        _empty_journal(_path(address))
    # A second name first, then one rename over the first: at no moment is there no database.
    os.link(_path(current), _path(kept))
    os.replace(_path(fresh), _path(current))
    return str(_path(kept))


def _is_file(address: URL) -> bool:
    return address.get_backend_name() == "sqlite"


def _path(address: URL) -> Path:
    return Path(str(address.database))


def _files(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))]


def _empty_journal(path: Path) -> None:
    engine = create_engine(f"sqlite:///{path}")
    try:
        with engine.connect() as connection:
            busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
    finally:
        engine.dispose()
    # Whoever closes it last deletes the journal: where it is left, somebody has it open.
    if busy or _files(path)[1].exists():
        raise Refused(f"{path} is in use: stop the feedback service.")


def _asked(live: str, question: str, **values: str) -> int:
    engine = create_engine(live)
    try:
        with engine.connect() as connection:
            return int(connection.execute(text(question), values).scalar() or 0)
    finally:
        engine.dispose()


def _administer(live: str, statements: Sequence[str], *, together: bool = False) -> None:
    address = make_url(live).set(database="postgres") if together else make_url(live)
    engine = create_engine(address) if together else create_engine(address, isolation_level="AUTOCOMMIT")
    try:
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    except DBAPIError as error:
        raise Refused(
            f"PostgreSQL refuses ({type(error.orig).__name__}): its user needs CREATEDB and must own the database, and nobody may use it."
        ) from None
    finally:
        engine.dispose()


def _quoted(address: URL) -> str:
    return '"' + str(address.database).replace('"', '""') + '"'
