"""How fast redaction is, in process and over gRPC, beside stock Presidio with the same spaCy model: interleaved, one run.

    python tests/bench/redaction_speed.py [--quick] [--rounds 5] [--seed 2026]

Writes docs/filters/redaction-speed.md; with --quick only prints. CPU time a text (medians of rounds), because other work on the
machine disturbs it less than wall time; one thread in process; the server as it is shipped, Kafka away. All texts differ.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

# One thread each, so that the numbers are per core; to be set before numpy comes in.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "eval"))

import grpc  # noqa: E402
from filters import pages  # noqa: E402
from filters.load import HEADER, measure  # noqa: E402
from filters.pages import table  # noqa: E402
from filters.prose import MIXES, Prose  # noqa: E402
from filters.redactors import SPACY_MODEL, modes, sluice_default, sluice_streamed, stock_presidio  # noqa: E402
from filters.servers import Server, server  # noqa: E402
from filters.timing import Times, growth, quantile  # noqa: E402
from sluice.redaction.v1 import redaction_service_pb2 as pb  # noqa: E402
from sluice.redaction.v1 import redaction_service_pb2_grpc as rpc  # noqa: E402

WORDS = {20: 20, 100: 8, 500: 3, 5000: 1}  # length: texts a round
LONGEST_QUICK = 500
TOKEN_SECONDS = 0.01  # a model of a hundred tokens a second
Work = Callable[[str], object]


def loaders() -> dict[str, Callable[[], Work]]:
    found: dict[str, Callable[[], Work]] = {"stock Presidio": stock_presidio}
    for name, load in modes().items():
        found[name] = lambda load=load: sluice_default(load())
    name, load = next(iter(modes().items()))
    return found | {f"{name}, streamed": lambda: sluice_streamed(load())}


def in_process(works: dict[str, Work], prose: Prose, rounds: int) -> dict[tuple[str, str, int], Times]:
    """Times by system, mix and words."""
    times = {(name, mix, words): Times() for name in works for mix in MIXES for words in WORDS}
    for work in works.values():
        work(prose.text(100, "sparse"))  # what is loaded late
    for _ in range(rounds):
        for mix in MIXES:
            for words, count in WORDS.items():
                texts = prose.texts(words, mix, count)
                for name, work in works.items():
                    times[name, mix, words].run(work, texts)
    return times


def in_process_tables(
    works: dict[str, Work], times: dict[tuple[str, str, int], Times], memory: dict[str, int]
) -> list[str]:
    parts = []
    for mix in MIXES:
        rows = []
        for name in works:
            cells = [f"{times[name, mix, words].cpu_ms:.2f}" for words in WORDS]
            faster = [times["stock Presidio", mix, words].cpu_ms / times[name, mix, words].cpu_ms for words in WORDS]
            exponent = growth([(words, times[name, mix, words].cpu_ms) for words in WORDS])
            rates = f"{times[name, mix, 100].texts_per_core_second:.0f}"
            rows.append(
                [name, *cells, rates, " / ".join(f"{one:.1f}" for one in faster), f"{exponent:.2f}", memory[name]]
            )
        header = [
            "CPU ms a text",
            *(f"{words} words" for words in WORDS),
            "texts/s per core at 100",
            "times stock's speed",
            f"growth {list(WORDS)[-2]:,} to {list(WORDS)[-1]:,}",
            "peak MiB",
        ]
        parts += [f"### Personal data: {mix}", table(header, rows)]
    rows = []
    for name in works:
        walls = [times[name, "sparse", words].wall for words in WORDS]
        rows.append(
            [
                name,
                *(
                    f"{1000 * quantile(wall, 0.5):.1f} / {1000 * quantile(wall, 0.99):.1f} ({len(wall)})"
                    for wall in walls
                ),
            ]
        )
    return [
        *parts,
        "### Wall time, sparse: p50 / p99 in ms (number of texts)",
        table(["", *(f"{words} words" for words in WORDS)], rows),
    ]


def headline(works: dict[str, Work], times: dict[tuple[str, str, int], Times], memory: dict[str, int]) -> str:
    """For the README: the texts with some personal data."""
    rows = []
    for name in works:
        cells = [times[name, "sparse", words].cpu_ms for words in WORDS]
        faster = [
            times["stock Presidio", "sparse", words].cpu_ms / cell for words, cell in zip(WORDS, cells, strict=True)
        ]
        rows.append(
            [name, *(f"{cell:.2f} ({times_:.1f}x)" for cell, times_ in zip(cells, faster, strict=True)), memory[name]]
        )
    return table(["CPU ms a text (times stock's speed)", *(f"{words:,} words" for words in WORDS), "peak MiB"], rows)


def memory_of(name: str) -> int:
    """Peak MiB of a process that loads one system and analyses one long text."""
    ran = subprocess.run([sys.executable, __file__, "--memory", name], check=True, capture_output=True, text=True)
    return int(ran.stdout)


# --- over gRPC -------------------------------------------------------------------------------------------------------


class Calls:
    """Redact calls to a running server, at most so many at once."""

    def __init__(self, running: Server) -> None:
        self._server = running
        self._channel = grpc.aio.insecure_channel(running.target)
        self._stub = rpc.RedactionServiceStub(self._channel)

    async def redact(self, texts: tuple[str, ...]) -> None:
        segments = [pb.TextSegment(segment_id=str(i), text=text) for i, text in enumerate(texts)]
        await self._stub.Redact(pb.RedactRequest(segments=segments))

    async def measure(self, requests: list[tuple[str, ...]], clients: int) -> list[str]:
        return await measure(self._server, self.redact, requests, clients)

    async def stream(self, text: str, *, token_seconds: float) -> tuple[float, int]:
        """(seconds from the first text sent to the first received, most characters held back)."""
        first_sent = first_received = 0.0
        held = 0

        async def sent() -> AsyncIterator[pb.RedactStreamRequest]:
            nonlocal first_sent
            yield pb.RedactStreamRequest(open=pb.RedactStreamOpen())
            first_sent = time.perf_counter()
            for start in range(0, len(text), 5):
                yield pb.RedactStreamRequest(text=text[start : start + 5])
                if token_seconds:
                    await asyncio.sleep(token_seconds)
            yield pb.RedactStreamRequest(end=pb.RedactStreamEnd())

        async for message in self._stub.RedactStream(sent()):
            if message.WhichOneof("event") == "text":
                first_received = first_received or time.perf_counter()
            else:
                held = message.finished.max_held_back_characters
        return first_received - first_sent, held

    async def close(self) -> None:
        await self._channel.close()


async def over_grpc(prose: Prose, quick: bool) -> list[str]:
    with server("redaction") as running:
        calls = Calls(running)
        try:
            for _ in range(5):
                await calls.redact((prose.text(100, "sparse"),))
            parts = ["### Redact, sparse", await _concurrent(calls, prose, quick)]
            parts += ["### A 300-word system prompt with every 20-word message", await _repeated(calls, prose, quick)]
            parts += ["### RedactStream, 100 words in pieces of five characters", await _streams(calls, prose, quick)]
            parts.append(
                f"Server: {running.memory_mib():.0f} MiB (proportional set size, all its processes) after these calls."
            )
        finally:
            await calls.close()
    return parts


async def _concurrent(calls: Calls, prose: Prose, quick: bool) -> str:
    rows = []
    for words, count in {20: 300, 100: 120, 500: 40, 5000: 6}.items():
        if quick and words > LONGEST_QUICK:
            continue
        for clients in (1, 8, 32):
            requests = [(text,) for text in prose.texts(words, "sparse", max(count // (10 if quick else 1), 3))]
            rows.append([words, clients, *await calls.measure(requests, clients)])
    return table(["words", "clients", *HEADER], rows)


async def _repeated(calls: Calls, prose: Prose, quick: bool) -> str:
    count, rows = 10 if quick else 100, []
    prompt = prose.system_prompt()
    kinds = {
        "the same prompt": [(prompt, prose.text(20, "sparse")) for _ in range(count)],
        "another prompt each time": [(prose.system_prompt(), prose.text(20, "sparse")) for _ in range(count)],
        "the message alone": [(prose.text(20, "sparse"),) for _ in range(count)],
    }
    for name, requests in kinds.items():
        rows.append([name, *await calls.measure(requests, 1)])
    return table(["", *HEADER], rows)


async def _streams(calls: Calls, prose: Prose, quick: bool) -> str:
    rows = []
    for mix in MIXES:
        for name, pause in (("at once", 0.0), ("100 pieces a second", TOKEN_SECONDS)):
            measured = [
                await calls.stream(prose.text(100, mix), token_seconds=pause) for _ in range(3 if quick else 12)
            ]
            firsts, held = [first for first, _ in measured], [most for _, most in measured]
            rows.append(
                [
                    mix,
                    name,
                    f"{1000 * quantile(firsts, 0.5):.0f}",
                    f"{1000 * quantile(firsts, 0.99):.0f}",
                    f"{quantile(held, 0.5):.0f}",
                    max(held),
                ]
            )
    return table(
        [
            "personal data",
            "text comes",
            "first text after, p50 ms",
            "p99 ms",
            "most held back, median",
            "most held back",
        ],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, few requests, nothing written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--memory", help="for the command itself")
    asked = parser.parse_args()
    if asked.memory:
        _print_memory(asked.memory, Prose(asked.seed))
        return
    if asked.quick:
        del WORDS[5000]
    begun, prose = time.monotonic(), Prose(asked.seed)
    works = {name: load() for name, load in loaders().items()}
    rounds = 1 if asked.quick else asked.rounds
    times = in_process(works, prose, rounds)
    memory = {name: memory_of(name) for name in works}
    parts = [
        pages.origin(
            "make bench-filters",
            ["presidio-analyzer", "spacy", SPACY_MODEL.replace("_", "-")],
            rounds=rounds,
            seed=asked.seed,
        ),
        (__doc__ or "").split("\n\n")[-1],
        "## In process",
        *in_process_tables(works, times, memory),
        "## Over gRPC",
        *asyncio.run(over_grpc(prose, asked.quick)),
        f"Took {time.monotonic() - begun:.0f} s.",
    ]
    if asked.quick:
        print("\n\n".join(parts))
    else:
        pages.write("redaction-speed", "Redaction: speed", parts)
        pages.summarise("redaction", "redaction-speed", headline(works, times, memory))


def _print_memory(name: str, prose: Prose) -> None:
    loaders()[name]()(prose.text(500, "sparse"))
    # Not getrusage: its peak is inherited from the parent across exec.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) // 1024)


if __name__ == "__main__":
    main()
