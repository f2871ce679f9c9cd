"""The newest comparison of every series: what drift and fairness found, kept as it was measured."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Comparison(Protocol):
    """What is kept: whose it is, of which window, in which version."""

    @property
    def key(self) -> tuple[str, ...]: ...
    @property
    def rank(self) -> tuple[int, int, bool]:
        """Window start in microseconds, revision, closed: the highest is the newest."""


C = TypeVar("C", bound=Comparison)


@dataclass
class Latest(Generic[C]):
    """Keeps the highest rank of every key; the keys that were quiet longest go when there are more than `limit`."""

    limit: int
    _kept: OrderedDict[tuple[str, ...], C] = field(default_factory=OrderedDict)

    def put(self, one: C) -> bool:
        """False for what is no newer than what is kept."""
        known = self._kept.get(one.key)
        if known is not None and known.rank >= one.rank:
            return False
        self._kept[one.key] = one
        self._kept.move_to_end(one.key)
        while len(self._kept) > self.limit:
            self._kept.popitem(last=False)
        return True

    def find(self, matches: Callable[[C], bool]) -> list[C]:
        """Those that match, by key."""
        # A copy, because Prometheus asks from another thread.
        return sorted(filter(matches, list(self._kept.values())), key=lambda one: one.key)
