"""Shares the process's CPU time among the requests that ran at the same time.

The rule: the CPU time (all threads of the process) that passes between two changes in the set of running requests is split
equally among the requests running in between; CPU time with no request running belongs to nobody. The mean occupancy of a
request is the number of requests running, itself included, averaged over its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Share:
    """What one request used up to now."""

    cpu_seconds: float = 0.0
    seconds: float = 0.0
    occupancy_seconds: float = 0.0

    @property
    def mean_occupancy(self) -> float:
        return self.occupancy_seconds / self.seconds if self.seconds > 0 else 1.0


class ShareMeter:
    """Keeps one Share per running request. Both clocks are in seconds and never go back."""

    def __init__(self, *, cpu_clock: Callable[[], float], clock: Callable[[], float]) -> None:
        self._cpu_clock, self._clock = cpu_clock, clock
        self._running: dict[str, Share] = {}
        self._cpu_at, self._at = cpu_clock(), clock()

    def begin(self, request_id: str) -> None:
        self._advance()
        self._running[request_id] = Share()

    def end(self, request_id: str) -> Share:
        """The whole share; an empty one when the request never began."""
        self._advance()
        return self._running.pop(request_id, Share())

    def _advance(self) -> None:
        cpu_now, now = self._cpu_clock(), self._clock()
        cpu, seconds, count = cpu_now - self._cpu_at, now - self._at, len(self._running)
        self._cpu_at, self._at = cpu_now, now
        for share in self._running.values():
            share.cpu_seconds += cpu / count
            share.seconds += seconds
            share.occupancy_seconds += seconds * count
