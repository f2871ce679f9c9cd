"""Real brokers: the embedded one for every test, Apache Kafka where Java and Maven are."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from google.protobuf.message import Message
from sluice_cli.mesh import apache, embedded
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.plan import Program
from sluice_events.topics import event_topics
from sluice_events.wire import encode
from sluice_kit.broker import ensure_topics
from sluice_kit.settings import MeshSettings

START_SECONDS = 60


@dataclass
class Broker:
    """A broker with the mesh's topics."""

    settings: MeshSettings

    @property
    def bootstrap(self) -> str:
        return self.settings.kafka_bootstrap

    async def send(self, *events: Message | tuple[str, dict[str, Any]]) -> None:
        """Events, or raw records as (topic, keywords of aiokafka's send); each partition in this order."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", compression_type="lz4", linger_ms=5)
        await producer.start()
        try:
            sent = []
            for event in events:
                if isinstance(event, Message):
                    record = encode(event)
                    topic, given = record.topic, {"key": record.key, "value": record.value, "headers": record.headers}
                else:
                    topic, given = event
                sent.append(await producer.send(topic, **given))
            await asyncio.gather(*sent)
        finally:
            await producer.stop()


def free_port() -> int:
    """One whose next is free too: Apache Kafka takes it for its controller."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            try:
                second.bind(("127.0.0.1", first.getsockname()[1] + 1))
                return first.getsockname()[1]
            except (OSError, OverflowError):
                continue


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


def running(program: Program, port: int) -> Iterator[None]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(program.command, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not listens(port):
            assert time.monotonic() < deadline, "the broker did not start"
            time.sleep(0.1)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def program_of(kind: str, home: Path, port: int) -> Program:
    if kind == "embedded":
        return embedded.program(Home(home), port)
    try:
        return apache.program(Home(home), port, apache.resolve(print))
    except apache.CannotRun as reason:
        pytest.skip(f"Apache Kafka cannot run here: {reason}")


async def deleted(bootstrap: str, topics: Sequence[str]) -> None:
    """Delete topics, those that are there, and wait until they are gone."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        there = sorted(set(topics) & set(await admin.list_topics()))
        if there:
            await admin.delete_topics(there)
        async with asyncio.timeout(60):
            while set(topics) & set(await admin.list_topics()):
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


@pytest.fixture
def delete_topics() -> Callable[[str, Sequence[str]], Awaitable[None]]:
    return deleted


@pytest.fixture(scope="session")
def apache_settings(tmp_path_factory) -> Iterator[MeshSettings]:
    """One Apache Kafka for all tests: it takes seconds to start."""
    home, port = tmp_path_factory.mktemp("apache"), free_port()
    for _ in running(program_of("apache", home, port), port):
        yield MeshSettings(home=home, kafka_bootstrap=f"127.0.0.1:{port}")


@pytest.fixture
def apache_broker(apache_settings) -> Broker:
    """Empty topics; with a topic Kafka forgets what groups have read of it."""
    asyncio.run(deleted(apache_settings.kafka_bootstrap, [spec.name for spec in event_topics()]))
    asyncio.run(ensure_topics(apache_settings))
    return Broker(apache_settings)


@pytest.fixture
def embedded_broker(tmp_path) -> Iterator[Broker]:
    home, port = tmp_path / "home", free_port()
    home.mkdir()
    settings = MeshSettings(home=home, kafka_bootstrap=f"127.0.0.1:{port}", kafka_embedded=True)
    for _ in running(program_of("embedded", home, port), port):
        asyncio.run(ensure_topics(settings))
        yield Broker(settings)


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
def broker(request) -> Broker:
    return request.getfixturevalue(f"{request.param}_broker")
