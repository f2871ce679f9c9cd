"""A durable queue on disk between the request path and Kafka: what is appended survives kill -9.

SQLite in WAL mode with synchronous=NORMAL: a committed row survives the death of the process at any moment; only a crash of
the whole machine can lose the last rows. One thread owns the connection; appends that wait at the same time share a commit.
"""

import asyncio
import fcntl
import json
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from google.protobuf.message import Message

from sluice_kit.errors import InvalidInput, ResourceExhausted, Unavailable
from sluice_kit.events import Headers, encode, topic_of
from sluice_kit.process import StartFailed

MAX_ROWS = 1_000_000
MAX_BYTES = 1 << 30
# Kafka's default max.message.bytes is 1,048,588 with the record's overhead: what is refused there must be refused here.
MAX_EVENT_BYTES = 1_000_000
MAX_JOBS_PER_COMMIT = 512
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, headers TEXT NOT NULL,
  created REAL NOT NULL, acked REAL);
CREATE INDEX IF NOT EXISTS outbox_acked ON outbox (acked) WHERE acked IS NOT NULL;
CREATE TABLE IF NOT EXISTS refused (
  id INTEGER PRIMARY KEY, topic TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, headers TEXT NOT NULL,
  created REAL NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sequences (topic TEXT PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS identity (epoch TEXT NOT NULL);
"""
_WAITING_BYTES = "length(key) + length(value) + length(CAST(headers AS BLOB))"
T = TypeVar("T")


@dataclass(frozen=True)
class OutboxRow:
    """One event that waits to be sent."""

    id: int
    topic: str
    key: bytes
    value: bytes
    headers: Headers
    created: float
    """When it was appended, seconds since the epoch."""
    size: int
    """Bytes it takes of the outbox's limit."""


@dataclass
class _State:
    """What the thread keeps in memory of the tables; put back when a transaction fails."""

    sequences: dict[str, int]
    rows: int = 0
    bytes: int = 0

    def copy(self) -> "_State":
        return _State(dict(self.sequences), self.rows, self.bytes)


class Outbox:
    """Rows in the order of their append. All methods but `append` and `close` block: run them by `call`, in the outbox's thread."""

    def __init__(self, path: Path, *, producer: str, max_rows: int = MAX_ROWS, max_bytes: int = MAX_BYTES) -> None:
        """Open or make the file. Raises StartFailed when it cannot be used, or another process uses it."""
        self._path, self._max_rows, self._max_bytes = path, max_rows, max_bytes
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._state = _State({})
        self.producer = producer
        """The producer's name with the outbox's id: `sluice-gateway/0#1f2e3d4c`."""
        self._lock = _lock(path)
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._opened: Future[None] = Future()
        self._thread.start()
        try:
            self._opened.result(timeout=30)
        except sqlite3.Error as error:
            self._lock.close()
            raise StartFailed(
                f"{path} cannot be opened ({error}): free the disk, or move the file away. It holds unsent events."
            ) from None

    @property
    def depth(self) -> int:
        """Rows that are not acknowledged yet."""
        return self._state.rows

    @property
    def has_room(self) -> bool:
        """False when the last tenth of the outbox is reached: what begins now may find no place at its end."""
        return self._state.rows < 0.9 * self._max_rows and self._state.bytes < 0.9 * self._max_bytes

    async def append(self, events: Sequence[Message]) -> None:
        """Number, encode and commit events whose metadata is otherwise complete; all of them or none.

        Raises ResourceExhausted (OUTBOX_FULL) at the limit, InvalidInput (EVENT_TOO_LARGE) for what Kafka would refuse,
        Unavailable (OUTBOX_UNAVAILABLE) when the disk does not take it. Not undone when the caller is cancelled meanwhile.
        """
        try:
            await asyncio.wrap_future(self._submit(lambda: self._insert(events)))
        except sqlite3.Error as error:
            raise Unavailable(
                f"events cannot be stored: the disk refuses them ({error.sqlite_errorname})",
                reason="OUTBOX_UNAVAILABLE",
            ) from None

    async def call(self, method: Callable[..., T], *arguments: Any) -> T:
        """Run one of the blocking methods in the outbox's thread."""
        return await asyncio.wrap_future(self._submit(lambda: method(*arguments)))

    def close(self) -> None:
        """Commit what was handed over and stop."""
        self._jobs.put(None)
        self._thread.join(timeout=10)
        self._lock.close()

    def pending(self, limit: int, without: Collection[str] = ()) -> list[OutboxRow]:
        """Unacknowledged rows, oldest first, but those of the topics `without`."""
        marks = ",".join("?" * len(without))
        rows = self._connection.execute(
            f"SELECT id, topic, key, value, headers, created, {_WAITING_BYTES} FROM outbox "  # noqa: S608 - no outside text
            f"WHERE acked IS NULL AND topic NOT IN ({marks}) ORDER BY id LIMIT ?",
            (*without, limit),
        )
        return [
            OutboxRow(i, t, k, v, [(n, x.encode()) for n, x in json.loads(h)], c, s) for i, t, k, v, h, c, s in rows
        ]

    def acknowledge(self, rows: Sequence[OutboxRow], keep: bool) -> None:
        """The broker has these rows: delete them, or keep them marked for a while."""
        if keep:
            self._connection.executemany(
                "UPDATE outbox SET acked = ? WHERE id = ?", [(time.time(), r.id) for r in rows]
            )
        else:
            self._connection.executemany("DELETE FROM outbox WHERE id = ?", [(row.id,) for row in rows])
        self._leave(rows)

    def refuse(self, row: OutboxRow, reason: str) -> None:
        """The broker will never take this row: put it aside, so that it does not hold up the others."""
        self._connection.execute(
            "INSERT INTO refused SELECT id, topic, key, value, headers, created, ? FROM outbox WHERE id = ?",
            (reason, row.id),
        )
        self._connection.execute("DELETE FROM outbox WHERE id = ?", (row.id,))
        self._leave([row])

    def forget_acknowledged(self, before: float) -> None:
        """Delete kept rows that were acknowledged before a moment."""
        self._connection.execute("DELETE FROM outbox WHERE acked < ?", (before,))

    def reopen_acknowledged(self) -> int:
        """All kept rows are to be sent again: the broker may have lost them. Returns how many."""
        changed = self._connection.execute("UPDATE outbox SET acked = NULL WHERE acked IS NOT NULL").rowcount
        self._state.rows, self._state.bytes = self._waiting()
        return changed

    def _leave(self, rows: Sequence[OutboxRow]) -> None:
        self._state.rows -= len(rows)
        self._state.bytes -= sum(row.size for row in rows)

    def _submit(self, job: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def _insert(self, events: Sequence[Message]) -> None:
        rows = [self._row(event) for event in events]
        self._state.rows += len(rows)
        self._state.bytes += sum(len(key) + len(value) + len(headers) for _, key, value, headers, _ in rows)
        if self._state.rows > self._max_rows or self._state.bytes > self._max_bytes:
            raise ResourceExhausted(
                "events cannot be stored: the outbox is full because Kafka is away",
                reason="OUTBOX_FULL",
                retry_after_seconds=5,
            )
        self._connection.executemany(
            "INSERT INTO outbox (topic, key, value, headers, created) VALUES (?, ?, ?, ?, ?)", rows
        )
        self._connection.executemany(
            "INSERT INTO sequences VALUES (?, ?) ON CONFLICT (topic) DO UPDATE SET last = excluded.last",
            [(topic, self._state.sequences[topic]) for topic in {row[0] for row in rows}],
        )

    def _row(self, event: Message) -> tuple[str, bytes, bytes, str, float]:
        topic = topic_of(type(event)).name
        number = self._state.sequences.get(topic, 0) + 1
        event.metadata.producer_sequence = number  # type: ignore[attr-defined]
        record = encode(event)
        headers = json.dumps([(name, value.decode()) for name, value in record.headers])
        size = len(record.key) + len(record.value) + len(headers)
        if size > MAX_EVENT_BYTES:
            raise InvalidInput(
                f"an event of {size} bytes cannot be published to {topic}: the limit is {MAX_EVENT_BYTES}",
                reason="EVENT_TOO_LARGE",
            )
        self._state.sequences[topic] = number
        return record.topic, record.key, record.value, headers, time.time()

    # --- the thread ---

    def _work(self) -> None:
        try:
            self._open()
        except Exception as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        running = True
        while running:
            batch = self._next_batch()
            running = None not in batch
            self._commit([job for job in batch if job is not None])
        self._connection.close()

    def _open(self) -> None:
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        self._connection.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_SCHEMA}")
        self._state = _State(dict(self._connection.execute("SELECT topic, last FROM sequences")), *self._waiting())
        self.producer = f"{self.producer}#{self._epoch()}"

    def _waiting(self) -> tuple[int, int]:
        rows, size = self._connection.execute(
            f"SELECT count(*), coalesce(sum({_WAITING_BYTES}), 0) FROM outbox WHERE acked IS NULL"  # noqa: S608
        ).fetchone()
        return rows, size

    def _epoch(self) -> str:
        """Names this file: a producer that lost its outbox counts from 1 again under another name."""
        found = self._connection.execute("SELECT epoch FROM identity").fetchone()
        if found:
            return str(found[0])
        epoch = uuid.uuid4().hex[:8]
        self._connection.execute("INSERT INTO identity VALUES (?)", (epoch,))
        return epoch

    def _next_batch(self) -> list[tuple[Callable[[], Any], Future[Any]] | None]:
        batch = [self._jobs.get()]
        while batch[-1] is not None and len(batch) < MAX_JOBS_PER_COMMIT:
            try:
                batch.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return batch

    def _commit(self, batch: list[tuple[Callable[[], Any], Future[Any]]]) -> None:
        """Run jobs in one transaction, each behind a savepoint, so that a bad one fails alone."""
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        before = self._state.copy()
        try:
            self._connection.execute("BEGIN")
            for job, future in batch:
                outcomes.append((future, *self._attempt(job)))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._state = before
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            outcomes = [(future, None, error) for _, future in batch]
        for future, result, failure in outcomes:
            if not future.set_running_or_notify_cancel():
                continue
            future.set_exception(failure) if failure else future.set_result(result)

    def _attempt(self, job: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        before = self._state.copy()
        self._connection.execute("SAVEPOINT job")
        try:
            result = job()
        except Exception as error:
            self._state = before
            # A full disk rolls the whole transaction back by itself: this then fails, and with it the batch.
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            return None, error
        self._connection.execute("RELEASE job")
        return result, None


def _lock(path: Path) -> IO[str]:
    """Hold the outbox for this process: two would give out the same numbers."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise StartFailed(f"{path.parent} cannot be written ({error.strerror}): set SLUICE_HOME.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StartFailed(
            f"{path} is in use by another process: stop it, or set SLUICE_INSTANCE to tell the replicas apart."
        ) from None
    return lock
