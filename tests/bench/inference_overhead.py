"""Measures what the inference service itself adds, over gRPC, around an engine that answers at once: the engine's own time is no part of it.

    python tests/bench/inference_overhead.py [--requests 300] [--tokens 400] [--streams 1 2 4 8]

A backend that gives every token as soon as it is asked stands behind the real servicer, conductor, admission, health and recorder, on the loopback
interface, client and server in one process. Printed are the milliseconds from a client's call to its first token, alone and with other
streams running, and the CPU time a token (client included).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "services/inference/tests/support"))
from inference_stage import Running, served, spec, stream
from sluice_inference.domain.backend import (
    Capabilities,
    EngineEnded,
    EngineStep,
    ModelFacts,
    NewTokens,
    PromptProgress,
)
from sluice_inference.domain.generation import FinishReason, Generation, StopMatch


class PromptRun:
    """Gives its tokens as fast as they are taken."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    async def __aiter__(self) -> AsyncIterator[EngineStep]:
        yield PromptProgress(5, 0)
        for number in range(1, self._tokens + 1):
            yield NewTokens("a", number)
            await asyncio.sleep(0)
        yield EngineEnded(FinishReason.LENGTH, StopMatch(), 5, 0, self._tokens)

    def stop(self) -> None: ...

    async def closed(self) -> None: ...


class PromptBackend:
    """Fits domain.backend.Backend."""

    name = "at_once"
    runs_outputs_together = False
    model = ModelFacts(
        "at-once", "at_once", max_context_tokens=4096, max_output_tokens=4000, capabilities=Capabilities(chat=True)
    )

    def kv_tokens(self) -> None: ...

    async def load(self) -> None: ...

    async def close(self) -> None: ...

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> PromptRun:
        return PromptRun(generation.stopping.max_tokens or 1)


async def first_token_ms(running: Running) -> float:
    start = time.perf_counter()
    first = 0.0
    async for event in stream(running, spec(tokens=3)):
        if not first and event.WhichOneof("event") == "token":
            first = time.perf_counter() - start
    return 1000 * first


async def first_tokens_ms(running: Running, *, requests: int, streams: int) -> list[float]:
    """Of `requests` in all, `streams` at a time."""
    found: list[float] = []
    for _ in range(max(1, requests // streams)):
        found += await asyncio.gather(*(first_token_ms(running) for _ in range(streams)))
    return found


async def cpu_ms_per_token(running: Running, *, tokens: int, rounds: int = 5) -> float:
    before = time.process_time()
    for _ in range(rounds):
        async for _ in stream(running, spec(tokens=tokens)):
            pass
    return 1000 * (time.process_time() - before) / (rounds * tokens)


async def measure(*, requests: int, tokens: int, streams_at: list[int]) -> None:
    with tempfile.TemporaryDirectory() as home:
        async with served(PromptBackend(), home=Path(home), slots=max(streams_at)) as running:  # type: ignore[arg-type]
            await first_tokens_ms(running, requests=30, streams=1)
            print("the service alone, around an engine that answers at once (client included):")
            for streams in streams_at:
                found = sorted(await first_tokens_ms(running, requests=requests, streams=streams))
                median, tail = statistics.median(found), found[int(0.95 * len(found))]
                print(f"{streams:>7}  first token, ms  median {median:.2f}, 95 % {tail:.2f}")
            print(f"         CPU ms a token   {await cpu_ms_per_token(running, tokens=tokens):.3f}")
    print(f"{requests} requests; {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    asyncio.run(measure(requests=options.requests, tokens=options.tokens, streams_at=options.streams))


if __name__ == "__main__":
    main()
