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
        self._steps: asyncio.Queue[EngineStep | InferenceRefusal] = asyncio.Queue(maxsize=STEP_BOUND)
        self._task: asyncio.Task[None] | None = None

    def begin_pumping(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        self._task = asyncio.create_task(work, name=name)

    async def put(self, step: EngineStep | InferenceRefusal) -> None:
        """Waits for room."""
        await self._steps.put(step)

    async def __aiter__(self) -> AsyncIterator[EngineStep]:
        while self._task and not (self._task.done() and self._steps.empty()):
            step = await self._next_step()
            if isinstance(step, InferenceRefusal):
                raise step
            if step is not None:
                yield step

    def stop(self) -> None:
        if self._task and not self._task.done() and not self._task.cancelling():
            self._task.cancel()

    async def closed(self) -> None:
        if self._task:
            await asyncio.wait({self._task})

    async def _next_step(self) -> EngineStep | InferenceRefusal | None:
        """The next step, or None when the task ended without one."""
        if not self._steps.empty():
            return self._steps.get_nowait()
        getting = asyncio.ensure_future(self._steps.get())
        assert self._task is not None
        try:
            await asyncio.wait({getting, self._task}, return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting.done() else None
        finally:
            getting.cancel()
