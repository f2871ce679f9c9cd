"""What is known of each request, so that verdict, completion and reviews meet in whatever order they come."""

from __future__ import annotations

from dataclasses import dataclass, field

from sluice_fairness.domain.facts import Completion, Decision, Review, StoryFact

CHUNK_SIZE = 64
"""Requests per stored chunk. A chunk is written again when one of its requests gets a fact."""


@dataclass(slots=True)
class Story:
    """The facts of one request, each once."""

    request_id: str
    completion: Completion | None = None
    decisions: dict[str, Decision] = field(default_factory=dict)
    reviews: dict[str, Review] = field(default_factory=dict)

    def add(self, fact: StoryFact) -> bool:
        """Take a fact in; False when it is known already: its producer sent it twice."""
        if isinstance(fact, Completion):
            if self.completion is not None:
                return False
            self.completion = fact
            return True
        if isinstance(fact, Decision):
            return self.decisions.setdefault(fact.decision_id, fact) is fact
        return self.reviews.setdefault(fact.review_id, fact) is fact

    @property
    def is_whole(self) -> bool:
        """True when nothing in it waits for something else."""
        return self.completion is not None and all(each.decision_id in self.decisions for each in self.reviews.values())


@dataclass(slots=True)
class StoryChunk:
    """Up to CHUNK_SIZE stories that are stored together; `number` counts up, `slot` is its place in the ring."""

    number: int
    slot: int
    partition: int
    stories: list[Story] = field(default_factory=list)

    @property
    def key(self) -> str:
        """Identity of the slot: a newer chunk replaces the one a ring's turn older."""
        return f"stories|{self.slot}|{self.partition}"


class Stories:
    """The latest requests of a partition, at most `capacity` (rounded up to chunks)."""

    def __init__(self, *, partition: int, capacity: int, chunks: list[StoryChunk]) -> None:
        self._partition = partition
        self._ring = -(-capacity // CHUNK_SIZE) + 1  # one more: the newest chunk is being filled
        self._chunks = {chunk.slot: chunk for chunk in chunks if chunk.slot < self._ring}
        self._by_request: dict[str, tuple[Story, StoryChunk]] = {}
        for chunk in sorted(self._chunks.values(), key=lambda each: each.number):
            self._by_request.update((story.request_id, (story, chunk)) for story in chunk.stories)
        newest = max(self._chunks.values(), key=lambda each: each.number, default=None)
        self.forgotten = 0
        """Stories that gave way while a part of them still waited."""
        self._open = newest or self._begin(0)

    def __len__(self) -> int:
        return len(self._by_request)

    def of(self, request_id: str) -> tuple[Story, StoryChunk]:
        """The story of a request, begun when it is new, and the chunk that must be stored after a change."""
        known = self._by_request.get(request_id)
        if known is None:
            if len(self._open.stories) >= CHUNK_SIZE:
                self._open = self._begin(self._open.number + 1)
            known = self._by_request[request_id] = (Story(request_id), self._open)
            self._open.stories.append(known[0])
        return known

    def _begin(self, number: int) -> StoryChunk:
        slot = number % self._ring
        old = self._chunks.get(slot)
        for story in old.stories if old else ():
            self.forgotten += not story.is_whole
            if self._by_request.get(story.request_id, (None,))[0] is story:
                del self._by_request[story.request_id]
        chunk = self._chunks[slot] = StoryChunk(number, slot, self._partition)
        return chunk
