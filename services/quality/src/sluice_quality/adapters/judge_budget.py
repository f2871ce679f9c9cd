"""Tokens that the judge may use in an hour, kept in a file: a restart does not begin the hour anew."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sluice_kit.telemetry import logger

log = logger(__name__)

HOUR = 3600


class BudgetUnavailable(Exception):
    """The file cannot be used now."""


class JudgeBudget:
    """Reserved before a call at the most it can use, settled at what it used: what is spent never passes the limit.

    A call that was under way when the process was killed stays at the most. Blocks for a millisecond.
    """

    def __init__(self, path: Path, *, tokens_per_hour: int) -> None:
        """Raises OSError and sqlite3.Error where the file cannot be used."""
        self._limit = tokens_per_hour
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(path, isolation_level=None, timeout=15)
        self._database.execute("CREATE TABLE IF NOT EXISTS spent (hour INTEGER PRIMARY KEY, tokens INTEGER NOT NULL)")

    def reserve(self, tokens: int, *, now: float) -> int | None:
        """The hour that a call is charged to; None where too little of it is left. Raises BudgetUnavailable."""
        hour = int(now // HOUR)
        try:
            if self.spent(now=now) + tokens > self._limit:
                return None
            self._database.execute("DELETE FROM spent WHERE hour < ?", (hour,))
            self._add(hour, tokens)
        except sqlite3.Error as error:
            log.warning("judge.budget_unavailable", error=type(error).__name__)
            raise BudgetUnavailable from None
        return hour

    def settle(self, hour: int, *, reserved: int, used: int) -> None:
        """Give back what a call did not use. Where the file cannot be used the call stays at the most: it was made all the same."""
        try:
            self._add(hour, used - reserved)
        except sqlite3.Error as error:
            log.warning("judge.budget_not_settled", error=type(error).__name__)

    def spent(self, *, now: float) -> int:
        """Tokens of this hour, reserved ones included."""
        found = self._database.execute("SELECT tokens FROM spent WHERE hour = ?", (int(now // HOUR),)).fetchone()
        return int(found[0]) if found else 0

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def _add(self, hour: int, tokens: int) -> None:
        self._database.execute(
            "INSERT INTO spent VALUES (?, ?) ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens",
            (hour, tokens),
        )
