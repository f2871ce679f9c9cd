"""How fast `sluice-events` hands over events beside a bare aiokafka consumer that only parses them, interleaved on one Apache Kafka.

python tests/bench/events_library_speed.py [--events 50000] [--rounds 3]; the embedded broker is taken where Apache cannot run.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import sluice_events
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_cli.mesh import apache, embedded
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.plan import Program
from sluice_events.wire import encode
from sluice_kit.broker import ensure_topics
from sluice_kit.settings import MeshSettings

PORT = 49_100 + os.getpid() % 900 * 2
BOOTSTRAP = f"127.0.0.1:{PORT}"


def completed(number: int) -> RequestCompleted:
    event = RequestCompleted(model="small", route="small/primary", status_code=0, input_characters=400)
    event.metadata.event_id = event.metadata.request_id = f"01990b2c-7d1e-7c3a-9f00-{number:012d}"
    event.metadata.producer, event.metadata.tenant_id = "sluice-gateway/0#bench", "acme"
    event.usage.uncached_input_tokens, event.usage.output_tokens = 120, 40
    return event


async def fill(count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, acks=1, linger_ms=20, compression_type="lz4")
    await producer.start()
    sent = []
    for number in range(count):
        record = encode(completed(number))
        sent.append(await producer.send(record.topic, record.value, record.key, headers=record.headers))
    await asyncio.gather(*sent)
    await producer.stop()


async def by_hand(count: int, group: str) -> float:
    consumer = AIOKafkaConsumer(
        encode(completed(0)).topic, bootstrap_servers=BOOTSTRAP, group_id=group, auto_offset_reset="earliest"
    )
    await consumer.start()
    seen, begun = 0, 0.0
    async for record in consumer:
        begun = begun or time.perf_counter()
        seen += bool(RequestCompleted.FromString(record.value).usage.output_tokens)
        if seen == count:
            break
    took = time.perf_counter() - begun
    await consumer.stop()
    return count / took


async def by_library(count: int, group: str) -> float:
    seen, begun = 0, 0.0
    events = sluice_events.consume(RequestCompleted, bootstrap=BOOTSTRAP, group=group)
    async with contextlib.aclosing(events):
        async for event in events:
            begun = begun or time.perf_counter()
            seen += bool(event.data.usage.output_tokens)
            if seen == count:
                return count / (time.perf_counter() - begun)
    raise AssertionError("unreachable: the loop follows")


async def measure(settings: MeshSettings, *, events: int, rounds: int) -> None:
    await ensure_topics(settings)
    await fill(events)
    rates: dict[str, list[float]] = {"bare aiokafka, parsing only": [], "sluice-events": []}
    for number in range(rounds):
        rates["bare aiokafka, parsing only"].append(await by_hand(events, f"bare-{number}"))
        rates["sluice-events"].append(await by_library(events, f"library-{number}"))
    for name, found in rates.items():
        print(f"{name:30} {statistics.median(found):>10,.0f} events/s   ({', '.join(f'{r:,.0f}' for r in found)})")


def program_in(home: Path) -> tuple[str, Program]:
    try:
        return f"Apache Kafka {apache.VERSION}", apache.program(Home(home), PORT, apache.resolve(print))
    except apache.CannotRun as reason:
        return f"embedded broker ({reason})", embedded.program(Home(home), PORT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name, program = program_in(Path(folder))
        quiet = subprocess.DEVNULL
        broker = subprocess.Popen(program.command, stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            settings = MeshSettings(
                home=Path(folder), kafka_bootstrap=BOOTSTRAP, kafka_embedded=name.startswith("embedded")
            )
            print(f"{name}, {given.events:,} events, load {os.getloadavg()[0]:.1f}")
            asyncio.run(measure(settings, events=given.events, rounds=given.rounds))
        finally:
            os.killpg(broker.pid, signal.SIGKILL)
            broker.wait(timeout=10)


if __name__ == "__main__":
    main()
