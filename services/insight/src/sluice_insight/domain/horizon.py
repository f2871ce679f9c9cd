"""From when on minutes are kept in memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Horizon:
    """Times in microseconds. Without a history of hours minutes are kept by the clock; with one, until they are in it."""

    history: int
    folded_up_to: int | None = None
    """Minutes before this are in the history of hours, and never change again; None where there is no such history."""

    def first(self, now: int) -> int:
        """Minutes that start before this are not taken, and forgotten."""
        return now - self.history if self.folded_up_to is None else self.folded_up_to
