"""The tables of the outbox in SQLite: rows that wait, rows put aside, numbers given out, numbers lost. Blocking; one thread."""

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from google.protobuf.message import Message

from sluice_kit.errors import InvalidInput, ResourceExhausted
from sluice_kit.events import Headers, encode, topic_of

# Kafka's default max.message.bytes is 1,048,588 with the record's overhead: what is refused there must be refused here.
MAX_EVENT_BYTES = 1_000_000
# What the broker refused is kept for people to look at, the newest of it: at most this many rows of at most a megabyte.
MAX_REFUSED_ROWS = 200
# SQLite's log of changes grows with a long transaction and would stay that long.
_WAL_BYTES = 64 << 20
_SHRINK_PAGES = 1000
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
CREATE TABLE IF NOT EXISTS losses (
  id INTEGER PRIMARY KEY, topic TEXT NOT NULL, reason TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  since REAL NOT NULL, until REAL NOT NULL);
"""
_WAITING_BYTES = "length(key) + length(value) + length(CAST(headers AS BLOB))"

DROPPED = "dropped"
REFUSED = "refused"


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


@dataclass(frozen=True)
class Loss:
    """Consecutive numbers of a topic whose events will never come."""

    topic: str
    reason: str
    """DROPPED or REFUSED."""
    first: int
    last: int
    since: float
    """When the first was lost, seconds since the epoch."""
    until: float
    """When the last was lost."""


@dataclass
class Counts:
    """What is kept in memory of the tables; put back when a transaction fails."""

    sequences: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    bytes: int = 0
    losses: int = 0
    """Rows of the table of losses."""
    unwritten: dict[str, Loss] = field(default_factory=dict)
    """By topic: numbers lost while the disk took nothing at all, not even this."""

    def copy(self) -> "Counts":
        """For when the transaction fails."""
        return replace(self, sequences=dict(self.sequences), unwritten=dict(self.unwritten))


class OutboxTables:
    """Everything that is done within a transaction of the outbox."""

    def __init__(self, path: Path, *, max_rows: int, max_bytes: int) -> None:
        """Open or make the file. Raises sqlite3.Error."""
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.executescript(
            f"PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            f" PRAGMA journal_size_limit={_WAL_BYTES}; {_SCHEMA}"
        )
        sequences = dict(self.connection.execute("SELECT topic, last FROM sequences"))
        (losses,) = self.connection.execute("SELECT count(*) FROM losses").fetchone()
        self.counts = Counts(sequences, *self._waiting(), losses)
        # An open descriptor of the log, to flush it by: SQLite's locks are on other files, closing it releases none of them.
        self._log = os.open(f"{path}-wal", os.O_RDWR)

    def flush(self) -> None:
        """Have the disk take what was committed."""
        os.fdatasync(self._log) if hasattr(os, "fdatasync") else os.fsync(self._log)

    def close(self) -> None:
        """Close the file."""
        os.close(self._log)
        self.connection.close()

    def epoch(self) -> str:
        """Names this file: a producer that lost its outbox counts from 1 again under another name."""
        found = self.connection.execute("SELECT epoch FROM identity").fetchone()
        if found:
            return str(found[0])
        epoch = uuid.uuid4().hex[:8]
        self.connection.execute("INSERT INTO identity VALUES (?)", (epoch,))
        return epoch

    # --- events come ---

    def insert(self, events: Sequence[Message]) -> None:
        """Number and store events. Raises ResourceExhausted (OUTBOX_FULL) at the limit, InvalidInput (EVENT_TOO_LARGE)."""
        self._write_unwritten()
        rows = [self._row(event) for event in events]
        self.counts.rows += len(rows)
        self.counts.bytes += sum(len(key) + len(value) + len(headers) for _, key, value, headers, _ in rows)
        if self.counts.rows > self._max_rows or self.counts.bytes > self._max_bytes:
            raise ResourceExhausted(
                "events cannot be stored: the outbox is full because Kafka is away",
                reason="OUTBOX_FULL",
                retry_after_seconds=5,
            )
        self.connection.executemany(
            "INSERT INTO outbox (topic, key, value, headers, created) VALUES (?, ?, ?, ?, ?)", rows
        )
        self._remember_sequences({row[0] for row in rows})

    def drop(self, events: Sequence[Message]) -> None:
        """Give these events their numbers and lose them: the gap is seen by whoever counts."""
        self._write_unwritten()
        topics = [topic_of(type(event)).name for event in events]
        for topic in topics:
            self._lose(topic, DROPPED, self._next_number(topic))
        self._remember_sequences(topics)

    def drop_in_memory(self, events: Sequence[Message]) -> None:
        """The same when the disk takes nothing: written with the next event that it takes; gone if the process dies before."""
        moment = time.time()
        for topic in (topic_of(type(event)).name for event in events):
            number = self._next_number(topic)
            before = self.counts.unwritten.get(topic, Loss(topic, DROPPED, number, number, moment, moment))
            self.counts.unwritten[topic] = replace(before, last=number, until=moment)

    def _row(self, event: Message) -> tuple[str, bytes, bytes, str, float]:
        topic = topic_of(type(event)).name
        number = self.counts.sequences.get(topic, 0) + 1
        event.metadata.producer_sequence = number  # type: ignore[attr-defined]
        record = encode(event)
        headers = json.dumps([(name, value.decode()) for name, value in record.headers])
        size = len(record.key) + len(record.value) + len(headers)
        if size > MAX_EVENT_BYTES:
            raise InvalidInput(
                f"an event of {size} bytes cannot be published to {topic}: the limit is {MAX_EVENT_BYTES}",
                reason="EVENT_TOO_LARGE",
            )
        self.counts.sequences[topic] = number
        return record.topic, record.key, record.value, headers, time.time()

    def _next_number(self, topic: str) -> int:
        number = self.counts.sequences.get(topic, 0) + 1
        self.counts.sequences[topic] = number
        return number

    def _remember_sequences(self, topics: Collection[str]) -> None:
        self.connection.executemany(
            "INSERT INTO sequences VALUES (?, ?) ON CONFLICT (topic) DO UPDATE SET last = excluded.last",
            [(topic, self.counts.sequences[topic]) for topic in set(topics)],
        )

    # --- events go ---

    def pending(self, limit: int, without: Collection[str] = ()) -> list[OutboxRow]:
        """Unacknowledged rows, oldest first, but those of the topics `without`."""
        marks = ",".join("?" * len(without))
        rows = self.connection.execute(
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
            self.connection.executemany("UPDATE outbox SET acked = ? WHERE id = ?", [(time.time(), r.id) for r in rows])
        else:
            self.connection.executemany("DELETE FROM outbox WHERE id = ?", [(row.id,) for row in rows])
        self._leave(rows)

    def refuse(self, row: OutboxRow, reason: str) -> None:
        """The broker will never take this row: put it aside, so that it does not hold up the others. Its number is lost."""
        self.connection.execute(
            "INSERT INTO refused SELECT id, topic, key, value, headers, created, ? FROM outbox WHERE id = ?",
            (reason, row.id),
        )
        self.connection.execute("DELETE FROM outbox WHERE id = ?", (row.id,))
        self.connection.execute(
            "DELETE FROM refused WHERE id NOT IN (SELECT id FROM refused ORDER BY id DESC LIMIT ?)",
            (MAX_REFUSED_ROWS,),
        )
        self._leave([row])
        number = dict(row.headers).get("ce_sequence")
        if number:
            self._lose(row.topic, REFUSED, int(number))

    def forget_acknowledged(self, before: float) -> None:
        """Delete kept rows that were acknowledged before a moment."""
        self.connection.execute("DELETE FROM outbox WHERE acked < ?", (before,))

    def reopen_acknowledged(self) -> int:
        """All kept rows are to be sent again: the broker may have lost them. Returns how many."""
        changed = self.connection.execute("UPDATE outbox SET acked = NULL WHERE acked IS NOT NULL").rowcount
        self.counts.rows, self.counts.bytes = self._waiting()
        return changed

    def shrink(self) -> None:
        """Give disk back that a long outage has taken, some megabytes at a time."""
        (free,) = self.connection.execute("PRAGMA freelist_count").fetchone()
        if free > _SHRINK_PAGES:
            for _ in range(_SHRINK_PAGES):
                # One at a time: Python steps a statement without columns once, and so frees one page whatever is asked.
                self.connection.execute("PRAGMA incremental_vacuum(1)")

    def _leave(self, rows: Sequence[OutboxRow]) -> None:
        self.counts.rows -= len(rows)
        self.counts.bytes -= sum(row.size for row in rows)

    def _waiting(self) -> tuple[int, int]:
        rows, size = self.connection.execute(
            f"SELECT count(*), coalesce(sum({_WAITING_BYTES}), 0) FROM outbox WHERE acked IS NULL"  # noqa: S608
        ).fetchone()
        return rows, size

    # --- losses ---

    def tell_losses(self, event_of: Callable[[Loss], Message]) -> list[Loss]:
        """Append an event for every loss that was not told yet. Returns the losses."""
        found = [
            (row[0], Loss(*row[1:]))
            for row in self.connection.execute(
                "SELECT id, topic, reason, first, last, since, until FROM losses ORDER BY id LIMIT 100"
            ).fetchall()
        ]
        if found:
            self.insert([event_of(loss) for _, loss in found])
            self.connection.executemany("DELETE FROM losses WHERE id = ?", [(number,) for number, _ in found])
            self.counts.losses -= len(found)
        return [loss for _, loss in found]

    def _lose(self, topic: str, reason: str, number: int) -> None:
        moment = time.time()
        extended = self.connection.execute(
            "UPDATE losses SET last = ?, until = ? WHERE topic = ? AND reason = ? AND last = ?",
            (number, moment, topic, reason, number - 1),
        ).rowcount
        if not extended:
            self._add_loss(Loss(topic, reason, number, number, moment, moment))

    def _add_loss(self, loss: Loss) -> None:
        self.connection.execute(
            "INSERT INTO losses (topic, reason, first, last, since, until) VALUES (?, ?, ?, ?, ?, ?)",
            (loss.topic, loss.reason, loss.first, loss.last, loss.since, loss.until),
        )
        self.counts.losses += 1

    def _write_unwritten(self) -> None:
        for loss in self.counts.unwritten.values():
            self._add_loss(loss)
        if self.counts.unwritten:
            self._remember_sequences(list(self.counts.unwritten))
            self.counts.unwritten = {}
