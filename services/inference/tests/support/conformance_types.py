"""What the conformance suite knows of each backend it is run against."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from inference_stage import Running
from sluice_inference.domain.backend import Backend


@dataclass
class Contender:
    """A served backend, and what its engine itself says of its state."""

    running: Running
    backend: Backend
    live: Callable[[], Awaitable[int]]
    """Generations that the engine computes now."""
    aborts: Callable[[], int] | None = None
    """How often the engine was told to abort; None where the engine does not count."""

    async def until_idle(self) -> None:
        async with asyncio.timeout(20):
            while await self.live() or self.running.conductor.admission.running:
                await asyncio.sleep(0.01)
