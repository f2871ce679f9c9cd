"""Real worker processes on a real broker: killed in the middle, they count what a batch computation counts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from google.protobuf.message import Message
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice_kit import broker
from sluice_kit.events import topic_of
from sluice_quality.adapters.records import decode as stored
from sluice_quality.domain.window import WindowState
from sluice_quality.settings import QualitySettings

from .worker_world import (
    COMPLETIONS,
    PATIENCE,
    agree,
    batch_computation,
    content,
    events,
    free_port,
    in_pieces,
    latest_parts,
    page,
    process,
    reading,
    requests_in,
    send,
    wait_for_health,
    worker,
)

# The program itself: its Python wrapper would be stopped and leave it running.
_FOUND = find_spec("noida_db")
NOIDA = Path(_FOUND.origin or "").with_name("noida-db") if _FOUND else Path("noida-db is not installed")
pytestmark = pytest.mark.skipif(not NOIDA.exists(), reason="the embedded broker (noida-db) is not installed")

SESSION_SECONDS = 10
"""So long a worker that was killed is still a member of its group."""
CHANGELOG = "sluice-quality-windows-changelog"


@pytest.fixture()
def kafka(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [str(NOIDA), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(tmp_path / "kafka")]
    with process(command, {}, tmp_path / "kafka.log"):
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("runner", "successor", "store"),
    [
        ("faust", "faust", "memory://"),
        ("faust", "faust", "rocksdb://"),
        ("plain", "plain", "memory://"),
        ("faust", "plain", "memory://"),
        ("plain", "faust", "memory://"),
    ],
)
async def test_a_worker_killed_in_the_middle_counts_what_a_batch_computation_counts(
    kafka: str, tmp_path: Path, runner: str, successor: str, store: str
) -> None:
    """Its successor takes up what it stored, also under the other runner."""
    port = free_port()
    environment = {
        "SLUICE_HOME": str(tmp_path),
        "SLUICE_KAFKA_BOOTSTRAP": kafka,
        "SLUICE_KAFKA_EMBEDDED": "true",
        "SLUICE_QUALITY_WEB_LISTEN": f"127.0.0.1:{port}",
        "SLUICE_QUALITY_RETENTION_SECONDS": "86400",
        "SLUICE_STREAMS_RUNNER": runner,
        "SLUICE_QUALITY_STORE": store,
    }
    settings = QualitySettings(SLUICE_KAFKA_BOOTSTRAP=kafka, SLUICE_KAFKA_EMBEDDED=True)  # type: ignore[call-arg]
    await broker.ensure_topics(settings)
    command = [sys.executable, "-c", "from sluice_quality.main import main; main()"]
    messages = events()
    log = tmp_path / "quality.log"
    parts: dict[str, QualityMeasured] = {}
    async with reading(kafka, topic_of(QualityMeasured).name) as consumer:
        with process(command, environment, log) as first:
            await wait_for_health(port, time.monotonic() + 30)
            await send(kafka, messages[: len(messages) // 3])
            sending = asyncio.create_task(send(kafka, messages[len(messages) // 3 :]))
            # Killed while it works: some batches are stored, some not, some stored and not committed.
            while sum(part.requests.requests for part in parts.values()) < 300:
                await latest_parts(consumer, parts)
            first.send_signal(signal.SIGKILL)
            await sending
            first.wait(5)
        if successor != runner:
            await asyncio.sleep(SESSION_SECONDS + 1)  # a group with a living member refuses the other kind
        with process(command, environment | {"SLUICE_STREAMS_RUNNER": successor}, log):
            await wait_for_health(port, time.monotonic() + 30)
            await poison(kafka)
            expected = await batch_computation(kafka)
            deadline = time.monotonic() + 40
            while {key: content(part) for key, part in parts.items()} != expected and time.monotonic() < deadline:
                await latest_parts(consumer, parts)
            assert b"sluice_quality_facts_total" in await page(port, "/metrics")
            # The windows may be right before the record that cannot be read was reached.
            while not await dead_letters(kafka) and time.monotonic() < deadline:
                pass
            if successor == "faust":
                assert b" 404 " in (await page(port, "/table/")).splitlines()[0]
    assert {key: content(part) for key, part in parts.items()} == expected, log.read_text()[-3000:]
    assert bool(list(tmp_path.rglob("*.sst")) or list(tmp_path.rglob("MANIFEST-*"))) == (store == "rocksdb://")
    assert sum(part.requests.requests for part in parts.values()) == COMPLETIONS
    assert sum(part.feedback.received for part in parts.values()) == COMPLETIONS // 10
    assert await dead_letters(kafka) == [b"\xff\xff not protobuf"]


@pytest.mark.parametrize("runner", ["faust", "plain"])
async def test_windows_whose_last_versions_a_broker_lost_are_counted_again_from_the_log(
    kafka: str, tmp_path: Path, runner: str
) -> None:
    """Older versions of some windows stand last in the changelog, and what was written after them is kept."""
    port = free_port()
    environment = {
        "SLUICE_HOME": str(tmp_path),
        "SLUICE_KAFKA_BOOTSTRAP": kafka,
        "SLUICE_KAFKA_EMBEDDED": "true",
        "SLUICE_QUALITY_WEB_LISTEN": f"127.0.0.1:{port}",
        "SLUICE_QUALITY_RETENTION_SECONDS": "86400",
        "SLUICE_STREAMS_RUNNER": runner,
    }
    await broker.ensure_topics(QualitySettings(SLUICE_KAFKA_BOOTSTRAP=kafka, SLUICE_KAFKA_EMBEDDED=True))  # type: ignore[call-arg]
    command = [sys.executable, "-c", "from sluice_quality.main import main; main()"]
    messages = [event for event in events() if isinstance(event, RequestCompleted)][:600]
    with process(command, environment, tmp_path / "quality.log"):
        await wait_for_health(port, time.monotonic() + 30)
        for first in range(0, len(messages), 100):
            await send(kafka, messages[first : first + 100])
            await counted_by(kafka, first + 100)
    versions = await window_versions(kafka)
    lost = {key: told[-2] for key, told in versions.items() if len(told) > 1}
    assert (
        sum(requests_of(told[-1]) for told in (versions | {key: [value] for key, value in lost.items()}).values()) < 600
    )
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        for (partition, key), value in lost.items():
            await producer.send_and_wait(CHANGELOG, value, key=key, partition=partition)
    with process(command, environment, tmp_path / "quality.log"):
        await counted_by(kafka, len(messages))


async def counted_by(kafka: str, requests: int) -> None:
    """Waits until the changelog's windows hold so many requests, and no more."""
    deadline = time.monotonic() + 40
    while (found := sum(requests_of(told[-1]) for told in (await window_versions(kafka)).values())) != requests:
        assert found < requests
        assert time.monotonic() < deadline, (found, requests)


