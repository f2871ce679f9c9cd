"""Events per second into and out of Apache Kafka: Sluice's publisher and consumers beside bare aiokafka, interleaved on one broker.

    python tests/bench/events_speed.py [--events 10000] [--rounds 5]

Producer: `EventPublisher` puts every event into its durable outbox and relays it; counted until Kafka has acknowledged all of them.
The bare producer has the same settings (idempotent, acks=all, lz4, linger 10 ms) and the events as bytes already: it writes no
disk of its own, numbers nothing, and what it has not sent dies with it. Latency is what a caller waits: for the outbox here, for the broker there.
Consumer: `EventConsumer` with a handler that does nothing, and the `sluice-events` library, beside an aiokafka consumer that only parses.
The embedded broker is taken where Apache Kafka cannot run.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import sluice_events
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from events_library_speed import BOOTSTRAP, completed, program_in
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.broker import client_options, ensure_topics
from sluice_kit.consumer import ConsumedEvent, EventConsumer
from sluice_kit.events import encode, topic_of
from sluice_kit.publisher import EventPublisher
from sluice_kit.settings import MeshSettings

CALLERS = 64
TOPIC = topic_of(RequestCompleted).name
PATIENCE_SECONDS = 120


class Measured:
    """Rates, processor time of this process and latencies by name."""

    def __init__(self) -> None:
        self.rates: defaultdict[str, list[float]] = defaultdict(list)
        self.cpu_us: defaultdict[str, list[float]] = defaultdict(list)
        self.latencies: defaultdict[str, list[float]] = defaultdict(list)

    def note(self, name: str, events: int, begun: "Moment") -> None:
        """So many events were done since then."""
        self.rates[name].append(events / (time.perf_counter() - begun.wall))
        self.cpu_us[name].append(1e6 * (time.process_time() - begun.cpu) / events)


class Moment:
    """Now, by both clocks."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()


async def by_callers(events: int, publish: Callable[[int], Coroutine[Any, Any, object]]) -> list[float]:
    """Publishes by many callers at once, each waiting for its own; seconds that each waited."""
    left, waited = iter(range(events)), list[float]()

    async def caller() -> None:
        for number in left:
            begun = time.perf_counter()
            await publish(number)
            waited.append(time.perf_counter() - begun)

    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return waited


async def bare_producer(settings: MeshSettings, events: int, found: Measured) -> None:
    producer = AIOKafkaProducer(
        **client_options(settings),
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        linger_ms=10,
        max_batch_size=64 * 1024,
    )
    await producer.start()
    records = [encode(completed(number)) for number in range(events)]
    begun = Moment()
    sent = [await producer.send(r.topic, r.value, r.key, headers=r.headers) for r in records]
    await asyncio.gather(*sent)
    found.note("bare aiokafka producer", events, begun)

    async def publish(number: int) -> None:
        record = records[number]
        await producer.send_and_wait(record.topic, record.value, record.key, headers=record.headers)

    found.latencies["bare aiokafka producer"] += await by_callers(events // 4, publish)
    await producer.stop()


async def publisher(settings: MeshSettings, folder: Path, number: int, events: int, found: Measured) -> None:
    made = EventPublisher(producer=f"sluice-bench/{number}", settings=settings, outbox_path=folder / f"out-{number}.db")
    await made.start()
    begun = Moment()
    waited = await by_callers(events, lambda each: made.publish(completed(each)))
    found.note("EventPublisher, into the outbox", events, begun)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while made.depth:
            await asyncio.sleep(0.002)
    found.note("EventPublisher, into Kafka", events, begun)
    found.latencies["EventPublisher, into the outbox"] += waited
    await made.stop()


async def bare_consumer(settings: MeshSettings, group: str, events: int, found: Measured) -> None:
    consumer = AIOKafkaConsumer(TOPIC, **client_options(settings), group_id=group, auto_offset_reset="earliest")
    await consumer.start()
    seen, begun = 0, None
    async for record in consumer:
        begun = begun or Moment()
        seen += bool(RequestCompleted.FromString(record.value).usage.output_tokens)
        if seen == events:
            break
    found.note("bare aiokafka consumer, parsing", events, begun or Moment())
    await consumer.stop()


async def kit_consumer(settings: MeshSettings, group: str, events: int, found: Measured) -> None:
    stop, seen, begun = asyncio.Event(), 0, None

    async def handle(batch: Sequence[ConsumedEvent]) -> None:
        nonlocal seen, begun
        begun = begun or Moment()
        seen += len(batch)
        if seen >= events and not stop.is_set():
            found.note("EventConsumer, batches", events, begun)
            stop.set()

    consumer = EventConsumer(
        service="sluice-bench", group=group, events=[RequestCompleted], handle=handle, settings=settings
    )
    await consumer.run(stop)


async def library_consumer(group: str, events: int, found: Measured) -> None:
    seen, begun = 0, None
    following = sluice_events.consume(RequestCompleted, bootstrap=BOOTSTRAP, group=group)
    async with contextlib.aclosing(following):
        async for event in following:
            begun = begun or Moment()
            seen += bool(event.data.usage.output_tokens)
            if seen == events:
                break
    found.note("sluice-events library", events, begun or Moment())


async def measure(settings: MeshSettings, folder: Path, *, events: int, rounds: int) -> Measured:
    await ensure_topics(settings)
    # A topic that was made a moment ago has no leader for a while; which of the two waited for it would say nothing.
    await bare_producer(settings, 200, Measured())
    found = Measured()
    for number in range(rounds):
        await bare_producer(settings, events, found)
        await publisher(settings, folder, number, events, found)
        # The topic holds more than that by now: every reader takes the same first ones.
        for way in (bare_consumer, kit_consumer):
            await asyncio.wait_for(way(settings, f"{way.__name__}-{number}", events, found), PATIENCE_SECONDS)
        await asyncio.wait_for(library_consumer(f"library-{number}", events, found), PATIENCE_SECONDS)
    return found


def show(found: Measured) -> None:
    print(f"{'':34}{'events/s':>10}{'us of CPU':>11}{'wait p50 ms':>13}{'p99 ms':>9}   runs, events/s")
    for name, rates in found.rates.items():
        waited = sorted(found.latencies.get(name, []))
        p50, p99 = (f"{1000 * waited[int(len(waited) * q)]:.2f}" if waited else "" for q in (0.5, 0.99))
        runs = ", ".join(f"{rate:,.0f}" for rate in rates)
        print(
            f"{name:34}{statistics.median(rates):>10,.0f}{statistics.median(found.cpu_us[name]):>11,.0f}{p50:>13}{p99:>9}   {runs}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        name, program = program_in(Path(folder))
        quiet = subprocess.DEVNULL
        broker = subprocess.Popen(program.command, stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            settings = MeshSettings(
                home=Path(folder), kafka_bootstrap=BOOTSTRAP, kafka_embedded=name.startswith("embedded")
            )
            print(
                f"{name}; load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; {given.rounds} interleaved rounds of {given.events:,} events"
            )
            show(asyncio.run(measure(settings, Path(folder), events=given.events, rounds=given.rounds)))
            print(f"load at the end {os.getloadavg()[0]:.1f}")
        finally:
            os.killpg(broker.pid, signal.SIGKILL)
            broker.wait(timeout=10)


if __name__ == "__main__":
    main()
