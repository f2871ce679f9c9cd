"""Finds stop strings in streamed text and never lets a part of one out before its time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Released:
    """Text that may be shown now, and the stop string that ended the stream, if one did."""

    text: str
    matched: str | None = None


class StopStrings:
    """Filters one stream. The stop string that is complete first wins; of those, the longest.

    This rule does not depend on how the text is cut into chunks, and only what may still become a stop string is held back.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        self._stops = tuple(stops)
        self._include = include
        self._held = ""

    def feed(self, text: str) -> Released:
        """Takes new text; after a match nothing more may be fed."""
        if not self._stops:
            return Released(text)
        seen = self._held + text
        match = self._first_match(seen)
        if match is None:
            keep = self._possible_start(seen)
            self._held = seen[keep:]
            return Released(seen[:keep])
        start, stop = match
        self._held = ""
        return Released(seen[: start + len(stop)] if self._include else seen[:start], matched=stop)

    def flush(self) -> str:
        """The text held back, when the stream ends without a match."""
        rest, self._held = self._held, ""
        return rest

    def _first_match(self, seen: str) -> tuple[int, str] | None:
        found = [(start + len(stop), start, stop) for stop in self._stops if (start := seen.find(stop)) >= 0]
        if not found:
            return None
        _, start, stop = min(found)
        return start, stop

    def _possible_start(self, seen: str) -> int:
        """Where the longest ending begins that is the start of a stop string; the length of `seen` if none is."""
        longest = max(len(stop) for stop in self._stops) - 1
        for index in range(max(0, len(seen) - longest), len(seen)):
            ending = seen[index:]
            if any(stop.startswith(ending) for stop in self._stops):
                return index
        return len(seen)