async def window_versions(kafka: str) -> dict[tuple[int, bytes], list[bytes]]:
    """All that the changelog holds of windows, by partition and key."""
    versions: dict[tuple[int, bytes], list[bytes]] = {}
    async with reading(kafka, CHANGELOG) as consumer:
        while batches := await consumer.getmany(timeout_ms=500):
            for found in batches.values():
                for record in found:
                    if record.key.startswith(b"quality"):
                        versions.setdefault((record.partition, record.key), []).append(record.value)
    return versions


def requests_of(value: bytes) -> int:
    window = stored(b"quality", value)
    assert isinstance(window, WindowState)
    return window.requests.requests


@pytest.mark.parametrize("runner", ["faust", "plain"])
async def test_of_two_workers_one_is_killed_three_times_and_they_count_what_a_batch_computation_counts(
    kafka: str, tmp_path: Path, runner: str
) -> None:
    """The short form of the next: half a minute."""
    settings = QualitySettings(SLUICE_KAFKA_BOOTSTRAP=kafka, SLUICE_KAFKA_EMBEDDED=True)  # type: ignore[call-arg]
    await broker.ensure_topics(settings)
    pieces, ports = in_pieces(events(), 10), [free_port(), free_port()]
    sent: list[Message] = []
    parts: dict[str, QualityMeasured] = {}
    async with reading(kafka, topic_of(QualityMeasured).name) as consumer:
        with contextlib.ExitStack() as workers:
            running = [workers.enter_context(worker(n, kafka, tmp_path, runner, port)) for n, port in enumerate(ports)]
            for victim in (0, 1, 0):
                for port in ports:
                    await wait_for_health(port, time.monotonic() + PATIENCE)
                before, deadline = requests_in(sent), time.monotonic() + PATIENCE
                # Until what comes now is being counted: so every kill finds something in flight.
                while sum(part.requests.requests for part in parts.values()) <= before:
                    assert time.monotonic() < deadline, "nothing of what comes in is counted"
                    sent += await send(kafka, next(pieces, []))
                    await latest_parts(consumer, parts)
                running[victim].kill()
                running[victim].wait(5)
                sent += await send(kafka, next(pieces, []))
                running[victim] = workers.enter_context(worker(victim, kafka, tmp_path, runner, ports[victim]))
            await send(kafka, [message for piece in pieces for message in piece])
            await agree(consumer, parts, await batch_computation(kafka), tmp_path)
    assert sum(part.requests.requests for part in parts.values()) == COMPLETIONS


