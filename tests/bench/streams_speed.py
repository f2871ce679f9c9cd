"""Events per second of the quality worker beside a Faust agent that does nothing, in one run on one broker.

    .venv/bin/python tests/bench/streams_speed.py [--events 40000] [--rounds 3] [--bootstrap HOST:PORT]

Without --bootstrap it starts the embedded broker, whose absolute numbers say little (it has no long poll); the ratio of
the two workers, measured alternately on the same topic, is what counts. Prints medians and resident memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from aiokafka import AIOKafkaProducer
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice_kit import broker
from sluice_kit.events import encode, topic_of
from sluice_quality.adapters.events import fact_of
from sluice_quality.domain.partition import Partition, Rules
from sluice_quality.settings import QualitySettings

SERIES = 96
TOPIC = topic_of(RequestCompleted).name
QUALITY = "from sluice_quality.main import main; main()"
NOOP = """
import os
import faust
from prometheus_client import Counter
from sluice_kit import broker, settings
from sluice_kit.streams.worker import add_pages, create_app, run
from sluice_quality.settings import QualitySettings
configured = settings.load(QualitySettings)
broker.install_empty_fetch_guard(configured)
app = create_app(configured.worker_options())
done = Counter("noop_events", "Events seen.")
@app.agent(app.topic(os.environ["BENCH_TOPIC"], key_serializer="raw", value_serializer="raw", value_type=bytes))
async def nothing(stream):
    async for _ in stream:
        done.inc()
add_pages(app, is_ready=lambda: True)
run(app)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def process(arguments: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    running = subprocess.Popen(arguments, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()


def completion(rng: random.Random, number: int, base: int) -> RequestCompleted:
    """One of SERIES series, spread over five minutes."""
    event = RequestCompleted(outcome=RequestOutcome.REQUEST_OUTCOME_COMPLETED, output_characters=rng.randrange(2000))
    event.metadata.event_id = event.metadata.request_id = f"{rng.getrandbits(128):032x}"
    event.metadata.tenant_id = f"tenant-{number % 12}"
    event.model = f"model-{number // 12 % (SERIES // 12)}"
    event.metadata.occurred_at.FromMicroseconds(base + number * 300_000_000 // 100_000)
    event.usage.output_tokens = rng.randrange(1, 300)
    event.latency.FromMicroseconds(rng.randrange(1, 5_000_000))
    event.time_to_first_token.FromMicroseconds(rng.randrange(1, 900_000))
    event.generation_time.FromMicroseconds(rng.randrange(1, 4_000_000))
    return event


async def fill(bootstrap: str, events: list[RequestCompleted]) -> None:
    """Put the events on the topic."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type="lz4", linger_ms=20) as producer:
        for event in events:
            record = encode(event)
            await producer.send(record.topic, record.value, key=record.key, headers=record.headers)
        await producer.flush()


def counted(port: int, metric: str) -> float:
    """Sum of a counter over its labels; 0 while the worker starts."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric))
    return 0.0


@dataclass(frozen=True)
class Measurement:
    """One run of one worker."""

    rate: float
    """Events a second of wall time: what it did beside whatever else ran on the machine."""
    cpu_rate: float
    """Events a second of the worker's own CPU time: comparable on a busy machine."""
    peak_mib: int


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(program: str, metric: str, environment: dict[str, str], events: int) -> Measurement:
    """From the first event seen to the last."""
    port = free_port()
    with process(
        [sys.executable, "-c", program], environment | {"SLUICE_QUALITY_WEB_LISTEN": f"127.0.0.1:{port}"}
    ) as worker:
        first: tuple[float, float, float] | None = None
        seen = 0.0
        deadline = time.monotonic() + 180
        while seen < events and time.monotonic() < deadline:
            time.sleep(0.05)
            seen = counted(port, metric)
            if seen and first is None:
                first = (time.monotonic(), cpu_seconds(worker.pid), seen)
        assert first is not None, "the worker never began"
        status = Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii")
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        began, cpu, already = first
        return Measurement(
            rate=(seen - already) / (time.monotonic() - began),
            cpu_rate=(seen - already) / (cpu_seconds(worker.pid) - cpu),
            peak_mib=peak // 1024,
        )


def domain_alone(events: list[RequestCompleted]) -> float:
    """The same aggregation without Faust, Kafka or table: parse, merge, in batches of 2,000."""
    encoded = [event.SerializeToString() for event in events]
    partition = Partition(0, Rules(retention=10**15), now=0)
    began = time.process_time()
    for start in range(0, len(encoded), 2000):
        batch = encoded[start : start + 2000]
        facts = [
            fact_of(RequestCompleted.FromString(value), offset=start + position, record_time=2**60)
            for position, value in enumerate(batch)
        ]
        partition.absorb(TOPIC, [fact for fact in facts if fact], now=0)
    return len(encoded) / (time.process_time() - began)


def run(bootstrap: str, embedded: bool, arguments: argparse.Namespace) -> None:
    """Fill the topic once, then let the two workers read it by turns, each time as a new group."""
    rng = random.Random(1)
    base = int(time.time() * 1e6) - 300_000_000
    events = [completion(rng, number, base) for number in range(arguments.events)]
    settings = QualitySettings(SLUICE_KAFKA_BOOTSTRAP=bootstrap, SLUICE_KAFKA_EMBEDDED=embedded)  # type: ignore[call-arg]
    asyncio.run(broker.ensure_topics(settings))
    asyncio.run(fill(bootstrap, events))
    results: dict[str, list[Measurement]] = {"no-op": [], "quality": []}
    for round_ in range(arguments.rounds):
        for name, program, metric in (
            ("no-op", NOOP, "noop_events_total"),
            ("quality", QUALITY, "sluice_quality_facts_total"),
        ):
            with tempfile.TemporaryDirectory() as home:
                environment = {
                    "SLUICE_HOME": home,
                    "BENCH_TOPIC": TOPIC,
                    "SLUICE_KAFKA_BOOTSTRAP": bootstrap,
                    "SLUICE_KAFKA_EMBEDDED": str(embedded).lower(),
                    "SLUICE_QUALITY_GROUP": f"bench-{name}-{os.getpid()}-{round_}",
                }
                results[name].append(measure(program, metric, environment, arguments.events))
    report(results)
    print(f"{'domain':10} {domain_alone(events):10,.0f} events per CPU second   parse and merge, without Faust")


def report(results: dict[str, list[Measurement]]) -> None:
    """Medians, and the ratio of the two workers."""
    medians = {}
    for name, found in results.items():
        rate, cpu_rate = statistics.median(m.rate for m in found), statistics.median(m.cpu_rate for m in found)
        medians[name] = (rate, cpu_rate)
        peak = max(m.peak_mib for m in found)
        print(f"{name:10} {rate:10,.0f} events/s {cpu_rate:10,.0f} events per CPU second   peak {peak} MiB")
    wall, cpu = (medians["quality"][index] / medians["no-op"][index] for index in (0, 1))
    print(f"{'ratio':10} {wall:10.2f} by wall time, {cpu:.2f} by CPU time   (quality / no-op)")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bootstrap", default="")
    arguments = parser.parse_args()
    if arguments.bootstrap:
        run(arguments.bootstrap, False, arguments)
        return
    with tempfile.TemporaryDirectory() as data:
        port = free_port()
        noida = str(files("noida_db") / "noida-db")
        with process([noida, "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", data], {}):
            run(f"127.0.0.1:{port}", True, arguments)


if __name__ == "__main__":
    main()
