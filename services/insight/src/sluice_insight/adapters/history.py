"""Hours and days of the board in one SQLite file: what is left of minutes that are forgotten."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sluice_insight.domain.board import Query
from sluice_insight.domain.folding import currency, folded
from sluice_insight.domain.part import DIMENSIONS, Part, Reading, Series, Totals
from sluice_insight.domain.sketch import Sketch

T = TypeVar("T")
VERSION = 1
HOUR = 3_600_000_000
DAY = 24 * HOUR
MOST_PARTS = 50_000
"""An answer out of more hours and days than this is refused: it would take many seconds and much memory."""
LOOKED_THROUGH = 20
"""Times so many may be looked through for those that match: a million, a second or two of the one thread that reads."""
A_READ = 500
_SCHEMA = """
CREATE TABLE parts (
    length INTEGER NOT NULL, start INTEGER NOT NULL, family TEXT NOT NULL, series TEXT NOT NULL, key TEXT NOT NULL,
    at INTEGER NOT NULL, spans INTEGER NOT NULL, revision INTEGER NOT NULL, closed INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX parts_by_window ON parts (length, start, family, series, key);
CREATE TABLE folded (up_to INTEGER NOT NULL);
"""


class HistoryUnavailable(Exception):
    """The file cannot be used; the message says which and what to do."""


class TooMuchHistory(Exception):
    """The answer would be made of more than `most_parts` hours or days, or found among too many; the message says what to ask for."""


class History:
    """Writes in one thread, reads in another. An hour that is written never changes."""

    def __init__(self, path: Path, *, days: int, most_series: int, now: int, most_parts: int = MOST_PARTS) -> None:
        """`days`: how long hours and days are kept; a new file begins so long ago. `now` in microseconds."""
        self._days, self._most_series, self.most_parts = days, most_series, most_parts
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="history-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="history-read")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write_to = self._writer.submit(_open, path, self._first(now)).result()
            self._read_from = self._reader.submit(_open, path, self._first(now)).result()
            self.folded_up_to: int = self._writer.submit(self._up_to).result()
        except (OSError, sqlite3.Error) as error:
            raise HistoryUnavailable(
                f"{path} cannot be used for the history of metrics ({error}): make it writable, set SLUICE_HOME, or "
                "SLUICE_INSIGHT_HISTORY_DAYS=0 to keep none."
            ) from None

    async def fold(self, parts: Sequence[Part], *, hour: int) -> None:
        """Keeps the minutes of one hour, the newest revision of each, as an hour; all before its end is folded then."""
        if hour >= self.folded_up_to:
            await self._run(self._writer, lambda: self._fold(parts, hour))
            self.folded_up_to = hour + HOUR

    async def skip(self, up_to: int) -> None:
        """Says that there is nothing between what is folded and this moment."""
        await self._run(self._writer, lambda: self._fold((), up_to - HOUR))
        self.folded_up_to = max(self.folded_up_to, up_to)

    async def parts(self, query: Query, families: frozenset[str], *, before: int) -> list[Part]:
        """Hours, and days where the windows are of whole days, that the query asks for. Raises TooMuchHistory."""
        return await self._run(self._reader, lambda: list(self._parts(query, families, before)))

    def close(self) -> None:
        """Waits for the work under way."""
        self._writer.submit(self._write_to.close).result()
        self._reader.submit(self._read_from.close).result()
        self._writer.shutdown()
        self._reader.shutdown()

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _first(self, now: int) -> int:
        # A day more than is kept, so that the first of the windows of a day that a range touches is whole.
        first = now - (self._days + 1) * DAY
        return first - first % DAY

    def _up_to(self) -> int:
        (moment,) = self._write_to.execute("SELECT MAX(up_to) FROM folded").fetchone()
        return int(moment)

    def _fold(self, parts: Sequence[Part], hour: int) -> None:
        end = hour + HOUR
        with _transaction(self._write_to) as database:
            before = self._up_to()
            self._insert(folded(parts, start=hour, length=HOUR, most_series=self._most_series), hour, HOUR)
            for day in range(before - before % DAY, end - DAY + 1, DAY):
                rows = database.execute(
                    f"{_SELECT} WHERE length = ? AND start >= ? AND start < ?", (HOUR, day, day + DAY)
                )
                hours = [_part(row) for row in rows]
                self._insert(folded(hours, start=day, length=DAY, most_series=self._most_series), day, DAY)
            database.execute("UPDATE folded SET up_to = ?", (max(before, end),))
            database.execute("DELETE FROM parts WHERE start < ?", (self._first(end),))

    def _insert(self, parts: Sequence[Part], start: int, length: int) -> None:
        self._write_to.executemany(
            "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (length, start, part.family, _series(part.series), currency(part), part.start, part.length, part.revision,
                 part.closed, _body(part))
                for part in parts
            ],
        )  # fmt: skip

    def _parts(self, query: Query, families: frozenset[str], before: int) -> Iterator[Part]:
        whole_days = before - before % DAY if query.step % DAY == 0 else 0
        spans = [
            (DAY, query.start, min(query.until, whole_days)),
            (HOUR, max(query.start, whole_days), min(query.until, before)),
        ]
        found = list(self._matching(query, families, spans))
        for first in range(0, len(found), A_READ):
            some = found[first : first + A_READ]
            # What is deleted meanwhile is older than is kept: it may be there or not.
            for row in self._read_from.execute(f"{_SELECT} WHERE rowid IN ({_marks(some)}) ORDER BY start", some):
                yield _part(row)

    def _matching(self, query: Query, families: frozenset[str], spans: Iterable[tuple[int, int, int]]) -> Iterator[int]:
        """Rows, found in the index alone: of a filter's few series no other's sketches are read."""
        left, to_look_through = self.most_parts, LOOKED_THROUGH * self.most_parts
        matches: dict[str, bool] = {}
        for length, start, end in spans:
            for rowid, series in self._read_from.execute(
                f"{_WHERE} AND family IN ({_marks(families)})", (length, start, end, *families)
            ):
                if series not in matches:
                    matches[series] = query.matches(_series_of(series))
                left, to_look_through = left - matches[series], to_look_through - 1
                if left < 0:
                    raise TooMuchHistory(
                        f"is made of more than {self.most_parts} hours; ask for windows of a day, fewer days, or filter"
                    )
                if to_look_through < 0:
                    raise TooMuchHistory(
                        f"is to be found among more than {LOOKED_THROUGH * self.most_parts} hours; ask for windows of a day, or fewer days"
                    )
                if matches[series]:
                    yield rowid


_WHERE = "SELECT rowid, series FROM parts WHERE length = ? AND start >= ? AND start < ?"
_SELECT = "SELECT family, series, key, at, spans, revision, closed, body FROM parts"


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))


_AT_FIRST = 6


def _series(series: Series) -> str:
    values = [getattr(series, name) for name in DIMENSIONS]
    # A dimension that came later is left out where it is empty: the same series is the same text, whenever it was written.
    return json.dumps(values if values[_AT_FIRST:] != [""] else values[:_AT_FIRST], ensure_ascii=False)


def _series_of(text: str) -> Series:
    return Series(*json.loads(text))


def _body(part: Part) -> bytes:
    sketches = {
        name: (s.relative_accuracy, s.zero_count, s.sum, list(s.buckets), list(s.buckets.values()))
        for name, s in part.totals.sketches.items()
    }
    readings = {name: (r.value, r.sample_count, r.verdict) for name, r in part.readings.items()}
    return zlib.compress(json.dumps([part.totals.counts, sketches, readings], separators=(",", ":")).encode(), 6)


def _part(row: tuple[str, str, str, int, int, int, int, bytes]) -> Part:
    family, series, unit, at, spans, revision, closed, body = row
    counts, sketches, readings = json.loads(zlib.decompress(body))
    return Part(
        key=f"{family}|{series}|{at}|{spans}|{unit}",
        family=family,
        series=_series_of(series),
        start=at,
        length=spans,
        partition=0,
        revision=revision,
        closed=bool(closed),
        totals=Totals(
            Counter(counts),
            {
                name: Sketch(accuracy, zero, dict(zip(indexes, numbers, strict=True)), total)
                for name, (accuracy, zero, total, indexes, numbers) in sketches.items()
            },
        ),
        readings={name: Reading(*reading) for name, reading in readings.items()},
    )


def _open(path: Path, first: int) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=15, isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    with _transaction(database):
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            for name in ("parts", "folded"):
                database.execute(f"DROP TABLE IF EXISTS {name}")
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute("INSERT INTO folded VALUES (?)", (first,))
            database.execute(f"PRAGMA user_version = {VERSION}")
    return database


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
