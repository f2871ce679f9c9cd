"""A broker of its own for the tests that read topics, and a pen that writes numbered events to it."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from google.protobuf.message import Message
from sluice.events.v1 import cost_pb2, gateway_pb2
from sluice_kit.broker import client_options, ensure_topics
from sluice_kit.events import encode
from sluice_kit.settings import MeshSettings

COMPLETED = "sluice.gateway.request_completed.v1"
RECORDED = "sluice.cost.cost_recorded.v1"
GATEWAY = "sluice-gateway/0#1f2e3d4c"


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MeshSettings]:
    """The embedded broker on a free port, as settings that lead to it."""
    from sluice_cli.mesh import embedded
    from sluice_cli.mesh.home import Home

    port = _port()
    command = embedded.program(Home(tmp_path), port).command
    leash = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
    with subprocess.Popen([*leash, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                time.sleep(0.05)
        yield MeshSettings(home=tmp_path, kafka_bootstrap=f"127.0.0.1:{port}", kafka_embedded=True)
        process.kill()


def completed(number: int, *, producer: str = GATEWAY, **metadata: Any) -> gateway_pb2.RequestCompleted:
    """The number-th RequestCompleted of a producer, a second after the one before."""
    event = gateway_pb2.RequestCompleted(model="alias", served_model="small")
    told = {"event_id": f"event-{number}", "request_id": f"request-{number}", "tenant_id": "acme"} | metadata
    for name, value in told.items():
        setattr(event.metadata, name, value)
    event.metadata.producer, event.metadata.producer_sequence = producer, number
    event.metadata.occurred_at.FromSeconds(1_790_000_000 + number)
    event.usage.uncached_input_tokens, event.usage.output_tokens = 10, 4
    return event


def recorded(number: int, *, sequence: int | None = None) -> cost_pb2.CostRecorded:
    """The CostRecorded of the number-th RequestCompleted."""
    event = cost_pb2.CostRecorded(source_event_id=f"event-{number}", charge_kind="inference")
    event.metadata.event_id, event.metadata.request_id = f"cost-{number}", f"request-{number}"
    event.metadata.producer, event.metadata.producer_sequence = "sluice-cost/0#aaaaaaaa", sequence or number
    event.metadata.occurred_at.FromSeconds(1_790_000_000 + number)
    return event


class Pen:
    """Writes records as a producer without an outbox: with whatever numbers the test wants."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer = producer

    async def write(self, *events: Message) -> None:
        """Events with their own numbers."""
        for event in events:
            record = encode(event)
            await self.raw(record.topic, record.key, record.value, record.headers)

    async def raw(self, topic: str, key: bytes, value: bytes, headers: Any = (), **place: int) -> Any:
        """Any record; where it went."""
        return await self._producer.send_and_wait(topic, key=key, value=value, headers=list(headers), **place)


@pytest.fixture
async def pen(broker: MeshSettings) -> Any:
    """A pen, once the mesh's topics are there."""
    await ensure_topics(broker)
    producer = AIOKafkaProducer(**client_options(broker), acks="all")
    await producer.start()
    yield Pen(producer)
    await producer.stop()


class Numbered:
    """Makes events with chosen numbers."""

    completed = staticmethod(completed)
    recorded = staticmethod(recorded)


@pytest.fixture
def numbered() -> type[Numbered]:
    return Numbered
