"""A durable queue on disk between the request path and Kafka: what is appended survives kill -9.

SQLite in WAL mode with synchronous=NORMAL: a committed row survives the death of the process at any moment; only a crash of
the whole machine can lose the last rows. One thread owns the connection; appends that wait at the same time share a commit.
"""

import asyncio
import json
import queue
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message

from sluice_kit.errors import ResourceExhausted
from sluice_kit.events import Headers, encode, topic_of

MAX_ROWS = 1_000_000
MAX_APPENDS_PER_COMMIT = 512
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, headers TEXT NOT NULL,
  created REAL NOT NULL, acked REAL);
CREATE INDEX IF NOT EXISTS outbox_acked ON outbox (acked) WHERE acked IS NOT NULL;
CREATE TABLE IF NOT EXISTS sequences (topic TEXT PRIMARY KEY, last INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS identity (epoch TEXT NOT NULL);
"""
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


class Outbox:
    """Rows in the order of their append. All methods but `append` are blocking and run in the outbox's own thread."""

    def __init__(self, path: Path, *, producer: str, max_rows: int = MAX_ROWS) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._max_rows = path, max_rows
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._sequences: dict[str, int] = {}
        self.depth = 0
        """Rows that are not acknowledged yet."""
        self.producer = producer
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._opened: Future[None] = Future()
        self._thread.start()
        self._opened.result(timeout=30)

    async def append(self, events: Sequence[Message]) -> None:
        """Number, encode and commit events whose metadata is otherwise complete. ResourceExhausted (OUTBOX_FULL) at the limit."""
        if self.depth + len(events) > self._max_rows:
            raise ResourceExhausted(
                "events cannot be stored: the outbox is full because Kafka is away",
                reason="OUTBOX_FULL",
                retry_after_seconds=5,
            )
        await asyncio.wrap_future(self._submit(lambda: self._insert(events)))

    async def call(self, method: Callable[..., T], *arguments: Any) -> T:
        """Run one of the blocking methods in the outbox's thread."""
        return await asyncio.wrap_future(self._submit(lambda: method(*arguments)))

    def close(self) -> None:
        """Commit what was handed over and stop."""
        self._jobs.put(None)
        self._thread.join(timeout=10)

    def pending(self, after: int, limit: int) -> list[OutboxRow]:
        """Unacknowledged rows with a higher id, oldest first."""
        rows = self._connection.execute(
            "SELECT id, topic, key, value, headers, created FROM outbox WHERE id > ? AND acked IS NULL ORDER BY id LIMIT ?",
            (after, limit),
        )
        return [OutboxRow(i, t, k, v, [(n, x.encode()) for n, x in json.loads(h)], c) for i, t, k, v, h, c in rows]

    def acknowledge(self, ids: Sequence[int], keep: bool) -> None:
        """The broker has these rows: delete them, or keep them marked for a while."""
        if keep:
            self._connection.executemany("UPDATE outbox SET acked = ? WHERE id = ?", [(time.time(), i) for i in ids])
        else:
            self._connection.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids])
        self.depth -= len(ids)

    def forget_acknowledged(self, before: float) -> None:
        """Delete kept rows that were acknowledged before a moment."""
        self._connection.execute("DELETE FROM outbox WHERE acked < ?", (before,))

    def reopen_acknowledged(self, since: float) -> int:
        """Kept rows acknowledged since a moment are to be sent again: the broker may have lost them. Returns how many."""
        changed = self._connection.execute("UPDATE outbox SET acked = NULL WHERE acked >= ?", (since,)).rowcount
        self.depth += changed
        return changed

    def _submit(self, job: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def _insert(self, events: Sequence[Message]) -> None:
        rows = [self._row(event) for event in events]
        self._connection.executemany(
            "INSERT INTO outbox (topic, key, value, headers, created) VALUES (?, ?, ?, ?, ?)", rows
        )
        self._connection.executemany(
            "INSERT INTO sequences VALUES (?, ?) ON CONFLICT (topic) DO UPDATE SET last = excluded.last",
            [(topic, self._sequences[topic]) for topic in {row[0] for row in rows}],
        )
        self.depth += len(rows)

    def _row(self, event: Message) -> tuple[str, bytes, bytes, str, float]:
        topic = topic_of(type(event)).name
        number = self._sequences.get(topic, 0) + 1
        event.metadata.producer_sequence = number  # type: ignore[attr-defined]
        record = encode(event)
        self._sequences[topic] = number
        headers = json.dumps([(name, value.decode()) for name, value in record.headers])
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
        self._sequences = dict(self._connection.execute("SELECT topic, last FROM sequences"))
        self.depth = self._connection.execute("SELECT count(*) FROM outbox WHERE acked IS NULL").fetchone()[0]
        self.producer = f"{self.producer}#{self._epoch()}"

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
        while batch[-1] is not None and len(batch) < MAX_APPENDS_PER_COMMIT:
            try:
                batch.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return batch

    def _commit(self, batch: list[tuple[Callable[[], Any], Future[Any]]]) -> None:
        """Run jobs in one transaction, each behind a savepoint, so that a bad one fails alone."""
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        before = dict(self._sequences), self.depth
        try:
            self._connection.execute("BEGIN")
            for job, future in batch:
                outcomes.append((future, *self._attempt(job)))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._sequences, self.depth = before
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            outcomes = [(future, None, error) for _, future in batch]
        for future, result, failure in outcomes:
            if not future.set_running_or_notify_cancel():
                continue
            future.set_exception(failure) if failure else future.set_result(result)

    def _attempt(self, job: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        before = dict(self._sequences), self.depth
        self._connection.execute("SAVEPOINT job")
        try:
            result = job()
        except Exception as error:
            self._connection.execute("ROLLBACK TO job")
            self._sequences, self.depth = before
            return None, error
        finally:
            self._connection.execute("RELEASE job")
        return result, None
