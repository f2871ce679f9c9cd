"""How far event time has come in one partition, over several topics that run at different speeds."""

from __future__ import annotations

from dataclasses import dataclass, field

GIVEN_AGAIN = 1 << 44
"""More than the offsets of any partition: a million records a second for half a year."""


@dataclass(slots=True)
class Marks:
    """What a partition must remember across restarts. Times in microseconds since the epoch."""

    partition: int
    watermarks: dict[str, int] = field(default_factory=dict)
    frontier: dict[str, int] = field(default_factory=dict)
    """By source topic: everything before this offset is merged. The truth about progress; Kafka's commit is advice."""
    forgotten_before: int = 0
    """Windows that end at or before this moment were dropped from the store: facts for them are too late."""
    rewinds: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """By source topic: how often its log had lost its end, and from which offset on it then gave them again. Oldest first."""

    @property
    def key(self) -> str:
        """Identity."""
        return f"marks|{self.partition}"

    def rewind(self, source: str, end: int) -> None:
        """The log ends at `end`, before what was done with, and will give the offsets from there on again."""
        self.frontier[source] = end
        known = self.rewinds.get(source, [])
        generation = 1 + known[-1][0] if known else 1
        self.rewinds[source] = [*(each for each in known if each[1] < end), (generation, end)]

    def place(self, source: str, offset: int) -> int:
        """Of what stands at an offset now: after all that ever stood there, and what followed on that."""
        known = reversed(self.rewinds.get(source, []))
        return next((generation for generation, first in known if first <= offset), 0) * GIVEN_AGAIN + offset


class Clock:
    """Event time of a partition: the slowest topic that is still talking; wall time when all are silent.

    A topic that says nothing for `idle_after` does not hold the others back. Without that rule one quiet feedback
    topic would keep every window open; without the minimum, a backlog of completions would be "late" as soon as
    the (much shorter) feedback topic had been read to its end.
    """

    def __init__(self, marks: Marks, *, idle_after: int, now: int) -> None:
        self._marks = marks
        self._idle_after = idle_after
        self._started = now
        self._heard: dict[str, int] = {}

    def hear(self, source: str, *, at: int, now: int) -> None:
        """A fact of event time `at` came from the source."""
        self._heard[source] = now
        self._marks.watermarks[source] = max(self._marks.watermarks.get(source, 0), at)

    def watermark(self, now: int) -> int:
        """No fact older than this is expected."""
        talking = [source for source, heard in self._heard.items() if now - heard < self._idle_after]
        if talking:
            return min(self._marks.watermarks[source] for source in talking)
        if now - self._started < self._idle_after:
            return 0  # just started: nothing heard yet says nothing
        return max([now - self._idle_after, *self._marks.watermarks.values()]) if self._is_live(now) else 0

    def _is_live(self, now: int) -> bool:
        # Wall time stands in for event time only while the newest fact is not from the future.
        return max(self._marks.watermarks.values(), default=0) <= now
