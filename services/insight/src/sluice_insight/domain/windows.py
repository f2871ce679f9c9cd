"""Windows that can be looked back to: each kept whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sluice_insight.domain.latest import Comparison

C = TypeVar("C", bound=Comparison)


@dataclass
class Windows(Generic[C]):
    """Of every window the highest rank of every key. The oldest go when there are more than `most`, or more than `limit` comparisons in all."""

    most: int
    limit: int
    _by_start: dict[int, dict[tuple[str, ...], C]] = field(default_factory=dict)
    _size: int = 0
    _gone: int = -1
    """Start of the newest window that was let go. What comes of it, or of an older one, would pass for the whole of it."""

    def put(self, one: C) -> None:
        """Takes it in, unless it is no newer than what is kept, or of a window that is not."""
        start = one.rank[0]
        if start <= self._gone:
            return
        window = self._by_start.setdefault(start, {})
        known = window.get(one.key)
        if known is not None and known.rank >= one.rank:
            return
        self._size += known is None
        window[one.key] = one
        while len(self._by_start) > self.most or self._size > self.limit:
            self._let_go(min(self._by_start))

    def _let_go(self, start: int) -> None:
        self._size -= len(self._by_start.pop(start))
        self._gone = start

    def find(self, start: int, matches: Callable[[C], bool]) -> list[C]:
        """Those of one window that match, by key."""
        return sorted(filter(matches, self._by_start.get(start, {}).values()), key=lambda one: one.key)

    def each(self, matches: Callable[[C], bool]) -> Iterator[tuple[int, list[C]]]:
        """Start of every window in which something matches, the newest first, and what does."""
        for start in sorted(self._by_start, reverse=True):
            if found := [one for one in self._by_start[start].values() if matches(one)]:
                yield start, found
