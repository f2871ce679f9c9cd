"""Real worker processes on a real broker: killed in the middle, they count and measure what a batch computation does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from google.protobuf.message import Message
from sluice.events.v1.fairness_pb2 import FairnessCounted, FairnessMeasured
from sluice.events.v1.feedback_pb2 import ReviewResolved
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.types.v1 import verdict_pb2
from sluice_fairness.adapters.events import fact_of
from sluice_fairness.adapters.published import counted, measured
from sluice_fairness.domain.board import Board
from sluice_fairness.domain.measuring import Judging, measure
from sluice_fairness.domain.partition import Part, Partition, Rules
from sluice_fairness.settings import FairnessSettings
from sluice_kit import broker
from sluice_kit.events import decode, encode, topic_of

# The program itself: its Python wrapper would be stopped and leave it running.
_FOUND = find_spec("noida_db")
NOIDA = Path(_FOUND.origin or "").with_name("noida-db") if _FOUND else Path("noida-db is not installed")
pytestmark = pytest.mark.skipif(not NOIDA.exists(), reason="the embedded broker (noida-db) is not installed")

SECOND = 1_000_000
BASE = (int(time.time()) // 3600 - 2) * 3600 * SECOND
"""A full hour that has ended: at the end all topics are silent, and the wall's time closes the windows."""
REQUESTS = 1200
SOURCES = (RequestCompleted, ContentModerated, ReviewResolved)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def process(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    with log.open("ab") as output:
        running = subprocess.Popen(arguments, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGINT)
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(5)


@pytest.fixture()
def kafka(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [str(NOIDA), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(tmp_path / "kafka")]
    with process(command, {}, tmp_path / "kafka.log"):
        yield f"127.0.0.1:{port}"


def events() -> list[Message]:
    """Shuffled traffic of three minutes: verdicts before and after their completion, reviews, duplicates of everything."""
    rng = random.Random(11)
    found: list[tuple[int, Message]] = []
    for number in range(REQUESTS):
        at = BASE + rng.randrange(180) * SECOND
        blocked = rng.random() < (0.4 if number % 4 == 1 else 0.1)
        found.append((number + rng.randrange(-50, 50), completion(rng, number, at, blocked)))
        found.append((number, verdict(rng, number, at, blocked)))
        if number % 10 == 0:
            found.append((number + rng.randrange(-200, 200), review(number, at)))
    ordered = [event for _, event in sorted(found, key=lambda pair: pair[0])]
    return ordered + ordered[-100:]  # an outbox that lost its acknowledgement sends events again


def completion(rng: random.Random, number: int, at: int, blocked: bool) -> RequestCompleted:
    outcome = RequestOutcome.REQUEST_OUTCOME_BLOCKED_INPUT if blocked else RequestOutcome.REQUEST_OUTCOME_COMPLETED
    event = RequestCompleted(outcome=outcome, model="small", output_characters=rng.randrange(2000))
    event.decision_ids.append(f"decision-{number}")
    event.refusal = rng.random() < 0.1
    return fill(event, number, at + rng.randrange(3 * SECOND))


def verdict(rng: random.Random, number: int, at: int, blocked: bool) -> ContentModerated:
    event = ContentModerated(direction=verdict_pb2.DIRECTION_INPUT)
    event.identity_groups.extend([[], ["religion"], [], ["age", "gender"]][number % 4])
    event.verdict.action = verdict_pb2.ACTION_BLOCK if blocked else verdict_pb2.ACTION_ALLOW
    event.verdict.decision_id = f"decision-{number}"
    event.verdict.policy_id, event.verdict.policy_version = "general", 3
    event.verdict.scores.add(category="toxicity", score=rng.random())
    return fill(event, number, at)


def review(number: int, at: int) -> ReviewResolved:
    outcome = ("upheld", "overturned", "unsure")[number % 3]
    event = ReviewResolved(review_id=f"review-{number}", decision_id=f"decision-{number}", outcome=outcome)
    return fill(event, number, at + 20 * SECOND)


def fill(event: Any, number: int, at: int) -> Any:
    metadata = event.metadata
    metadata.event_id = f"{type(event).__name__}-{number}"
    metadata.request_id = f"request-{number}"
    metadata.tenant_id = f"tenant-{number % 2}" if number % 4 == 3 else "tenant-0"
    metadata.occurred_at.FromMicroseconds(at)
    return event


async def send(kafka: str, messages: list[Message]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        for event in messages:
            record = encode(event)
            await producer.send(record.topic, record.value, key=record.key, headers=record.headers)
        await producer.flush()


@contextlib.asynccontextmanager
async def reading(kafka: str, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
    async with AIOKafkaConsumer(*topics, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        yield consumer


class Published:
    """What the worker told: the newest version of every part and of every measurement."""

    def __init__(self) -> None:
        self.parts: dict[str, FairnessCounted] = {}
        self.measurements: dict[str, FairnessMeasured] = {}

    async def read(self, consumer: AIOKafkaConsumer) -> None:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            for record in records:
                event = decode(record.topic, record.value, record.headers)
                if isinstance(event, FairnessCounted):
                    self._part(event)
                elif isinstance(event, FairnessMeasured):
                    known = self.measurements.get(identity(event))
                    if known is None or known.revision <= event.revision:
                        self.measurements[identity(event)] = event

    def _part(self, event: FairnessCounted) -> None:
        known = self.parts.get(event.part.part_key)
        if known is not None and known.part.revision == event.part.revision:
            # The same revision is the same content, also when another process published it.
            assert content(known) == content(event)
        if known is None or (known.part.revision, known.part.closed) <= (event.part.revision, event.part.closed):
            self.parts[event.part.part_key] = event

    @property
    def counted(self) -> dict[str, tuple]:
        return {key: content(part) for key, part in self.parts.items()}

    @property
    def told(self) -> dict[str, bytes]:
        return {key: bare(event) for key, event in self.measurements.items()}


def identity(event: FairnessMeasured) -> str:
    start, length = event.window.start.ToSeconds(), event.window.length.ToSeconds()
    series = event.series
    names = (series.tenant_id, series.model, event.policy, event.metric, event.attribute, event.group)
    return "|".join([*names, str(start), str(length)])


def content(event: FairnessCounted) -> tuple:
    return event.part.revision, *[group.SerializeToString(deterministic=True) for group in event.groups]


def bare(event: FairnessMeasured) -> bytes:
    copied = FairnessMeasured()
    copied.CopyFrom(event)
    copied.ClearField("metadata")
    return copied.SerializeToString(deterministic=True)


async def batch_computation(kafka: str) -> tuple[dict[str, tuple], dict[str, bytes]]:
    """The same facts from the same topics, in one go, by the domain alone: parts, and measurements of closed windows."""
    facts: dict[tuple[int, str], list] = {}
    async with reading(kafka, *[topic_of(event).name for event in SOURCES]) as consumer:
        while batches := await consumer.getmany(timeout_ms=1500):
            for where, records in batches.items():
                for record in records:
                    message = decode(record.topic, record.value, record.headers)
                    fact = fact_of(message, owner=where.partition, record_time=record.timestamp * 1000)
                    if fact is not None:
                        facts.setdefault((where.partition, where.topic), []).append(fact)
    parts = []
    for number in {partition for partition, _ in facts}:
        partition = Partition(number, Rules(retention=10**15), now=0)
        for (owner, topic), found in facts.items():
            if owner == number:
                partition.absorb(topic, found, now=0)
        parts += [counted(Part(state, state.revision, True, 0)) for state in partition.windows]
    return {part.part.part_key: content(part) for part in parts}, measurements_of(parts)


def measurements_of(parts: list[FairnessCounted]) -> dict[str, bytes]:
    tallies = [fact_of(part, owner=0, record_time=0) for part in parts]
    board = Board(longest=3600 * SECOND, tallies=tallies, forgotten_before=0)  # type: ignore[arg-type]
    told = {}
    for frame in board.due(2**62):
        for each in measure(frame, Judging()):
            event = measured(each, frame, Judging())
            told[identity(event)] = bare(event)
    return told


async def page(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def wait_for_health(port: int, deadline: float) -> None:
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if b" 200 " in (await page(port, "/healthz")).splitlines()[0]:
                return
        await asyncio.sleep(0.1)
    raise TimeoutError("the worker did not become ready")


@pytest.mark.parametrize("runner", ["faust", "plain"])
async def test_a_worker_killed_in_the_middle_counts_and_measures_what_a_batch_computation_does(
    kafka: str, tmp_path: Path, runner: str
) -> None:
    port = free_port()
    environment = {
        "SLUICE_STREAMS_RUNNER": runner,
        "SLUICE_HOME": str(tmp_path),
        "SLUICE_KAFKA_BOOTSTRAP": kafka,
        "SLUICE_KAFKA_EMBEDDED": "true",
        "SLUICE_FAIRNESS_WEB_LISTEN": f"127.0.0.1:{port}",
        "SLUICE_FAIRNESS_RETENTION_SECONDS": "86400",
        "SLUICE_FAIRNESS_IDLE_SECONDS": "3",
    }
    configured = FairnessSettings(SLUICE_KAFKA_BOOTSTRAP=kafka, SLUICE_KAFKA_EMBEDDED=True)  # type: ignore[call-arg]
    await broker.ensure_topics(configured)
    command = [sys.executable, "-c", "from sluice_fairness.main import main; main()"]
    messages = events()
    log = tmp_path / "fairness.log"
    published = Published()
    async with reading(kafka, topic_of(FairnessCounted).name, topic_of(FairnessMeasured).name) as consumer:
        with process(command, environment, log) as first:
            await wait_for_health(port, time.monotonic() + 30)
            third = len(messages) // 3
            await send(kafka, messages[:third])
            sending = asyncio.create_task(send(kafka, messages[third : 2 * third]))
            # Killed while it works: some batches are stored, some not, some stored and not committed.
            while sum(part.part.revision for part in published.parts.values()) < 300:
                await published.read(consumer)
            first.send_signal(signal.SIGKILL)
            await sending
            first.wait(5)
            await send(kafka, messages[2 * third :])  # a fast runner may have merged all that was sent before
        with process(command, environment, log):
            await wait_for_health(port, time.monotonic() + 30)
            parts, measurements = await batch_computation(kafka)
            deadline = time.monotonic() + 150
            while (published.counted, published.told) != (parts, measurements) and time.monotonic() < deadline:
                await published.read(consumer)
            assert b"sluice_fairness_facts_total" in await page(port, "/metrics")
    assert published.counted == parts, log.read_text()[-3000:]
    assert published.told == measurements, log.read_text()[-3000:]
    judged = [(group.group, group.judged) for part in published.parts.values() for group in part.groups]
    assert sum(n for group, n in judged if group == "religion") == REQUESTS // 4
    assert sum(n for group, n in judged if group == "none") == REQUESTS // 2
    hours = [event for event in published.measurements.values() if event.window.length.seconds == 3600]
    assert {e.verdict for e in hours if (e.metric, e.group) == ("selection_rate", "religion")} == {3}, "blocked more"
