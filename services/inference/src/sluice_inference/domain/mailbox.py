"""Events on their way to the caller: bounded, except that the last one always finds room."""

from __future__ import annotations

import asyncio
from collections import deque

from sluice_inference.domain.generation import GenerationEvent
from sluice_inference.domain.refusals import InferenceRefusal


class Mailbox:
    """A bounded queue whose last item always finds room: a full box must not swallow the terminal event."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: deque[GenerationEvent | InferenceRefusal] = deque()
        self._arrived, self._room = asyncio.Event(), asyncio.Event()

    @property
    def is_full(self) -> bool:
        """True when a writer has to wait for the reader."""
        return len(self._items) >= self._bound

    async def put(self, item: GenerationEvent) -> None:
        while self.is_full:
            self._room.clear()
            await self._room.wait()
        self.put_last(item)

    def put_last(self, item: GenerationEvent | InferenceRefusal) -> None:
        self._items.append(item)
        self._arrived.set()

    async def get(self) -> GenerationEvent | InferenceRefusal:
        while not self._items:
            self._arrived.clear()
            await self._arrived.wait()
        self._room.set()
        return self._items.popleft()
