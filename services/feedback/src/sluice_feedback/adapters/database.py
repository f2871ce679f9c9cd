"""One SQL database, SQLite or PostgreSQL: connections, threads, migrations."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, OperationalError

from sluice_feedback.domain.feedback import StoreUnavailable

T = TypeVar("T")

_BUSY_TIMEOUT_MS = 15_000


class Database:
    """Runs blocking SQL in threads: one that writes (SQLite has one writer anyway), some that read."""

    def __init__(self, url: str) -> None:
        self._engine = _connect(url)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feedback-write")
        self._apart = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feedback-apart")
        self._readers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="feedback-read")

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    def migrate(self) -> None:
        """Brings the schema up to date in one transaction. Safe when replicas start together."""
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        with self._engine.begin() as connection:
            serialise(connection, "feedback migrations")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in one transaction: all of it happens, or nothing."""
        return await self._run(self._writer, self._in_transaction, work)

    async def write_apart(self, work: Callable[[Connection], T]) -> T:
        """As write, for work that waits for others: nothing else waits for it. (On SQLite the database's one writer is held.)"""
        return await self._run(self._apart, self._in_transaction, work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on one consistent view of the data."""
        return await self._run(self._readers, self._in_snapshot, work)

    def read_now(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` on one consistent view of the data, in this thread: for reading two databases side by side."""
        return self._in_snapshot(work)

    async def scrub(self) -> None:
        """Empties SQLite's write-ahead log, which holds pages as they were. (PostgreSQL's VACUUM is its operator's.)"""
        if self.dialect == "sqlite":
            await asyncio.get_running_loop().run_in_executor(self._writer, self._empty_log)

    def _empty_log(self) -> None:
        with self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def close(self) -> None:
        """Waits for the work under way, then closes all connections."""
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._writer.shutdown()
        self._apart.shutdown()
        self._readers.shutdown()
        self._engine.dispose()

    async def _run(self, pool: ThreadPoolExecutor, runner: Callable[..., T], work: Callable[[Connection], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, runner, work)
        except (OperationalError, InterfaceError) as error:
            # The driver's text may hold row values: only the class is told.
            raise StoreUnavailable(f"the feedback database is not available ({type(error.orig).__name__})") from None

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            return work(connection)

    def _in_snapshot(self, work: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            isolation = "REPEATABLE READ" if self.dialect == "postgresql" else "SERIALIZABLE"
            reading = connection.execution_options(isolation_level=isolation, sluice_read_only=True)
            return work(reading)


def open_database(url: str) -> Database:
    """Connects and brings the schema up to date. Raises StoreUnavailable when it cannot."""
    address = make_url(url)
    try:
        if address.get_backend_name() == "sqlite" and address.database:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        database = Database(url)
        database.migrate()
    except (OperationalError, InterfaceError, OSError) as error:
        cause = getattr(error, "orig", error)
        where = address.render_as_string(hide_password=True)
        raise StoreUnavailable(
            f"the feedback database {where} cannot be opened ({type(cause).__name__}: {cause})"
        ) from None
    return database


def serialise(connection: Connection, name: str) -> None:
    """Lets one transaction at a time, over all replicas, pass this point until it ends. (SQLite does so anyway.)"""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": name})


def _connect(url: str) -> Engine:
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        return _connect_sqlite(url)
    return create_engine(url, pool_size=5, max_overflow=0, pool_pre_ping=True, pool_recycle=1800)


def _connect_sqlite(url: str) -> Engine:
    engine = create_engine(url, pool_size=5, max_overflow=0)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not open transactions of its own: see `begin`
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # feedback told as stored survives a power cut
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # an erased text is overwritten, not left in a free page

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A write that begins as a read fails with SQLITE_BUSY when somebody wrote in between: take the lock at once.
        is_read = connection.get_execution_options().get("sluice_read_only", False)
        connection.exec_driver_sql("BEGIN" if is_read else "BEGIN IMMEDIATE")

    return engine
