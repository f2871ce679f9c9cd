"""The stories in one SQLite file, which can be read again from the topics at any time: bounded in rows and age."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import Message
from sluice.insight.v1 import request_service_pb2 as pb

from sluice_insight.adapters.stories.events import StoryEvent, read
from sluice_insight.adapters.stories.summary import Summary, summary
from sluice_insight.domain.request_query import Cursor, RequestQuery

T = TypeVar("T")
VERSION = 3
"""A file of another version is made anew and filled from the topics; except the one before."""
_SAME_TABLES = 2
"""Had no marks of verdicts. They are computed from the events it holds, of which the topics may have fewer by now."""
_SCHEMA = """
CREATE TABLE events (
    event_id TEXT PRIMARY KEY, tenant_id TEXT NOT NULL, request_id TEXT NOT NULL, name TEXT NOT NULL, at_us INTEGER NOT NULL,
    body BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX events_by_request ON events (request_id, tenant_id);
CREATE INDEX events_by_age ON events (at_us);
CREATE TABLE requests (
    request_id TEXT NOT NULL, tenant_id TEXT NOT NULL, ended_us INTEGER NOT NULL, project_id TEXT NOT NULL, outcome INTEGER NOT NULL,
    model TEXT NOT NULL, route TEXT NOT NULL, prompt_version TEXT NOT NULL, latency_us INTEGER NOT NULL,
    feedback_count INTEGER NOT NULL, awaiting INTEGER NOT NULL, synthetic INTEGER NOT NULL, line BLOB NOT NULL,
    PRIMARY KEY (request_id, tenant_id)
) WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests (ended_us, request_id, tenant_id);
CREATE INDEX requests_by_tenant ON requests (tenant_id, ended_us, request_id);
CREATE INDEX requests_by_outcome ON requests (outcome, ended_us);
CREATE INDEX requests_by_model ON requests (model, ended_us);
CREATE INDEX requests_by_feedback ON requests (ended_us) WHERE feedback_count > 0;
CREATE INDEX requests_by_review ON requests (ended_us) WHERE awaiting > 0;
CREATE TABLE marks (
    request_id TEXT NOT NULL, tenant_id TEXT NOT NULL, mark TEXT NOT NULL, ended_us INTEGER NOT NULL,
    PRIMARY KEY (request_id, tenant_id, mark)
) WITHOUT ROWID;
CREATE INDEX marks_by_time ON marks (mark, ended_us);
CREATE TABLE offsets (topic TEXT NOT NULL, number INTEGER NOT NULL, next INTEGER NOT NULL, PRIMARY KEY (topic, number)) WITHOUT ROWID;
"""
# Apart from the tables, so that a file of this version gets it too and need not be filled again.
_INDEX = "CREATE INDEX IF NOT EXISTS requests_of_self_tests ON requests (ended_us) WHERE synthetic = 1"
_SELF_TESTS_SHARE = 10
"""Of too much self-tests go first, down to this part of all: they come by the clock, beside one model some 22 every 33 s."""
_PRUNE_AT_MOST = 2_000
"""Requests deleted at once, so that nobody waits long."""
_RENEW_AT_MOST = 200
"""Requests computed anew at once: some 0.1 s in which new events wait."""
_EVENTS = "SELECT name, body FROM events WHERE request_id = ? ORDER BY at_us, event_id"
_EVENTS_OF_TENANT = "SELECT name, body FROM events WHERE request_id = ? AND tenant_id = ? ORDER BY at_us, event_id"
_NEXT = "SELECT request_id, tenant_id FROM requests WHERE (request_id, tenant_id) > (?, ?) ORDER BY request_id, tenant_id LIMIT ?"
_OLDEST = "SELECT request_id, tenant_id FROM requests ORDER BY ended_us LIMIT ?"
_OLDEST_SELF_TESTS = "SELECT request_id, tenant_id FROM requests WHERE synthetic = 1 ORDER BY ended_us LIMIT ?"
_DELETE = (
    "DELETE FROM requests WHERE request_id = ? AND tenant_id = ?",
    "DELETE FROM marks WHERE request_id = ? AND tenant_id = ?",
    "DELETE FROM events WHERE request_id = ? AND tenant_id = ?",
)
_SEARCH = (
    "SELECT r.line FROM requests r WHERE",
    "ORDER BY r.ended_us DESC, r.request_id DESC, r.tenant_id DESC LIMIT ?",
)
# A kind that is rare, or never was, is found by its own index: one that goes through all requests takes seconds for a million.
_SEARCH_BY_MARK = (
    "SELECT r.line FROM marks k CROSS JOIN requests r ON r.request_id = k.request_id AND r.tenant_id = k.tenant_id WHERE",
    "ORDER BY k.ended_us DESC, k.request_id DESC, k.tenant_id DESC LIMIT ?",
)
_ONE_MORE_MARK = (
    "EXISTS (SELECT 1 FROM marks m WHERE m.request_id = r.request_id AND m.tenant_id = r.tenant_id AND m.mark = ?)"
)
_EQUAL = {
    "tenant_id": "r.tenant_id = ?",
    "project_id": "r.project_id = ?",
    "model": "r.model = ?",
    "route": "r.route = ?",
    "prompt_version": "r.prompt_version = ?",
}
"""Field of the query to condition."""


class StoriesUnavailable(Exception):
    """The file cannot be used; the message says which and what to do."""


class Stories:
    """Writes in one thread, reads in another: a long search keeps nobody from writing."""

    def __init__(self, path: Path, *, most_requests: int, keep_us: int) -> None:
        self._path, self._most, self._keep_us = path, most_requests, keep_us
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="stories-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="stories-read")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write_to = self._writer.submit(_open, path).result()
            self._read_from = self._reader.submit(_open, path).result()
            is_old = self._writer.submit(lambda: _version(self._write_to) == _SAME_TABLES).result()
            self._renew_after: tuple[str, str] | None = ("", "") if is_old else None
        except (OSError, sqlite3.Error) as error:
            raise StoriesUnavailable(
                f"{path} cannot be used for stories ({error}): make it writable or set SLUICE_HOME."
            ) from None

    async def take(self, events: Sequence[StoryEvent], next_offsets: Mapping[tuple[str, int], int]) -> int:
        """Keeps events that are new, with the offsets to go on from, in one transaction. Returns how many were new."""
        return await self._run(self._writer, lambda: self._take(events, next_offsets))

    async def offsets(self) -> Mapping[tuple[str, int], int]:
        """Where to go on reading, by topic and partition."""
        return await self._run(
            self._reader,
            lambda: {(t, n): o for t, n, o in self._read_from.execute("SELECT topic, number, next FROM offsets")},
        )

    async def find(self, query: RequestQuery) -> Sequence[pb.RequestSummary]:
        """At most `query.limit`, newest first, from the cursor on."""
        sql, values = _search(query)
        return await self._run(
            self._reader,
            lambda: [pb.RequestSummary.FromString(line) for (line,) in self._read_from.execute(sql, values)],
        )

    async def story(self, request_id: str, tenant_id: str) -> Sequence[Message]:
        """The events of one request in the order of time; of one tenant only, where one is named."""
        return await self._run(self._reader, lambda: self._events(self._read_from, request_id, tenant_id))

    async def newest_us(self) -> int:
        """When the newest request ended, in microseconds; 0 when there is none."""
        newest = "SELECT MAX(ended_us) FROM requests"
        return await self._run(self._reader, lambda: self._read_from.execute(newest).fetchone()[0] or 0)

    async def prune(self, now_us: int) -> int:
        """Forgets what is too old or too much; at most 2,000 requests at once. Returns how many requests went."""
        return await self._run(self._writer, lambda: self._prune(now_us))

    async def renew(self) -> int:
        """Computes lines of a file of the version before anew, at most 200 at once. Returns how many; 0 when all are done."""
        return await self._run(self._writer, self._renew)

    def close(self) -> None:
        """Waits for the work under way."""
        self._writer.submit(self._write_to.close).result()
        self._reader.submit(self._read_from.close).result()
        self._writer.shutdown()
        self._reader.shutdown()

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _take(self, events: Sequence[StoryEvent], next_offsets: Mapping[tuple[str, int], int]) -> int:
        database = self._write_to
        with _transaction(database):
            before = database.total_changes
            database.executemany(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [(e.event_id, e.tenant_id, e.request_id, e.name, e.at_us, e.body) for e in events],
            )
            new = database.total_changes - before
            if new:
                for request_id, tenant_id in dict.fromkeys((event.request_id, event.tenant_id) for event in events):
                    found = summary(self._events(database, request_id, tenant_id, exactly=True))
                    if found is not None:
                        self._put(found)
            database.executemany(
                "INSERT INTO offsets VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next = excluded.next",
                [(topic, number, offset) for (topic, number), offset in next_offsets.items()],
            )
        return new

    def _put(self, found: Summary) -> None:
        line = found.line
        self._write_to.execute(
            "INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                line.request_id, line.tenant_id, found.ended_us, line.project_id, line.outcome, line.model, line.route,
                line.prompt_version, found.latency_us, line.feedback_count, len(line.decisions_awaiting_review), line.synthetic,
                line.SerializeToString(),
            ),
        )  # fmt: skip
        # A later event can take a mark away: what was only allowed so far may be flagged by the next decision.
        self._write_to.execute(
            "DELETE FROM marks WHERE request_id = ? AND tenant_id = ? AND mark NOT IN (SELECT value FROM json_each(?))",
            (line.request_id, line.tenant_id, json.dumps(sorted(found.marks))),
        )
        self._write_to.executemany(
            "INSERT INTO marks VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(line.request_id, line.tenant_id, mark, found.ended_us) for mark in sorted(found.marks)],
        )

    def _renew(self) -> int:
        if self._renew_after is None:
            return 0
        database = self._write_to
        with _transaction(database):
            rows = database.execute(_NEXT, (*self._renew_after, _RENEW_AT_MOST)).fetchall()
            for request_id, tenant_id in rows:
                found = summary(self._events(database, request_id, tenant_id, exactly=True))
                if found is not None:
                    self._put(found)
            if not rows:  # only now, so that one who is interrupted begins again
                database.execute(f"PRAGMA user_version = {VERSION}")
        self._renew_after = rows[-1] if rows else None
        return len(rows)

    @staticmethod
    def _events(
        database: sqlite3.Connection, request_id: str, tenant_id: str, *, exactly: bool = False
    ) -> list[Message]:
        sql, values = _EVENTS, [request_id]
        if tenant_id or exactly:
            sql, values = _EVENTS_OF_TENANT, [request_id, tenant_id]
        return [read(name, body) for name, body in database.execute(sql, values)]

    def _prune(self, now_us: int) -> int:
        database = self._write_to
        with _transaction(database):
            old = database.execute(
                "SELECT request_id, tenant_id FROM requests WHERE ended_us < ? ORDER BY ended_us LIMIT ?",
                (now_us - self._keep_us, _PRUNE_AT_MOST),
            ).fetchall()
            too_many = self._too_many()
            old = too_many if len(old) < len(too_many) else old
            for statement in _DELETE:
                database.executemany(statement, old)
            # What never ended (its RequestCompleted was lost, or is older than we read) goes by its own age.
            database.execute(
                "DELETE FROM events WHERE event_id IN (SELECT event_id FROM events WHERE at_us < ? LIMIT ?)",
                (now_us - 2 * self._keep_us, _PRUNE_AT_MOST),
            )
        return len(old)

    def _too_many(self) -> list[tuple[str, str]]:
        """The oldest of more than are kept, self-tests first."""
        database = self._write_to
        (count,) = database.execute("SELECT COUNT(*) FROM requests").fetchone()
        (tests,) = database.execute("SELECT COUNT(*) FROM requests WHERE synthetic = 1").fetchone()
        most = min(max(0, count - self._most), _PRUNE_AT_MOST)
        spare = min(most, max(0, tests - self._most // _SELF_TESTS_SHARE))
        found = database.execute(_OLDEST_SELF_TESTS, (spare,)).fetchall()
        found += database.execute(_OLDEST, (most - spare,)).fetchall()
        return list(dict.fromkeys(found))


def _search(query: RequestQuery) -> tuple[str, list[str | int]]:
    """A statement made of constants of this module, and the values that are bound to it."""
    conditions: list[str] = []
    values: list[str | int] = []

    def where(condition: str, *given: str | int) -> None:
        conditions.append(condition)
        values.extend(given)

    for name, condition in _EQUAL.items():
        if value := getattr(query, name):
            where(condition, value)
    if len(query.outcomes) == 1:  # in the order of its index
        where("r.outcome = ?", query.outcomes[0])
    elif query.outcomes:
        where("r.outcome IN (SELECT value FROM json_each(?))", json.dumps(list(query.outcomes)))
    for mark in query.marks[1:]:
        where(_ONE_MORE_MARK, mark)
    if query.min_latency_us:
        where("r.latency_us >= ?", query.min_latency_us)
    if query.with_feedback:
        where("r.feedback_count > 0")
    if query.awaiting_review:
        where("r.awaiting > 0")
    if not query.include_synthetic:
        where("r.synthetic = 0")
    if query.start_us:
        where("r.ended_us >= ?", query.start_us)
    if query.end_us:
        where("r.ended_us < ?", query.end_us)
    if query.after:
        where("(r.ended_us, r.request_id, r.tenant_id) < (?, ?, ?)", *query.after)
    head, order = _SEARCH_BY_MARK if query.marks else _SEARCH
    if query.marks:
        where("k.mark = ?", query.marks[0])
    return " ".join((head, " AND ".join(conditions) or "1", order)), [*values, query.limit]


def cursor_of(line: pb.RequestSummary) -> Cursor:
    """Where the next page begins after this line."""
    return line.ended_at.ToMicroseconds(), line.request_id, line.tenant_id


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=15, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    if _version(database) not in (VERSION, _SAME_TABLES):
        with _transaction(database):
            tables = database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
            for (name,) in tables:
                database.execute(f'DROP TABLE "{name}"')
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {VERSION}")
    database.execute(_INDEX)
    return database


def _version(database: sqlite3.Connection) -> int:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return int(version)


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
