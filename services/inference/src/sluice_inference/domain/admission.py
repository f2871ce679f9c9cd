"""Who may compute now, who waits, and who is told to come back: a bounded queue before a fixed number of slots."""

from __future__ import annotations

import itertools
from collections import Counter, deque
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


@dataclass(frozen=True)
class _Waiting:
    priority: int
    arrival: int
    tenant: str
    salt: str


@dataclass(frozen=True)
class Entry:
    """A grant at once, or None: wait until `leave` of another returns yours. `displaced` lost its place in the queue to this one."""

    grant: Grant | None = None
    displaced: str | None = None


class Admission:
    """Slots and queue. Higher priority runs first; of equal priority the tenant with the fewest running, then the first to come.

    A full queue makes room for a tenant that has at least two places fewer than another of no higher priority: that one's last request is
    displaced. So no tenant can keep the others out, and a tenant that is alone has all of the queue.
    """

    def __init__(self, *, slots: int, queue_limit: int) -> None:
        self.slots = slots
        self.queue_limit = queue_limit
        self._free = [_Slot(number) for number in range(slots)]
        self._running: dict[str, tuple[_Slot, str]] = {}  # request id -> slot and tenant
        self._waiting: dict[str, _Waiting] = {}
        self._arrivals = itertools.count()
        self._uses = itertools.count(1)
        self._durations: deque[float] = deque(maxlen=32)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def enter(self, request_id: str, *, priority: int = 0, salt: str = "", tenant: str = "") -> Entry:
        """Raises DuplicateRequest, Overloaded."""
        if request_id in self._running or request_id in self._waiting:
            raise DuplicateRequest("a request with this request_id is running; wait for its end or use another id.")
        if self._free and not self._waiting:
            return Entry(self._occupy(request_id, salt, tenant))
        displaced = None
        if len(self._waiting) >= self.queue_limit:
            displaced = self._whom_to_displace(priority, tenant)
            if displaced is None:
                raise self.overload()
            del self._waiting[displaced]
        self._waiting[request_id] = _Waiting(priority, next(self._arrivals), tenant, salt)
        return Entry(displaced=displaced)

    def leave(self, request_id: str, *, seconds: float | None = None) -> list[tuple[str, Grant]]:
        """Gives the slot or the place in the queue back; returns who may run now. Unknown ids are no error."""
        self._waiting.pop(request_id, None)
        slot, _ = self._running.pop(request_id, (None, ""))
        if slot is not None:
            self._free.append(slot)
            if seconds is not None:
                self._durations.append(seconds)
        return self._admit_waiting()

    def overload(self) -> Overloaded:
        """What is told to a request for which there is no room."""
        return Overloaded(
            f"{self.running} requests are running and {self.queued} are waiting, which is the limit; try again later.",
            retry_after_seconds=self.expected_wait_seconds(),
        )

    def expected_wait_seconds(self) -> float:
        """When a place will probably be free: rounds of the queue times the mean duration of late requests."""
        mean = sum(self._durations) / len(self._durations) if self._durations else SHORTEST_RETRY_SECONDS
        rounds = (len(self._waiting) + 1) / self.slots
        return min(LONGEST_RETRY_SECONDS, max(SHORTEST_RETRY_SECONDS, mean * rounds))

    def _admit_waiting(self) -> list[tuple[str, Grant]]:
        admitted = []
        while self._free and self._waiting:
            running = Counter(tenant for _, tenant in self._running.values())
            request_id, place = min(
                self._waiting.items(), key=lambda item: (-item[1].priority, running[item[1].tenant], item[1].arrival)
            )
            del self._waiting[request_id]
            admitted.append((request_id, self._occupy(request_id, place.salt, place.tenant)))
        return admitted

    def _whom_to_displace(self, priority: int, tenant: str) -> str | None:
        places = Counter(waiting.tenant for waiting in self._waiting.values())
        candidates = [
            (places[waiting.tenant], -waiting.priority, waiting.arrival, request_id)
            for request_id, waiting in self._waiting.items()
            if waiting.priority <= priority and places[waiting.tenant] >= places[tenant] + 2
        ]
        return max(candidates)[3] if candidates else None

    def _occupy(self, request_id: str, salt: str, tenant: str) -> Grant:
        slot = self._best_slot(salt)
        may_reuse_cache = slot.salt == salt
        slot.salt, slot.used_at = salt, next(self._uses)
        self._free.remove(slot)
        self._running[request_id] = (slot, tenant)
        return Grant(slot=slot.number, may_reuse_cache=may_reuse_cache)

    def _best_slot(self, salt: str) -> _Slot:
        """The slot this salt used last (its prefix may still be there), else the one unused for longest."""
        same = [slot for slot in self._free if slot.salt == salt]
        if same:
            return max(same, key=lambda slot: slot.used_at)
        return min(self._free, key=lambda slot: (slot.used_at, slot.number))
