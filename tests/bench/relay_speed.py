"""How fast a full outbox drains to Kafka, beside a bare aiokafka producer with the same settings in the same run.

    python tests/bench/relay_speed.py HOST:PORT [--events N] [--rounds N]

Start a broker first (`make run`, or `sluice mesh up`); it writes to the topic of RequestCompleted, so use a mesh of its own.
Events are appended before the clock starts; it stops when the broker has acknowledged the last one.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from aiokafka import AIOKafkaProducer
from outbox_speed import event
from sluice_kit.broker import client_options, ensure_topics
from sluice_kit.events import encode
from sluice_kit.publisher import EventPublisher
from sluice_kit.settings import MeshSettings


async def relayed(settings: MeshSettings, events: int) -> float:
    """Events a second from the outbox to the broker's acknowledgement."""
    publisher = EventPublisher(producer="bench/0", settings=settings)
    for _ in range(events // 500):
        await publisher.publish(*(event() for _ in range(500)))
    begun = time.perf_counter()
    await publisher.start()
    while publisher.depth:
        await asyncio.sleep(0.005)
    seconds = time.perf_counter() - begun
    await publisher.stop()
    return events / seconds


async def bare(settings: MeshSettings, events: int) -> float:
    """Events a second of the client alone, encoded before the clock starts."""
    records = [encode(event()) for _ in range(events)]
    producer = AIOKafkaProducer(
        **client_options(settings),
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        linger_ms=10,
        max_batch_size=64 * 1024,
    )
    begun = time.perf_counter()
    await producer.start()
    for start in range(0, events, 1000):
        sends = [
            await producer.send(r.topic, key=r.key, value=r.value, headers=r.headers)
            for r in records[start : start + 1000]
        ]
        await asyncio.gather(*sends)
    seconds = time.perf_counter() - begun
    await producer.stop()
    return events / seconds


async def measure(bootstrap: str, events: int, rounds: int) -> None:
    """Both in turn, then the medians."""
    found: dict[str, list[float]] = {"outbox and relay": [], "bare aiokafka": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            settings = MeshSettings(home=Path(folder), kafka_bootstrap=bootstrap)
            await ensure_topics(settings)
            found["outbox and relay"].append(await relayed(settings, events))
            found["bare aiokafka"].append(await bare(settings, events))
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {rounds} rounds of {events} events")
    for name, rates in found.items():
        print(f"{name:20}{statistics.median(rates):10,.0f} events/s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bootstrap")
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    asyncio.run(measure(given.bootstrap, given.events, given.rounds))


if __name__ == "__main__":
    main()
