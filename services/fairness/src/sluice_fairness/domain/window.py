"""One partition's share of one series in one window: the unit that is stored, published and merged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from urllib.parse import quote

from sluice_fairness.domain.counts import GroupCounts, Groups
from sluice_fairness.domain.facts import Series


@dataclass(slots=True)
class WindowState:
    """Counts by group, and marks of what is in them, which make it countable once. Times in microseconds."""

    series: Series
    start: int
    length: int
    partition: int
    groups: Groups = field(default_factory=dict)
    counted: set[int] = field(default_factory=set)

    @property
    def revision(self) -> int:
        """Number of facts merged: grows exactly when the content changes."""
        return len(self.counted)

    @property
    def end(self) -> int:
        """Moment after the last."""
        return self.start + self.length

    @property
    def identity(self) -> tuple[Series, int]:
        """What tells it apart within its partition."""
        return self.series, self.start

    @property
    def key(self) -> str:
        """What tells it apart everywhere."""
        return window_key(self.series, self.start, self.length, self.partition)

    def take(self, what: str, keys: Iterable[str]) -> list[GroupCounts] | None:
        """The counts of the groups to add to, once for each `what`; None when it was counted before."""
        mark = mark_of(what)
        if mark in self.counted:
            return None
        self.counted.add(mark)
        return [self.groups.setdefault(key, GroupCounts()) for key in keys]


def mark_of(what: str) -> int:
    """64 bits that stand for an id: two of a window's thousands are alike once in 10^12 windows."""
    return int.from_bytes(blake2b(what.encode(), digest_size=8).digest(), "big")


def window_key(series: Series, start: int, length: int, partition: int) -> str:
    """`fairness|series...|start|length|partition`, each part percent-escaped."""
    names = (series.tenant_id, series.project_id, series.model, series.policy)
    return f"fairness|{'|'.join(quote(name, safe='@/:.-_') for name in names)}|{start}|{length}|{partition}"
