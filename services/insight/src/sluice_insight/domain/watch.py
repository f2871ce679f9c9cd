"""Watchers of metrics: a slow one gets the newest state of what changed, never a backlog."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Watcher:
    """One reader. Holds the starts of windows that changed since it looked: bounded by the windows that are kept."""

    families: frozenset[str]
    _changed: dict[tuple[str, int], int] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def notice(self, family: str, start: int) -> None:
        """A part of this window changed."""
        if family in self.families:
            self._changed[family, start] = self._changed.get((family, start), 0) + 1
            self._wake.set()

    async def changed(self, *, timeout: float, settle: float = 0.0) -> tuple[set[int], int] | None:
        """Starts of changed windows, and how many changes were merged into them; None after `timeout` seconds of silence.

        Waits `settle` seconds after the first change, because parts come in bursts: one a partition.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._wake.wait()
        except TimeoutError:
            return None
        await asyncio.sleep(settle)
        changed, self._changed = self._changed, {}
        self._wake.clear()
        return {start for _, start in changed}, sum(changed.values()) - len(changed)


class Watchers:
    """Everybody who watches, at most `limit`."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._watchers: set[Watcher] = set()

    def __len__(self) -> int:
        return len(self._watchers)

    def join(self, families: frozenset[str]) -> Watcher | None:
        """A new watcher; None when there are too many."""
        if len(self._watchers) >= self._limit:
            return None
        watcher = Watcher(families)
        self._watchers.add(watcher)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """No longer watching."""
        self._watchers.discard(watcher)

    def notice(self, family: str, start: int) -> None:
        """Tell everybody that a window changed."""
        for watcher in self._watchers:
            watcher.notice(family, start)
