"""Which series a request belongs to, remembered for feedback that comes long after, or before, its completion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sluice_quality.domain.facts import Completion, Feedback, Series

CHUNK_SIZE = 128
"""Requests per stored chunk: a table write per request would cost two thirds of the throughput (3.5k/s, not 10k/s)."""

DETACHED = -1
"""Offset of what was counted and whose place in the log was given to another record."""


@dataclass(slots=True)
class Attribution:
    """Where the facts about one request belong. `at` in microseconds of event time; `offset` may be DETACHED."""

    request_id: str
    offset: int
    at: int
    series: Series


@dataclass(slots=True)
class AttributionChunk:
    """Up to CHUNK_SIZE attributions that are stored together; `number` counts up, `slot` is its place in the ring."""

    number: int
    slot: int
    partition: int
    entries: list[Attribution] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Identity of the slot: a newer chunk replaces the one a ring's turn older."""
        return f"attribution|{self.slot}|{self.partition}"


class Attributions:
    """The latest attributions of a partition, at most `capacity` (rounded up to chunks)."""

    def __init__(self, *, partition: int, capacity: int, chunks: list[AttributionChunk]) -> None:
        self._partition = partition
        self._ring = -(-capacity // CHUNK_SIZE) + 1  # one more: the newest chunk is being filled
        self._chunks = {chunk.slot: chunk for chunk in chunks if chunk.slot < self._ring}
        self._by_request: dict[str, Attribution] = {}
        for chunk in sorted(self._chunks.values(), key=lambda each: each.number):
            self._by_request.update((entry.request_id, entry) for entry in chunk.entries)
        self._open = max(self._chunks.values(), key=lambda each: each.number, default=None) or self._begin(0)

    def __len__(self) -> int:
        return len(self._by_request)

    def find(self, request_id: str) -> Attribution | None:
        """Where facts about the request belong; None when its completion is not known (yet, or any more)."""
        return self._by_request.get(request_id)

    @property
    def known(self) -> Iterable[Attribution]:
        """All that are remembered."""
        return self._by_request.values()

    def forget(self, entries: Iterable[Attribution]) -> None:
        """Forget these."""
        for entry in entries:
            del self._by_request[entry.request_id]

    def detach(self, entries: Iterable[Attribution]) -> list[AttributionChunk]:
        """These stay known, whatever stands at their offsets now; the chunks that must be stored."""
        found = {id(entry): entry for entry in entries}
        for entry in found.values():
            entry.offset = DETACHED
        return [chunk for chunk in self._chunks.values() if not found.keys().isdisjoint(map(id, chunk.entries))]

    def before(self, chunk: AttributionChunk) -> AttributionChunk | None:
        """The chunk that was filled before this one."""
        found = self._chunks.get((chunk.number - 1) % self._ring)
        return found if found is not None and found.number == chunk.number - 1 else None

    def forget_from(self, offset: int) -> None:
        """Forget requests whose completion stood at this offset or later."""
        self._by_request = {name: entry for name, entry in self._by_request.items() if entry.offset < offset}

    def remember(self, completion: Completion) -> tuple[Attribution, AttributionChunk]:
        """Keep a completion's series; the chunk that must be stored comes with it."""
        entry = Attribution(completion.request_id, completion.offset, completion.at, completion.series)
        if len(self._open.entries) >= CHUNK_SIZE:
            self._open = self._begin(self._open.number + 1)
        self._open.entries.append(entry)
        self._by_request[entry.request_id] = entry
        return entry, self._open

    def are_new(self, request_ids: Sequence[str]) -> bool:
        """True when none of these requests is known, and none stands there twice."""
        return self._by_request.keys().isdisjoint(request_ids) and len(set(request_ids)) == len(request_ids)

    def remember_all(self, entries: Sequence[Attribution]) -> list[AttributionChunk]:
        """Keep many that are new; the chunks that must be stored, oldest first."""
        self._by_request.update(zip([entry.request_id for entry in entries], entries, strict=True))
        changed, done = [], 0
        while done < len(entries):
            if len(self._open.entries) >= CHUNK_SIZE:
                self._open = self._begin(self._open.number + 1)
            room = CHUNK_SIZE - len(self._open.entries)
            self._open.entries += entries[done : done + room]
            done += room
            changed.append(self._open)
        return changed

    def _begin(self, number: int) -> AttributionChunk:
        slot = number % self._ring
        forgotten = self._chunks.get(slot)
        for entry in forgotten.entries if forgotten else ():
            if self._by_request.get(entry.request_id) is entry:
                del self._by_request[entry.request_id]
        chunk = self._chunks[slot] = AttributionChunk(number, slot, self._partition)
        return chunk


@dataclass(slots=True)
class PendingFeedback:
    """Feedback whose completion has not come yet."""

    partition: int
    feedback: Feedback

    @property
    def key(self) -> str:
        """Identity."""
        return f"pending|{self.feedback.event_id}|{self.partition}"


class PendingFeedbacks:
    """Feedback that waits, at most `capacity` pieces; the oldest give way."""

    def __init__(self, *, capacity: int, waiting: list[PendingFeedback]) -> None:
        self._capacity = capacity
        self._by_key: dict[str, PendingFeedback] = {}
        self._by_request: dict[str, list[str]] = {}
        for each in sorted(waiting, key=lambda pending: pending.feedback.offset):
            self._insert(each)

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, pending: PendingFeedback) -> list[PendingFeedback]:
        """Let it wait; what had to give way comes back."""
        if pending.key in self._by_key:
            return []
        self._insert(pending)
        forgotten = []
        while len(self._by_key) > self._capacity:
            oldest = next(iter(self._by_key.values()))
            self._remove(oldest.key)
            forgotten.append(oldest)
        return forgotten

    def take(self, request_id: str) -> list[PendingFeedback]:
        """What waited for this request, no longer waiting."""
        keys = self._by_request.get(request_id)
        return [self._remove(key) for key in list(keys)] if keys else []

    def has_any(self, request_ids: Sequence[str]) -> bool:
        """True when something waits for one of these requests."""
        return not self._by_request.keys().isdisjoint(request_ids)

    def _insert(self, pending: PendingFeedback) -> None:
        self._by_key[pending.key] = pending
        self._by_request.setdefault(pending.feedback.request_id, []).append(pending.key)

    def _remove(self, key: str) -> PendingFeedback:
        pending = self._by_key.pop(key)
        keys = self._by_request[pending.feedback.request_id]
        keys.remove(key)
        if not keys:
            del self._by_request[pending.feedback.request_id]
        return pending
