"""Measures the inference service and its in-process backend beside the bare engine they wrap, interleaved in one run.

    make bench-inference            # or: python tests/bench/inference_speed.py [--rounds 7] [--tokens 96] [--threads 0] [--streams 1 2 4 8]

All sides run the packaged model with the same options, one after the other in every round, in an order that changes: the bare engine and the
backend over it in one process, the service in another. Printed are the medians over the rounds of milliseconds to the first token, tokens per second
and CPU time a token, the median of the rounds' own ratios (a drift of the machine is in both sides of each), and memory. The load of the machine is
printed too: on a busy one only the CPU time says much.

Streams begin together, as a burst does: then it depends on a millisecond which prompts share a batch of the engine, so the wait for the first
token is measured once more with streams that begin in turn, each at the first token of the one before. What the service adds without any
engine is measured by inference_overhead.py, which `make bench-inference` runs too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as pb_grpc
from sluice.types.v1 import chat_pb2, generation_pb2

PROMPT = "Explain in a few sentences why the sea is salty."
SLOTS, CONTEXT = 8, 1024
SIDES = ("bare", "backend", "service")
START_SECONDS = 120


@dataclass(frozen=True)
class Sample:
    """One round at one number of streams."""

    first_token_ms: float
    tokens_per_second: float
    cpu_ms_per_token: float = 0.0
    turn_ms: float = 0.0
    """To the first token of streams that begin in turn."""


@dataclass(frozen=True)
class Spell:
    """What was asked, for both sides alike."""

    streams: int
    tokens: int
    side: str = "bare"
    in_turn: bool = False


class Turns:
    """Each stream waits for the first token of the one before, or for nothing."""

    def __init__(self, spell: Spell, event: Callable[[], Any]) -> None:
        self._begun = [event() for _ in range(spell.streams)]
        self._in_turn = spell.in_turn

    def before(self, stream: int) -> Any:
        """An event to wait for, if any."""
        return self._begun[stream - 1] if self._in_turn and stream else None

    def begun(self, stream: int) -> None:
        self._begun[stream].set()


def measured(spell: Spell, starts: list[float], firsts: list[float], end: float) -> Sample:
    waits = [first - start for start, first in zip(starts, firsts, strict=True)]
    return Sample(1000 * statistics.median(waits), spell.streams * spell.tokens / (end - min(starts)))


# ---- the bare engine: runs in a child process, asked over stdin -------------------------------------------------------------


def engine_main(threads: int) -> None:
    """Child process: loads the engine exactly as the service does, then answers one JSON line per spell, bare or through the backend."""
    from sluice_inference.adapters import gguf, model_file
    from sluice_inference.adapters.llama_cpp.backend import LlamaCpp, LlamaCppOptions, model_facts

    path = model_file.locate_packaged()
    facts = gguf.read_facts(path)
    model = model_facts(facts, model_id="m", aliases=(), digest="", context_tokens=CONTEXT, most_output_tokens=1024)
    backend = LlamaCpp(LlamaCppOptions(path, SLOTS, CONTEXT, threads), model=model, gguf=facts)
    asyncio.run(backend.load())
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        spell = Spell(**json.loads(line))
        run_bare = spell.side == "bare"
        sample = engine_spell(backend._server, spell) if run_bare else asyncio.run(backend_spell(backend, spell))
        print(json.dumps(sample.__dict__), flush=True)
    asyncio.run(backend.close())


async def backend_spell(backend: Any, spell: Spell) -> Sample:
    turns = Turns(spell, asyncio.Event)
    times = await asyncio.gather(
        *(backend_generate(backend, stream, spell.tokens, turns) for stream in range(spell.streams))
    )
    return measured(spell, [start for start, _ in times], [first for _, first in times], time.perf_counter())


async def backend_generate(backend: Any, stream: int, tokens: int, turns: Turns) -> tuple[float, float]:
    from sluice_inference.domain.backend import NewTokens
    from sluice_inference.domain.generation import Chat, ChatTurn, Generation, Stopping

    generation = Generation(
        f"r{stream}",
        "m",
        Chat((ChatTurn("user", PROMPT),)),
        sampling=replace(backend.model.default_sampling, seed=1),
        stopping=Stopping(max_tokens=tokens, ignore_eos=True),
        bypass_prefix_cache=True,
    )
    if before := turns.before(stream):
        await before.wait()
    start, first = time.perf_counter(), 0.0
    run = backend.start(generation, slot=stream, may_reuse_cache=False)
    async for step in run:
        if not first and isinstance(step, NewTokens):
            first = time.perf_counter()
            turns.begun(stream)
    await run.closed()
    return start, first


def engine_spell(server: Any, spell: Spell) -> Sample:
    starts, firsts = [0.0] * spell.streams, [0.0] * spell.streams
    turns = Turns(spell, threading.Event)

    def generate(stream: int) -> None:
        def on_chunk(chunk: dict[str, Any]) -> None:
            choices = chunk.get("choices")
            if not firsts[stream] and choices and choices[0]["delta"].get("content"):
                firsts[stream] = time.perf_counter()
                turns.begun(stream)

        if before := turns.before(stream):
            before.wait()
        starts[stream] = time.perf_counter()
        server.handle_chat_completions(engine_body(stream, spell.tokens), on_chunk)

    with ThreadPoolExecutor(spell.streams) as pool:
        list(pool.map(generate, range(spell.streams)))
    return measured(spell, starts, firsts, time.perf_counter())


def engine_body(stream: int, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": PROMPT}]
    sampling = {"temperature": 0.2, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1, "seed": 1}
    limits = {"max_tokens": tokens, "ignore_eos": True, "cache_prompt": False, "id_slot": stream}
    return {"messages": messages, "stream": True, "reasoning_format": "none"} | sampling | limits


class BareEngine:
    """The child process, seen from here."""

    def __init__(self, threads: int) -> None:
        command = [sys.executable, __file__, "--engine", "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.process.stdout.readline()

    def run(self, spell: Spell) -> Sample:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(spell.__dict__) + "\n")
        self.process.stdin.flush()
        return Sample(**json.loads(self.process.stdout.readline()))

    def stop(self) -> None:
        self.process.communicate(timeout=30)


# ---- the service: its real process, asked over gRPC -------------------------------------------------------------------------


class Service:
    """The real process on ports of its own, without a broker: its events wait in the outbox."""

    def __init__(self, threads: int, home: Path) -> None:
        self.log = (home / "log").open("w+")
        settings = {
            "SLUICE_HOME": str(home),
            "SLUICE_INFERENCE_GRPC_LISTEN": "127.0.0.1:0",
            "SLUICE_INFERENCE_METRICS_LISTEN": "127.0.0.1:0",
            "SLUICE_KAFKA_BOOTSTRAP": "127.0.0.1:1",
            "SLUICE_INFERENCE_SLOTS": str(SLOTS),
            "SLUICE_INFERENCE_CONTEXT_TOKENS": str(CONTEXT),
            "SLUICE_INFERENCE_THREADS": str(threads),
        }
        command = [sys.executable, "-m", "sluice_inference.main"]
        self.process = subprocess.Popen(command, env=os.environ | settings, stdout=self.log)
        self.port = self._wait_for_port()

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            self.log.seek(0)
            events = [json.loads(line) for line in self.log.read().splitlines(keepends=True) if line.endswith("\n")]
            if any(event["event"] == "model.loaded" for event in events):
                return next(int(event["port"]) for event in events if event["event"] == "service.listening")
            time.sleep(0.1)
        self.stop()
        raise SystemExit("the service did not become ready")

    def run(self, spell: Spell) -> Sample:
        return asyncio.run(self._run(spell))

    async def _run(self, spell: Spell) -> Sample:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = pb_grpc.InferenceServiceStub(channel)
            await stub.GetLoad(pb.GetLoadRequest())  # the connection is no part of the measurement
            turns = Turns(spell, asyncio.Event)
            times = await asyncio.gather(
                *(generate(stub, stream, spell.tokens, turns) for stream in range(spell.streams))
            )
            return measured(spell, [start for start, _ in times], [first for _, first in times], time.perf_counter())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


async def generate(stub: Any, stream: int, tokens: int, turns: Turns) -> tuple[float, float]:
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=PROMPT)
    spec = pb.GenerationSpec(
        chat=pb.ChatInput(messages=[message]),
        sampling=generation_pb2.SamplingParameters(seed=1),
        stopping=generation_pb2.StoppingParameters(max_tokens=tokens, ignore_eos=True),
        cache=pb.CacheOptions(bypass_prefix_cache=True),
    )
    if before := turns.before(stream):
        await before.wait()
    start, first = time.perf_counter(), 0.0
    async for event in stub.GenerateStream(pb.GenerateStreamRequest(spec=spec)):
        if not first and event.WhichOneof("event") == "token":
            first = time.perf_counter()
            turns.begun(stream)
    return start, first


# ---- the table --------------------------------------------------------------------------------------------------------------


def run_measuring_cpu(side: BareEngine | Service, spell: Spell) -> Sample:
    """CPU time is what a busy machine distorts least: it is the side's whole process, with all its threads."""
    before = cpu_seconds(side.process)
    sample = side.run(spell)
    used = cpu_seconds(side.process) - before
    turn = side.run(replace(spell, in_turn=True)) if spell.streams > 1 else sample
    per_token = 1000 * used / (spell.streams * spell.tokens)
    return replace(sample, cpu_ms_per_token=per_token, turn_ms=turn.first_token_ms)


