"""A run whose engine is read by a task of its own, so that stopping it does not depend on who iterates."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from sluice_inference.domain.backend import EngineStep
from sluice_inference.domain.refusals import InferenceRefusal

# Steps that may wait for the caller before the engine is read no further.
STEP_BOUND = 64


class PumpedRun:
    """Fits domain.backend.EngineRun. A subclass hands `begin_pumping` its work, which puts steps and is cancelled once by `stop`."""

    def __init__(self) -> None:
        self._steps: asyncio.Queue[EngineStep | InferenceRefusal | None] = asyncio.Queue(maxsize=STEP_BOUND)
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    def begin_pumping(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        self._task = asyncio.create_task(work, name=name)
        self._task.add_done_callback(self._wake)

    async def put(self, step: EngineStep | InferenceRefusal) -> None:
        """Waits for room."""
        await self._steps.put(step)

    async def put_last(self, step: EngineStep) -> None:
        """The engine has finished: what the task does from here on is tidying up, and no more to be stopped."""
        await self.put(step)
        self._is_over = True

    async def __aiter__(self) -> AsyncIterator[EngineStep]:
        while self._task and not (self._task.done() and self._steps.empty()):
            step = await self._steps.get()
            if isinstance(step, InferenceRefusal):
                raise step
            if step is not None:
                yield step

    def stop(self) -> None:
        if self._task and not self._is_over and not self._task.done() and not self._task.cancelling():
            self._task.cancel()

    async def closed(self) -> None:
        if self._task:
            await asyncio.wait({self._task})

    def _wake(self, _: asyncio.Task[None]) -> None:
        """Ends a wait for steps that will not come; in a full queue nobody waits, and its reader sees that the task is done."""
        if not self._steps.full():
            self._steps.put_nowait(None)
