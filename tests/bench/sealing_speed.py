"""What encryption adds to a captured event: microseconds of this process, with warm and with new keys, and bytes.

    .venv/bin/python tests/bench/sealing_speed.py [--events 2000] [--runs 5]

An event has a prompt and an answer. `warm`: the subject was seen in the last half minute. `new subject`: the key store makes
and wraps a key (a commit to disk). `known subject`: the key is there and wraps a new data key. Variants are interleaved; the
median of the runs is told, as wall time and as processor time of this process, which a busy machine changes less.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.sealing.file_keys import FileKeyStore
from sluice_kit.sealing.text import Place, TextReader, TextSealer

FIELDS = ("encrypted_prompt", "encrypted_answer")


def make_event(number: int) -> RequestCompleted:
    event = RequestCompleted(model="sluice-small", route="sluice-small/smollm2-135m-instruct")
    event.metadata.event_id = f"0190-{number:020d}"
    event.metadata.tenant_id = "acme"
    return event


async def seal(sealer: TextSealer, text: str, owner: str, number: int) -> RequestCompleted:
    event = make_event(number)
    for field in FIELDS:
        getattr(event, field).CopyFrom(await sealer.seal(text, owners=[owner], place=Place.in_event(event, field)))
    return event


def timed(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Microseconds one of `count` takes: wall, processor."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) / count * 1e6, (time.process_time() - processor) / count * 1e6


def variants(folder: Path, text: str, events: int) -> dict[str, tuple[float, float]]:
    store = FileKeyStore(folder)
    warm = TextSealer(lambda: store, keep_seconds=3600)
    few = max(20, events // 50)
    run = uuid.uuid4().hex

    async def clear() -> None:
        for number in range(events):
            event = make_event(number)
            event.redacted_prompt = event.redacted_answer = text

    async def sealed(sealer: TextSealer, count: int, owner: Callable[[int], str]) -> list[RequestCompleted]:
        return [await seal(sealer, text, owner(number), number) for number in range(count)]

    asyncio.run(sealed(warm, 1, lambda _: "sub_warm"))
    found = {
        "in clear": timed(lambda: asyncio.run(clear()), events),
        "warm": timed(lambda: asyncio.run(sealed(warm, events, lambda _: "sub_warm")), events),
        "new subject": timed(lambda: asyncio.run(sealed(warm, few, lambda n: f"sub_{run}_{n}")), few),
    }
    fresh = TextSealer(lambda: store)
    found["known subject"] = timed(lambda: asyncio.run(sealed(fresh, few, lambda n: f"sub_{run}_{n}")), few)
    reader, event = TextReader(lambda: store), asyncio.run(seal(warm, text, "sub_warm", 1))

    def read() -> None:
        for _ in range(events):
            for field in FIELDS:
                reader.open(getattr(event, field), Place.in_event(event, field))

    found["read, warm"] = timed(read, events)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for characters in (200, 2_000, 32_000):
            text = ("A quokka sits under the umbrella. " * 1000)[:characters]
            runs = [variants(Path(folder) / "keys", text, arguments.events) for _ in range(arguments.runs)]
            store = FileKeyStore(Path(folder) / "keys")
            event = asyncio.run(seal(TextSealer(lambda store=store: store), text, "sub_" + "0" * 32, 1))
            added = event.ByteSize() - make_event(1).ByteSize() - 2 * characters
            print(f"2 x {characters} characters, {added} bytes added an event")
            for name in runs[0]:
                wall, processor = (statistics.median(run[name][i] for run in runs) for i in (0, 1))
                print(f"  {name:14} {wall:9.1f} us wall {processor:9.1f} us CPU an event")


if __name__ == "__main__":
    main()