def cpu_seconds(process: subprocess.Popen[Any]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(process: subprocess.Popen[Any]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


def table(samples: dict[tuple[str, int], list[Sample]], streams_at: list[int]) -> str:
    reads: list[tuple[str, Callable[[Sample], float]]] = [
        ("first, in turn", lambda s: s.turn_ms),
        ("first, at once", lambda s: s.first_token_ms),
        ("tokens/s", lambda s: s.tokens_per_second),
        ("CPU ms a token", lambda s: s.cpu_ms_per_token),
    ]
    lines = [f"{'streams':>7}  {'':16}" + "".join(f"{side:>12}" for side in SIDES) + f"{'backend':>14}{'service':>14}"]
    for streams in streams_at:
        for name, read in reads:
            columns = {side: [read(sample) for sample in samples[side, streams]] for side in SIDES}
            cells = "".join(f"{statistics.median(columns[side]):>12.1f}" for side in SIDES)
            beside = "".join(f"{compared(name, columns['bare'], columns[side]):>14}" for side in SIDES[1:])
            lines.append(f"{streams:>7}  {name:16}{cells}{beside}")
    return "\n".join(lines)


def compared(name: str, bare: list[float], ours: list[float]) -> str:
    """Median over the rounds of the ratio, or of the milliseconds added."""
    pairs = list(zip(bare, ours, strict=True))
    if name == "tokens/s":
        return f"{statistics.median(b / a for a, b in pairs):.3f}x"
    return f"{statistics.median(b - a for a, b in pairs):+.2f}"


def compare(*, rounds: int, tokens: int, threads: int, streams_at: list[int]) -> None:
    with tempfile.TemporaryDirectory() as home:
        service, bare = Service(threads, Path(home)), BareEngine(threads)
        processes: dict[str, BareEngine | Service] = {"bare": bare, "backend": bare, "service": service}
        samples: dict[tuple[str, int], list[Sample]] = {(side, n): [] for side in SIDES for n in streams_at}
        for number in range(rounds + 1):
            for streams in streams_at:
                # Taking turns at going first keeps a drift of the machine out of the difference.
                for side in SIDES[number % 3 :] + SIDES[: number % 3]:
                    sample = run_measuring_cpu(processes[side], Spell(streams, tokens, side))
                    if number:  # the first round warms up
                        samples[side, streams].append(sample)
        print(table(samples, streams_at))
        print(f"memory: engine {resident_mib(bare.process)} MiB, service {resident_mib(service.process)} MiB")
        print(f"{rounds} rounds of {tokens} tokens; {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
        bare.stop()
        service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8], choices=range(1, SLOTS + 1))
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=0, help="0 means one a core")
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        engine_main(options.threads)
    else:
        compare(rounds=options.rounds, tokens=options.tokens, threads=options.threads, streams_at=options.streams)


if __name__ == "__main__":
    main()
