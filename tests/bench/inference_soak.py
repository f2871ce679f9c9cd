"""Sends thousands of requests with random ends to the inference service: memory must stay flat, and no slot may stay busy.

    make soak-inference             # or: python tests/bench/inference_soak.py [--requests 2000] [--at-once 12] [--seed 1]

The real service process runs the packaged model on ports of its own, without a broker. Each request ends in a way that is drawn: read to its
end, cancelled before or after the first token, aborted by id, past its deadline, cut by a stop string, refused as too long. Every tenth of
the run the resident memory is noted; what it was after the first two tenths is compared with the end. Ends with 1 when memory grew by more
than `--growth-mib`, threads kept growing, or a request or slot is left.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
from inference_speed import Service, resident_mib
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as pb_grpc
from sluice.types.v1 import chat_pb2, generation_pb2

# Pools fill on first use, most of them early; a thread a request, or one a hundred, would show.
MORE_THREADS = 4
ENDS = ("read", "read", "read", "cancel early", "cancel late", "abort", "deadline", "stop string", "too long", "unary")


def spec(number: int, dice: random.Random, *, end: str) -> pb.GenerationSpec:
    words = "long " * 1500 if end == "too long" else f"Write a sentence about the number {number}."
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=words)
    stopping = generation_pb2.StoppingParameters(max_tokens=dice.choice([1, 4, 8, 16]), ignore_eos=True)
    if end == "stop string":
        stopping.stop.extend(["e", "a", "\n"])
    if end in ("cancel late", "abort", "deadline"):
        stopping.max_tokens = 200
    return pb.GenerationSpec(
        request_id=f"soak-{number}",
        chat=pb.ChatInput(messages=[message]),
        sampling=generation_pb2.SamplingParameters(seed=number),
        stopping=stopping,
    )


async def one(stub: Any, number: int, dice: random.Random) -> str:
    """How the request ended, as its caller saw it."""
    end = dice.choice(ENDS)
    wanted = spec(number, dice, end=end)
    metadata = (("x-sluice-tenant-id", f"tenant-{number % 5}"),)
    timeout = dice.choice([0.01, 0.2, 0.6]) if end == "deadline" else 120
    try:
        if end == "unary":
            await stub.Generate(pb.GenerateRequest(spec=wanted), metadata=metadata, timeout=timeout)
            return "unary finished"
        call = stub.GenerateStream(pb.GenerateStreamRequest(spec=wanted), metadata=metadata, timeout=timeout)
        return f"{end}: {await read(call, stub, wanted.request_id, end=end, patience=dice.randint(1, 6))}"
    except grpc.aio.AioRpcError as error:
        return f"{end}: {error.code().name}"
    except asyncio.CancelledError:
        return f"{end}: cancelled"


async def read(call: Any, stub: Any, request_id: str, *, end: str, patience: int) -> str:
    last = ""
    if end == "cancel early":
        call.cancel()
    async for answer in call:
        last = answer.WhichOneof("event")
        patience -= last == "token"
        if end == "cancel late" and patience <= 0:
            call.cancel()
        if end == "abort" and patience == 0:
            await stub.Abort(pb.AbortRequest(request_id=request_id))
    return last


async def run(service: Service, *, requests: int, at_once: int, seed: int) -> tuple[Counter[str], list[int], list[int]]:
    """How requests ended; memory and threads at every tenth."""
    dice, ends, memory, threads = random.Random(seed), Counter[str](), list[int](), list[int]()
    numbers = iter(range(requests))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        stub = pb_grpc.InferenceServiceStub(channel)

        async def worker() -> None:
            for number in numbers:
                ends[await one(stub, number, dice)] += 1
                if number % max(1, requests // 10) == 0:
                    memory.append(resident_mib(service.process))
                    threads.append(threads_of(service))
                    print(f"{number:>6} of {requests}: {memory[-1]} MiB, {threads[-1]} threads", flush=True)

        await asyncio.gather(*(worker() for _ in range(at_once)))
        await until_idle(stub)
    memory.append(resident_mib(service.process))
    threads.append(threads_of(service))
    return ends, memory, threads


async def until_idle(stub: Any) -> None:
    """Raises TimeoutError when a request is left after a minute."""
    async with asyncio.timeout(60):
        while True:
            load = await stub.GetLoad(pb.GetLoadRequest())
            if not (load.running_requests or load.queued_requests or load.used_kv_tokens):
                return
            await asyncio.sleep(0.1)


def threads_of(service: Service) -> int:
    return len(list(Path(f"/proc/{service.process.pid}/task").iterdir()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--growth-mib", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        service = Service(0, Path(home))
        began = time.monotonic()
        try:
            ends, memory, threads = asyncio.run(
                run(service, requests=options.requests, at_once=options.at_once, seed=options.seed)
            )
        finally:
            service.stop()
    for end, count in sorted(ends.items()):
        print(f"{count:>6}  {end}")
    growth, more_threads = (count[-1] - count[min(2, len(count) - 1)] for count in (memory, threads))
    print(
        f"{options.requests} requests in {time.monotonic() - began:.0f} s, {options.at_once} at once, load average {os.getloadavg()[0]:.1f}"
    )
    print(
        f"memory {memory} MiB: grew by {growth} MiB after the first two tenths; threads {threads}: {more_threads:+d}; nothing is left running"
    )
    raise SystemExit(growth > options.growth_mib or more_threads > MORE_THREADS)


if __name__ == "__main__":
    main()