@pytest.mark.mesh
@pytest.mark.skipif(not os.environ.get("SLUICE_TEST_CHAOS"), reason="takes two minutes: set SLUICE_TEST_CHAOS=1")
@pytest.mark.parametrize("runner", ["faust", "plain"])
async def test_two_workers_killed_again_and_again_count_what_a_batch_computation_counts(
    kafka: str, tmp_path: Path, runner: str
) -> None:
    """Rebalances, recoveries and takeovers while events come in: a minute and a half."""
    settings = QualitySettings(SLUICE_KAFKA_BOOTSTRAP=kafka, SLUICE_KAFKA_EMBEDDED=True)  # type: ignore[call-arg]
    await broker.ensure_topics(settings)
    messages, rng = events(), random.Random(4)
    with contextlib.ExitStack() as workers:
        running = [workers.enter_context(worker(number, kafka, tmp_path, runner, free_port())) for number in range(2)]
        feeding = asyncio.create_task(send_slowly(kafka, messages))
        while not feeding.done():
            await asyncio.wait({feeding}, timeout=rng.uniform(8, 16))
            victim = rng.randrange(2)
            running[victim].kill()
            running[victim].wait(5)
            running[victim] = workers.enter_context(worker(victim, kafka, tmp_path, runner, free_port()))
        await feeding
        expected = await batch_computation(kafka)
        async with reading(kafka, topic_of(QualityMeasured).name) as consumer:
            await agree(consumer, {}, expected, tmp_path)


async def send_slowly(kafka: str, messages: list[Message]) -> None:
    """Over a minute, so that every kill finds something in flight."""
    size = len(messages) // 60
    for first in range(0, len(messages), size):
        await send(kafka, messages[first : first + size])
        await asyncio.sleep(1)


async def poison(kafka: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(topic_of(RequestCompleted).name, b"\xff\xff not protobuf", key=b"request-x")


async def dead_letters(kafka: str) -> list[bytes | None]:
    async with reading(kafka, topic_of(RequestCompleted).name + ".dlq") as consumer:
        found = await consumer.getmany(timeout_ms=3000)
        records = [record for batch in found.values() for record in batch]
        assert all(dict(record.headers)["sluice_error_reason"] == b"malformed" for record in records)
        return [record.value for record in records]
