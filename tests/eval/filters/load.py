"""Calls to a running server by so many clients at once, and what they took."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from .servers import Server
from .timing import quantile

T = TypeVar("T")
HEADER = ["requests", "requests/s", "server CPU ms a request", "p50 ms", "p99 ms"]


async def measure(
    running: Server, call: Callable[[T], Awaitable[None]], requests: Sequence[T], clients: int
) -> list[str]:
    """A row under HEADER: each client sends its next request when it has the answer to the last."""
    waiting, taken = list(reversed(requests)), []

    async def client() -> None:
        while waiting:
            request, begun = waiting.pop(), time.perf_counter()
            await call(request)
            taken.append(time.perf_counter() - begun)

    cpu, wall = running.cpu_seconds(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds, cpu = time.perf_counter() - wall, running.cpu_seconds() - cpu
    return [
        str(len(requests)),
        f"{len(requests) / seconds:.0f}",
        f"{1000 * cpu / len(requests):.2f}",
        f"{1000 * quantile(taken, 0.5):.1f}",
        f"{1000 * quantile(taken, 0.99):.1f}",
    ]
