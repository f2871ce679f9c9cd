"""Evidence in one SQLite file: written in groups by one thread, bounded in rows and age."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sqlite3
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sluice_moderation.domain.policy import Action, CategoryScore, Direction
from sluice_moderation.domain.verdict import Contribution, Evidence, Offence, ShadowVerdict, Skipped, Verdict

_SCHEMA = """
CREATE TABLE IF NOT EXISTS evidence (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    decision_id TEXT NOT NULL UNIQUE,
    decided_at_ms INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS evidence_by_age ON evidence (decided_at_ms);
"""
_PRUNE_EVERY = 256  # rows written between two prunings
_PRUNE_AT_MOST = 2048  # rows deleted at once, so that no write waits long; more than are written in between
_DAY_MS = 86_400_000


class EvidenceUnavailable(Exception):
    """The evidence file cannot be opened; the message says which and what to do."""


class SqliteEvidence:
    """EvidenceStore in a file. All SQLite work happens in one thread of its own; writes that wait meanwhile share a commit."""

    def __init__(self, path: Path, *, max_rows: int, max_days: int) -> None:
        self._path, self._max_rows, self._max_days = path, max_rows, max_days
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evidence")
        self._waiting: deque[tuple[Evidence, Future[None]]] = deque()
        self._since_pruning = _PRUNE_EVERY
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = self._thread.submit(self._open).result()
        except (OSError, sqlite3.Error) as error:
            raise EvidenceUnavailable(
                f"{path} cannot be used for evidence ({error}): make it writable or set SLUICE_HOME."
            ) from None

    async def append(self, evidence: Evidence) -> None:
        """Durable on return against a crash of the process (WAL, synchronous NORMAL). Raises sqlite3.Error."""
        written: Future[None] = Future()
        self._waiting.append((evidence, written))
        # The first task of a burst writes for all that wait; the others find nothing left to do.
        self._thread.submit(self._write_waiting)
        await asyncio.wrap_future(written)

    async def find(self, decision_id: str) -> Evidence | None:
        row = await asyncio.get_running_loop().run_in_executor(self._thread, self._select, decision_id)
        return None if row is None else _evidence_of(json.loads(row))

    def close(self) -> None:
        self._thread.submit(self._database.close).result()
        self._thread.shutdown()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=10)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.executescript(_SCHEMA)
        return database

    def _write_waiting(self) -> None:
        group = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not group:
            return
        try:
            self._write([evidence for evidence, _ in group])
        except Exception as error:  # whatever it is, those who wait must learn of it
            for _, written in group:
                _settle(written, error)
            return
        for _, written in group:
            _settle(written, None)

    def _write(self, rows: list[Evidence]) -> None:
        with self._database:
            self._database.executemany(
                "INSERT INTO evidence (decision_id, decided_at_ms, body) VALUES (?, ?, ?)",
                [(e.verdict.decision_id, e.decided_at_ms, json.dumps(_plain(dataclasses.asdict(e)))) for e in rows],
            )
            self._since_pruning += len(rows)
            if self._since_pruning >= _PRUNE_EVERY:
                self._since_pruning = 0
                self._prune(max(e.decided_at_ms for e in rows))

    def _prune(self, now_ms: int) -> None:
        self._database.execute(
            "DELETE FROM evidence WHERE position IN (SELECT position FROM evidence WHERE position <= "
            "(SELECT MAX(position) FROM evidence) - ? ORDER BY position LIMIT ?)",
            (self._max_rows, _PRUNE_AT_MOST),
        )
        self._database.execute(
            "DELETE FROM evidence WHERE position IN (SELECT position FROM evidence WHERE decided_at_ms < ? LIMIT ?)",
            (now_ms - self._max_days * _DAY_MS, _PRUNE_AT_MOST),
        )

    def _select(self, decision_id: str) -> str | None:
        row = self._database.execute("SELECT body FROM evidence WHERE decision_id = ?", (decision_id,)).fetchone()
        return None if row is None else str(row[0])


def _settle(written: Future[None], error: Exception | None) -> None:
    if not written.set_running_or_notify_cancel():
        return  # whoever waited went away; the row stays
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)


def _plain(value: Any) -> Any:
    """Actions by name: their numbers are an order, which may get new members in between."""
    if isinstance(value, Action):
        return value.name
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


# Evidence of version 0.1.0 has numbers.
_NUMBERED = {1: Action.ALLOW, 2: Action.SKIPPED, 3: Action.FLAG, 4: Action.BLOCK}


def _action(stored: str | int) -> Action:
    return Action[stored] if isinstance(stored, str) else _NUMBERED[stored]


def _evidence_of(body: dict[str, Any]) -> Evidence:
    verdict = body.pop("verdict")
    return Evidence(verdict=_verdict_of(verdict), **(body | _values_of(body)))


def _verdict_of(stored: dict[str, Any]) -> Verdict:
    values = {
        "action": _action(stored["action"]),
        "scores": tuple(CategoryScore(**(s | {"action": _action(s["action"])})) for s in stored["scores"]),
        "skipped": tuple(Skipped(**s) for s in stored["skipped"]),
    }
    return Verdict(**(stored | values))


def _values_of(stored: dict[str, Any]) -> dict[str, Any]:
    return {
        "direction": Direction(stored["direction"]),
        "offending_segment_ids": tuple(stored["offending_segment_ids"]),
        "contributions": tuple(Contribution(**c) for c in stored["contributions"]),
        "offences": tuple(Offence(**(o | {"action": _action(o["action"])})) for o in stored.get("offences", ())),
        "shadows": tuple(ShadowVerdict(**(s | {"action": _action(s["action"])})) for s in stored.get("shadows", ())),
    }
