"""What the benches of the stream processors share: a broker, a filled topic, workers as processes, and what they took."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaProducer
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice_cli.mesh import apache, embedded
from sluice_cli.mesh.home import Home
from sluice_kit import broker
from sluice_kit.events import encode, topic_of
from sluice_quality.settings import QualitySettings

TOPIC = topic_of(RequestCompleted).name
QUALITY = "from sluice_quality.main import main; main()"
FACTS = "sluice_quality_facts_total"
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
    """A port that is free together with the next one, which Apache Kafka's controller takes."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.1", port + 1))
                return port


@contextlib.contextmanager
def process(
    arguments: list[str], environment: dict[str, str], *, last: int = signal.SIGINT
) -> Iterator[subprocess.Popen]:
    """Ends with the signal `last`."""
    running = subprocess.Popen(arguments, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield running
    finally:
        running.send_signal(last)
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()


@dataclass(frozen=True)
class Kafka:
    """A broker that runs."""

    name: str
    bootstrap: str
    embedded: bool

    def environment(self, home: str, group: str) -> dict[str, str]:
        """What a worker needs to know."""
        return {
            "SLUICE_HOME": home,
            "BENCH_TOPIC": TOPIC,
            "SLUICE_KAFKA_BOOTSTRAP": self.bootstrap,
            "SLUICE_KAFKA_EMBEDDED": str(self.embedded).lower(),
            "SLUICE_QUALITY_GROUP": group,
            "SLUICE_QUALITY_RETENTION_SECONDS": "86400",
            "SLUICE_LOG_LEVEL": "WARNING",
        }

    def make_topics(self) -> None:
        """Those of the mesh."""
        values = {"SLUICE_KAFKA_BOOTSTRAP": self.bootstrap, "SLUICE_KAFKA_EMBEDDED": self.embedded}
        asyncio.run(broker.ensure_topics(QualitySettings(**values)))  # type: ignore[arg-type]


@contextlib.contextmanager
def kafka() -> Iterator[Kafka]:
    """Apache Kafka with its data in a temporary folder; the embedded broker where it cannot run, whose absolute numbers say
    little (it has no long poll)."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        try:
            program = apache.program(Home(Path(folder)), port, apache.resolve(print))
            found = Kafka(f"Apache Kafka {apache.VERSION}", f"127.0.0.1:{port}", embedded=False)
        except apache.CannotRun as reason:
            program = embedded.program(Home(Path(folder)), port)
            found = Kafka(f"embedded broker ({reason})", f"127.0.0.1:{port}", embedded=True)
        with process(list(program.command), {}, last=signal.SIGKILL):
            found.make_topics()
            yield found


def completions(count: int, *, series: int = 96) -> Iterator[RequestCompleted]:
    """Of so many series by turns, in five minutes of event time that end now."""
    rng, base = random.Random(1), int(time.time() * 1e6) - 300_000_000
    for number in range(count):
        event = RequestCompleted(
            outcome=RequestOutcome.REQUEST_OUTCOME_COMPLETED, output_characters=rng.randrange(2000)
        )
        event.metadata.event_id = event.metadata.request_id = f"{rng.getrandbits(128):032x}"
        event.metadata.tenant_id = f"tenant-{number % series % 12}"
        event.model = f"model-{number % series // 12}"
        event.metadata.occurred_at.FromMicroseconds(base + number * 300_000_000 // count)
        event.usage.output_tokens = rng.randrange(1, 300)
        event.latency.FromMicroseconds(rng.randrange(1, 5_000_000))
        event.time_to_first_token.FromMicroseconds(rng.randrange(1, 900_000))
        event.generation_time.FromMicroseconds(rng.randrange(1, 4_000_000))
        yield event


async def fill(bootstrap: str, events: Iterator[RequestCompleted], *, by_series: str = "") -> None:
    """Put events on their topic; with `by_series` also on a topic of that name, keyed by series instead of request.

    Raises KafkaError when one of them is not acknowledged: a worker would be waited for in vain.
    """
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type="lz4",
        linger_ms=20,
        enable_idempotence=True,
        request_timeout_ms=120_000,  # topics that were just made have no leader for seconds on a busy machine
    ) as producer:
        sent = []
        for event in events:
            record = encode(event)
            sent.append(await producer.send(record.topic, record.value, key=record.key, headers=record.headers))
            if by_series:
                key = f"{event.metadata.tenant_id}|{event.model}".encode()
                sent.append(await producer.send(by_series, record.value, key=key, headers=record.headers))
            if len(sent) >= 10_000:
                await asyncio.gather(*sent)
                sent.clear()
        await asyncio.gather(*sent)


def counted(port: int, metric: str) -> float:
    """Sum of a counter over its labels; 0 while the worker starts."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric))
    return 0.0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, line: str) -> int:
    """`VmHWM`, the peak, or `VmRSS`, now."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(each.split()[1]) for each in status.splitlines() if each.startswith(line)) // 1024


@dataclass(frozen=True)
class Measurement:
    """One run of one worker."""

    rate: float
    """Events a second of wall time: what it did beside whatever else ran on the machine."""
    cpu_rate: float
    """Events a second of the worker's own CPU time: comparable on a busy machine."""
    peak_mib: int


@contextlib.contextmanager
def worker(program: str, environment: dict[str, str], runner: str = "faust") -> Iterator[tuple[subprocess.Popen, int]]:
    """A worker, and the port of its pages."""
    port = free_port()
    added = {"SLUICE_QUALITY_WEB_LISTEN": f"127.0.0.1:{port}", "SLUICE_STREAMS_RUNNER": runner}
    with process([sys.executable, "-c", program], environment | added) as running:
        yield running, port


def wait_until(port: int, metric: str, events: float, *, seconds: float = 180) -> float:
    """Until the counter says so many; what it says then. TimeoutError when it takes too long."""
    deadline = time.monotonic() + seconds
    while (seen := counted(port, metric)) < events:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{metric} is {seen:,.0f} after {seconds:.0f} s, not {events:,.0f}")
        time.sleep(
            0.1
        )  # every look costs the worker three milliseconds: at 0.02 s they were a tenth of what was measured
    return seen


def measure(program: str, metric: str, environment: dict[str, str], events: int, runner: str = "faust") -> Measurement:
    """From the first event seen to the last."""
    with worker(program, environment, runner) as (running, port):
        already = wait_until(port, metric, 1)
        began, cpu = time.monotonic(), cpu_seconds(running.pid)
        seen = wait_until(port, metric, events)
        took, used = time.monotonic() - began, cpu_seconds(running.pid) - cpu
        if seen == already:
            raise RuntimeError(f"all {events:,} events came at once: give more")
        return Measurement((seen - already) / took, (seen - already) / used, memory_mib(running.pid, "VmHWM"))
