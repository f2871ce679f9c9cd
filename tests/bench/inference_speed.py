"""Measures the inference service beside the bare engine it wraps, interleaved in one run.

    python tests/bench/inference_speed.py [--rounds 5] [--tokens 96] [--threads 0]

Both sides run the packaged model with the same options, each in a process of its own, one after the other in every round; the
medians of the rounds are printed: milliseconds to the first token, tokens per second and CPU time a token at 1 and at 4 streams, and
memory. The load of the machine is printed too: on a busy one only the CPU time says much.
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
SLOTS, CONTEXT = 4, 2048
START_SECONDS = 120


@dataclass(frozen=True)
class Sample:
    """One round at one number of streams."""

    first_token_ms: float
    tokens_per_second: float
    cpu_ms_per_token: float = 0.0


@dataclass(frozen=True)
class Spell:
    """What was asked, for both sides alike."""

    streams: int
    tokens: int


def measured(spell: Spell, starts: list[float], firsts: list[float], end: float) -> Sample:
    waits = [first - start for start, first in zip(starts, firsts, strict=True)]
    return Sample(1000 * statistics.median(waits), spell.streams * spell.tokens / (end - min(starts)))


# ---- the bare engine: runs in a child process, asked over stdin -------------------------------------------------------------


def engine_main(threads: int) -> None:
    """Child process: loads the engine exactly as the service does, then answers one JSON line per spell."""
    from sluice_inference.adapters import gguf, model_file
    from sluice_inference.adapters.llama_cpp import LlamaCpp, LlamaCppOptions, model_facts

    path = model_file.locate_packaged()
    facts = gguf.read_facts(path)
    model = model_facts(facts, model_id="m", aliases=(), digest="", context_tokens=CONTEXT, most_output_tokens=1024)
    backend = LlamaCpp(LlamaCppOptions(path, SLOTS, CONTEXT, threads), model=model, gguf=facts)
    asyncio.run(backend.load())
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        sample = engine_spell(backend._server, Spell(**json.loads(line)))
        print(json.dumps(sample.__dict__), flush=True)
    asyncio.run(backend.close())


def engine_spell(server: Any, spell: Spell) -> Sample:
    starts, firsts = [0.0] * spell.streams, [0.0] * spell.streams

    def generate(stream: int) -> None:
        def on_chunk(chunk: dict[str, Any]) -> None:
            choices = chunk.get("choices")
            if not firsts[stream] and choices and choices[0]["delta"].get("content"):
                firsts[stream] = time.perf_counter()

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
            times = await asyncio.gather(*(generate(stub, spell.tokens) for _ in range(spell.streams)))
            return measured(spell, [start for start, _ in times], [first for _, first in times], time.perf_counter())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


async def generate(stub: Any, tokens: int) -> tuple[float, float]:
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=PROMPT)
    spec = pb.GenerationSpec(
        chat=pb.ChatInput(messages=[message]),
        sampling=generation_pb2.SamplingParameters(seed=1),
        stopping=generation_pb2.StoppingParameters(max_tokens=tokens, ignore_eos=True),
        cache=pb.CacheOptions(bypass_prefix_cache=True),
    )
    start, first = time.perf_counter(), 0.0
    async for event in stub.GenerateStream(pb.GenerateStreamRequest(spec=spec)):
        if not first and event.WhichOneof("event") == "token":
            first = time.perf_counter()
    return start, first


# ---- the table --------------------------------------------------------------------------------------------------------------


def run_measuring_cpu(side: BareEngine | Service, spell: Spell) -> Sample:
    """CPU time is what a busy machine distorts least: it is the side's whole process, with all its threads."""
    before = cpu_seconds(side.process)
    sample = side.run(spell)
    used = cpu_seconds(side.process) - before
    return replace(sample, cpu_ms_per_token=1000 * used / (spell.streams * spell.tokens))


def cpu_seconds(process: subprocess.Popen[Any]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(process: subprocess.Popen[Any]) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


def table(samples: dict[tuple[str, int], list[Sample]]) -> str:
    def median(side: str, streams: int, read: Callable[[Sample], float]) -> float:
        return statistics.median(read(sample) for sample in samples[side, streams])

    lines = [f"{'streams':>7}  {'':16}  {'bare engine':>12}  {'service':>12}  {'difference':>12}"]
    for streams in (1, 4):
        bare, ours = (median(side, streams, lambda s: s.first_token_ms) for side in ("bare", "service"))
        lines.append(f"{streams:>7}  {'first token, ms':16}  {bare:>12.1f}  {ours:>12.1f}  {ours - bare:>+12.1f}")
        bare, ours = (median(side, streams, lambda s: s.tokens_per_second) for side in ("bare", "service"))
        lines.append(f"{streams:>7}  {'tokens/s':16}  {bare:>12.1f}  {ours:>12.1f}  {ours / bare:>11.3f}x")
        bare, ours = (median(side, streams, lambda s: s.cpu_ms_per_token) for side in ("bare", "service"))
        lines.append(f"{streams:>7}  {'CPU ms a token':16}  {bare:>12.2f}  {ours:>12.2f}  {ours - bare:>+12.2f}")
    return "\n".join(lines)


def compare(*, rounds: int, tokens: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        service, bare = Service(threads, Path(home)), BareEngine(threads)
        sides: dict[str, BareEngine | Service] = {"bare": bare, "service": service}
        samples: dict[tuple[str, int], list[Sample]] = {(side, n): [] for side in sides for n in (1, 4)}
        for number in range(rounds + 1):
            for streams in (1, 4):
                # Taking turns at going first keeps a drift of the machine out of the difference.
                for side in sorted(sides, reverse=bool(number % 2)):
                    sample = run_measuring_cpu(sides[side], Spell(streams, tokens))
                    if number:  # the first round warms up
                        samples[side, streams].append(sample)
        print(table(samples))
        print(f"memory: bare engine {resident_mib(bare.process)} MiB, service {resident_mib(service.process)} MiB")
        print(f"{rounds} rounds of {tokens} tokens; {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}")
        bare.stop()
        service.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=0, help="0 means one a core")
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.engine:
        engine_main(options.threads)
    else:
        compare(rounds=options.rounds, tokens=options.tokens, threads=options.threads)


if __name__ == "__main__":
    main()
