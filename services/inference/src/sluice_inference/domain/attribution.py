"""Shares the process's CPU time, and its accelerators' time, among the requests that ran at the same time.

The rule: the CPU time (all threads of the process) that passes between two changes in the set of running requests is split
equally among the running requests whose model computes here; those that only wait for an upstream get a share when nobody else runs. CPU
time with no request running belongs to nobody. Accelerators are busy while any request of their model runs: their seconds (number of
accelerators times time) are split equally among that model's requests. The mean occupancy of a request is the number of requests of its
model running, itself included, averaged over its time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What a request of a model is to the machine. Requests of one `group` are batched together."""

    group: str = ""
    computes_here: bool = True
    accelerators: int = 0


@dataclass
class Share:
    """What one request used up to now."""

    load: Load = Load()
    cpu_seconds: float = 0.0
    accelerator_seconds: float = 0.0
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

    def begin(self, request_id: str, load: Load | None = None) -> None:
        self._advance()
        self._running[request_id] = Share(load or Load())

    def end(self, request_id: str) -> Share:
        """The whole share; an empty one when the request never began."""
        self._advance()
        return self._running.pop(request_id, Share())

    def _advance(self) -> None:
        cpu_now, now = self._cpu_clock(), self._clock()
        cpu, seconds = cpu_now - self._cpu_at, now - self._at
        self._cpu_at, self._at = cpu_now, now
        shares = list(self._running.values())
        payers = [share for share in shares if share.load.computes_here] or shares
        for share in payers:
            share.cpu_seconds += cpu / len(payers)
        batch = Counter(share.load.group for share in shares)
        for share in shares:
            share.seconds += seconds
            share.occupancy_seconds += seconds * batch[share.load.group]
            share.accelerator_seconds += seconds * share.load.accelerators / batch[share.load.group]
