"""Who may compute now, who waits, and who is told to come back: a bounded queue before a fixed number of slots."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass

from sluice_inference.domain.refusals import DuplicateRequest, Overloaded

# A caller that is shed is asked to wait this long at least and at most, whatever the estimate says.
SHORTEST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 1.0, 30.0


@dataclass(frozen=True)
class Grant:
    """The right to compute in a slot; the slot's cached prefix may be read only by the salt that wrote it."""

    slot: int
    may_reuse_cache: bool


@dataclass
class _Slot:
    number: int
    salt: str | None = None  # None = nothing was computed here yet
    used_at: int = 0  # order of use, for "most" and "least recently"


class Admission:
    """Slots and queue. Higher priority runs first; equal priorities in order of arrival."""

    def __init__(self, *, slots: int, queue_limit: int) -> None:
        self.slots = slots
        self.queue_limit = queue_limit
        self._free = [_Slot(number) for number in range(slots)]
        self._running: dict[str, _Slot] = {}
        self._waiting: dict[str, str] = {}  # request id -> salt
        self._order: list[tuple[int, int, str]] = []  # heap; entries of requests that left are skipped
        self._arrivals = itertools.count()
        self._uses = itertools.count(1)
        self._durations: deque[float] = deque(maxlen=32)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def enter(self, request_id: str, *, priority: int = 0, salt: str = "") -> Grant | None:
        """A grant at once, or None: wait until `leave` of another returns yours. Raises DuplicateRequest, Overloaded."""
        if request_id in self._running or request_id in self._waiting:
            raise DuplicateRequest("a request with this request_id is running; wait for its end or use another id.")
        if self._free and not self._waiting:
            return self._occupy(request_id, salt)
        if len(self._waiting) >= self.queue_limit:
            raise Overloaded(
                f"{self.running} requests are running and {self.queued} are waiting, which is the limit; try again later.",
                retry_after_seconds=self.expected_wait_seconds(),
            )
        self._waiting[request_id] = salt
        heapq.heappush(self._order, (-priority, next(self._arrivals), request_id))
        return None

    def leave(self, request_id: str, *, seconds: float | None = None) -> list[tuple[str, Grant]]:
        """Gives the slot or the place in the queue back; returns who may run now. Unknown ids are no error."""
        self._waiting.pop(request_id, None)
        slot = self._running.pop(request_id, None)
        if slot is not None:
            self._free.append(slot)
            if seconds is not None:
                self._durations.append(seconds)
        return self._admit_waiting()

    def expected_wait_seconds(self) -> float:
        """When a place will probably be free: rounds of the queue times the mean duration of late requests."""
        mean = sum(self._durations) / len(self._durations) if self._durations else SHORTEST_RETRY_SECONDS
        rounds = (len(self._waiting) + 1) / self.slots
        return min(LONGEST_RETRY_SECONDS, max(SHORTEST_RETRY_SECONDS, mean * rounds))

    def _admit_waiting(self) -> list[tuple[str, Grant]]:
        admitted = []
        while self._free and self._waiting:
            request_id = heapq.heappop(self._order)[2]
            salt = self._waiting.pop(request_id, None)
            if salt is not None:
                admitted.append((request_id, self._occupy(request_id, salt)))
        if not self._waiting:
            self._order.clear()
        return admitted

    def _occupy(self, request_id: str, salt: str) -> Grant:
        slot = self._best_slot(salt)
        may_reuse_cache = slot.salt == salt
        slot.salt, slot.used_at = salt, next(self._uses)
        self._free.remove(slot)
        self._running[request_id] = slot
        return Grant(slot=slot.number, may_reuse_cache=may_reuse_cache)

    def _best_slot(self, salt: str) -> _Slot:
        """The slot this salt used last (its prefix may still be there), else the one unused for longest."""
        same = [slot for slot in self._free if slot.salt == salt]
        if same:
            return max(same, key=lambda slot: slot.used_at)
        return min(self._free, key=lambda slot: (slot.used_at, slot.number))
