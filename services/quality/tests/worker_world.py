"""What the tests of worker processes share: workers, the traffic they are given, and what a batch computation counts of it."""

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
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from google.protobuf.message import Message
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.types.v1 import feedback_pb2, verdict_pb2
from sluice_kit.events import decode, encode, topic_of
from sluice_quality.adapters.events import fact_of, measured
from sluice_quality.domain.partition import Part, Partition, Rules

SECOND = 1_000_000
BASE = 1_760_000_040 * SECOND
COMPLETIONS = 3000
PATIENCE = 90
"""Seconds that a busy machine may take for what takes a quiet one a few."""


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


def events() -> list[Message]:
    """A shuffled traffic of six minutes: completions, verdicts, feedback before and after its completion, duplicates."""
    rng = random.Random(11)
    found: list[tuple[int, Message]] = []
    for number in range(COMPLETIONS):
        at = BASE + rng.randrange(360) * SECOND
        request = f"request-{number}"
        found.append((number, completion(rng, request, at)))
        if number % 3 == 0:
            found.append((number, verdict(rng, request, at)))
        if number % 10 == 0:
            found.append((number + rng.randrange(-200, 200), thumb(rng, request, at)))
    ordered = [event for _, event in sorted(found, key=lambda pair: pair[0])]
    # An outbox that lost its acknowledgement sends events again. (Verdicts are known again only while the worker lives.)
    return ordered + [event for event in ordered[-100:] if not isinstance(event, ContentModerated)]


def completion(rng: random.Random, request: str, at: int) -> RequestCompleted:
    event = RequestCompleted(
        outcome=rng.choice([RequestOutcome.REQUEST_OUTCOME_COMPLETED, RequestOutcome.REQUEST_OUTCOME_FAILED]),
        model=rng.choice(["small", "large"]),
        output_characters=rng.randrange(2000),
    )
    fill(event, request, at, tenant=f"tenant-{int(request.split('-')[1]) % 3}")
    event.usage.output_tokens = rng.randrange(1, 300)
    event.latency.FromMicroseconds(rng.randrange(1, 5 * SECOND))
    event.generation_time.FromMicroseconds(rng.randrange(1, 4 * SECOND))
    return event


def verdict(rng: random.Random, request: str, at: int) -> ContentModerated:
    event = ContentModerated(direction=verdict_pb2.DIRECTION_INPUT)
    event.verdict.action = rng.choice([verdict_pb2.ACTION_ALLOW, verdict_pb2.ACTION_BLOCK])
    fill(event, request, at, tenant="tenant-0")
    return event


def thumb(rng: random.Random, request: str, at: int) -> FeedbackReceived:
    event = FeedbackReceived(feedback_id=request, thumb=rng.choice([feedback_pb2.THUMB_UP, feedback_pb2.THUMB_DOWN]))
    fill(event, request, at + rng.randrange(-30, 30) * SECOND, tenant=f"tenant-{int(request.split('-')[1]) % 3}")
    return event


def fill(event: Message, request: str, at: int, *, tenant: str) -> None:
    metadata = event.metadata  # type: ignore[attr-defined]
    metadata.event_id = f"{type(event).__name__}-{request}"
    metadata.request_id = request
    metadata.tenant_id = tenant
    metadata.occurred_at.FromMicroseconds(at)


async def send(kafka: str, messages: list[Message]) -> list[Message]:
    """What was sent."""
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        for event in messages:
            record = encode(event)
            await producer.send(record.topic, record.value, key=record.key, headers=record.headers)
        await producer.flush()
    return messages


@contextlib.asynccontextmanager
async def reading(kafka: str, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
    async with AIOKafkaConsumer(*topics, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        yield consumer


async def latest_parts(consumer: AIOKafkaConsumer, parts: dict[str, QualityMeasured]) -> None:
    """Read what is new; the newest revision of a part replaces the older ones."""
    for records in (await consumer.getmany(timeout_ms=500)).values():
        for record in records:
            event = decode(record.topic, record.value, record.headers)
            assert isinstance(event, QualityMeasured)
            known = parts.get(event.part.part_key)
            if known is None or rank(event) >= rank(known):
                parts[event.part.part_key] = event
            # The same revision is the same content, also when another process published it.
            if known is not None and known.part.revision == event.part.revision:
                assert content(known) == content(event)


def rank(event: QualityMeasured) -> tuple[int, bool]:
    return event.part.revision, event.part.closed


def content(event: QualityMeasured) -> tuple[bytes, ...]:
    return tuple(
        getattr(event, name).SerializeToString(deterministic=True) for name in ("requests", "feedback", "moderation")
    )


async def batch_computation(kafka: str) -> dict[str, tuple[bytes, ...]]:
    """The same facts from the same topics, in one go, by the domain alone."""
    facts: dict[tuple[int, str], list] = {}
    topics = [topic_of(event).name for event in (RequestCompleted, ContentModerated, FeedbackReceived)]
    async with reading(kafka, *topics) as consumer:
        while batches := await consumer.getmany(timeout_ms=1500):
            for where, records in batches.items():
                for record in records:
                    with contextlib.suppress(Exception):
                        message = decode(record.topic, record.value, record.headers)
                        fact = fact_of(message, offset=record.offset, record_time=record.timestamp * 1000)
                        facts.setdefault((where.partition, where.topic), []).append(fact)
    result = {}
    for number in {partition for partition, _ in facts}:
        partition = Partition(number, Rules(retention=10**15), now=0)
        for (owner, topic), found in facts.items():
            if owner == number:
                partition.absorb(topic, found, now=0)
        for state in partition.windows:
            event = measured(Part(state, state.revision, True, 0))
            result[event.part.part_key] = content(event)
    return result


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


def in_pieces(messages: list[Message], size: int) -> Iterator[list[Message]]:
    return iter([messages[first : first + size] for first in range(0, len(messages), size)])


def requests_in(messages: list[Message]) -> int:
    return sum(isinstance(message, RequestCompleted) for message in messages)


async def agree(
    consumer: AIOKafkaConsumer, parts: dict[str, QualityMeasured], expected: dict[str, tuple[bytes, ...]], home: Path
) -> None:
    """Reads on until what the two workers told is what was expected."""
    deadline = time.monotonic() + PATIENCE
    while {key: content(part) for key, part in parts.items()} != expected and time.monotonic() < deadline:
        await latest_parts(consumer, parts)
    missing = len(expected.keys() - parts.keys())
    wrong = [key for key in parts if content(parts[key]) != expected.get(key)]
    logs = "".join((home / f"quality-{number}.log").read_text()[-1500:] for number in range(2))
    assert not missing, f"{missing} parts are missing, {len(wrong)} differ\n{logs}"
    assert not wrong, f"{len(wrong)} parts differ\n{logs}"


def worker(
    number: int, kafka: str, home: Path, runner: str, port: int, *, embedded: bool = True
) -> contextlib.AbstractContextManager[subprocess.Popen]:
    environment = {
        "SLUICE_HOME": str(home),
        "SLUICE_KAFKA_BOOTSTRAP": kafka,
        "SLUICE_KAFKA_EMBEDDED": str(embedded).lower(),
        "SLUICE_QUALITY_WEB_LISTEN": f"127.0.0.1:{port}",
        "SLUICE_QUALITY_RETENTION_SECONDS": "86400",
        "SLUICE_INSTANCE": str(number),
        "SLUICE_STREAMS_RUNNER": runner,
    }
    command = [sys.executable, "-c", "from sluice_quality.main import main; main()"]
    return process(command, environment, home / f"quality-{number}.log")
