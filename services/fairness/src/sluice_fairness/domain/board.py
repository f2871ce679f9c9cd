"""The parts of all partitions of a tenant's windows, and which merged windows are due to be measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sluice_fairness.domain.counts import GroupCounts, Groups, merged
from sluice_fairness.domain.facts import Series


@dataclass(slots=True)
class Tally:
    """A part as it was published. `owner` is the partition that merges its tenant's parts, `source` the one that counted it."""

    series: Series
    start: int
    length: int
    source: int
    revision: int
    closed: bool
    owner: int
    part_key: str
    groups: dict[str, GroupCounts] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identity."""
        return f"tally|{self.part_key}|{self.owner}"


@dataclass(frozen=True, slots=True)
class Frame:
    """A merged window, ready to be measured."""

    series: Series
    start: int
    length: int
    revision: int
    groups: Groups
    minutes: tuple[tuple[int, Mapping[str, GroupCounts]], ...] = ()
    """Start and counts of the windows it is made of, for the trend; empty for the shortest."""

    @property
    def identity(self) -> tuple[Series, int, int]:
        """What tells it apart."""
        return self.series, self.start, self.length


class Board:
    """Tallies of one owner. The highest (revision, closed) of a part is the truth, so reading one again changes nothing."""

    def __init__(self, *, longest: int, tallies: Iterable[Tally], forgotten_before: int) -> None:
        self._longest = longest
        self._forgotten_before = forgotten_before
        self._tallies: dict[Series, dict[int, dict[int, Tally]]] = {}
        self._measured: dict[tuple[Series, int, int], int] = {}
        self._changed: set[tuple[Series, int, int]] = set()
        for each in tallies:
            self.put(each)

    def put(self, tally: Tally) -> bool:
        """Take a part in; False when it is no newer than what is known."""
        parts = self._tallies.setdefault(tally.series, {}).setdefault(tally.start, {})
        known = parts.get(tally.source)
        if known is not None and (known.revision, known.closed) >= (tally.revision, tally.closed):
            return False
        parts[tally.source] = tally
        long_start = self._long_end(tally.start) - self._longest
        self._changed |= {(tally.series, tally.start, tally.length), (tally.series, long_start, self._longest)}
        return True

    def is_forgotten(self, tally: Tally) -> bool:
        """True for a part of a long window that is forgotten: it would be measured in part."""
        return self._long_end(tally.start) <= self._forgotten_before

    def due(self, complete_up_to: int) -> list[Frame]:
        """Merged windows whose parts are all closed, that have ended, and that differ from what was measured."""
        found = []
        for identity in [each for each in self._changed if each[1] + each[2] <= complete_up_to]:
            parts = self._parts(*identity)
            if all(part.closed for part in parts) and self._measured.get(identity) != _revision(parts):
                found.append(self._frame(*identity, parts))
        return sorted(found, key=lambda frame: frame.start)

    def mark_measured(self, frame: Frame) -> None:
        """The measurements are out."""
        self._measured[frame.identity] = frame.revision
        parts = self._parts(*frame.identity)
        if _revision(parts) == frame.revision and all(part.closed for part in parts):
            self._changed.discard(frame.identity)

    def forget(self, horizon: int) -> list[Tally]:
        """Drop the parts of long windows that ended by then; they come back."""
        if horizon <= self._forgotten_before:
            return []
        self._forgotten_before = horizon
        dropped: list[Tally] = []
        for series, windows in list(self._tallies.items()):
            for start in [each for each in windows if self._long_end(each) <= self._forgotten_before]:
                dropped += windows.pop(start).values()
            if not windows:
                del self._tallies[series]
        for tally in dropped:
            long_start = self._long_end(tally.start) - self._longest
            for identity in ((tally.series, tally.start, tally.length), (tally.series, long_start, self._longest)):
                self._measured.pop(identity, None)
                self._changed.discard(identity)
        return dropped

    def _long_end(self, start: int) -> int:
        return start - start % self._longest + self._longest

    def _parts(self, series: Series, start: int, length: int) -> list[Tally]:
        windows = self._tallies.get(series, {})
        starts = sorted(each for each in windows if start <= each < start + length)
        return [part for each in starts for _, part in sorted(windows[each].items())]

    def _frame(self, series: Series, start: int, length: int, parts: list[Tally]) -> Frame:
        minutes: tuple[tuple[int, Mapping[str, GroupCounts]], ...] = ()
        if length == self._longest:
            starts = sorted({part.start for part in parts})
            minutes = tuple((s, merged(part.groups for part in parts if part.start == s)) for s in starts)
        return Frame(series, start, length, _revision(parts), merged(part.groups for part in parts), minutes)


def _revision(parts: Iterable[Tally]) -> int:
    return sum(part.revision for part in parts)
