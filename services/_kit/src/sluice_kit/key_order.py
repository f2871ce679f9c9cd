"""Runs work on items, many keys at once and the items of one key in their order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class KeyOrder(Generic[T]):
    """A queue per key and a task for every key that has items; at most `concurrency` items are worked on at once."""

    def __init__(self, work: Callable[[T], Awaitable[None]], *, concurrency: int) -> None:
        """`work` must not raise: an error of it is raised by `raise_failure`, and its key's other items are dropped."""
        self._work = work
        self._slots = asyncio.Semaphore(concurrency)
        self._waiting: dict[Hashable, deque[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    def add(self, key: Hashable, item: T) -> None:
        """Work on an item after all earlier ones of its key."""
        if key in self._waiting:
            self._waiting[key].append(item)
            return
        self._waiting[key] = deque([item])
        task = asyncio.create_task(self._work_off(key))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def ended_one(self, timeout: float) -> None:
        """Wait until a key has run dry, or for the timeout (seconds)."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    async def let_go(self, timeout: float) -> None:
        """Drop what has not begun and wait for what has; what lasts longer than the timeout (seconds) is cancelled."""
        for queue in self._waiting.values():
            queue.clear()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=timeout)

    def raise_failure(self) -> None:
        """Raise what the work raised first, if it did."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    async def _work_off(self, key: Hashable) -> None:
        queue = self._waiting[key]
        try:
            while queue:
                async with self._slots:
                    if queue:  # not dropped while we waited for a slot
                        await self._work(queue.popleft())
        finally:
            del self._waiting[key]

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
