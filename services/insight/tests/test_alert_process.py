"""A real insight on a real broker: an alert is raised once and resolved once, however often the process is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import grpc
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from google.protobuf.message import Message
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.insight.v1.insight_service_pb2_grpc import InsightServiceStub
from sluice_kit import broker
from sluice_kit.events import decode, encode, topic_of
from sluice_kit.settings import MeshSettings

# The program itself: its Python wrapper would be stopped and leave it running.
_FOUND = find_spec("noida_db")
NOIDA = Path(_FOUND.origin or "").with_name("noida-db") if _FOUND else Path("noida-db is not installed")
pytestmark = pytest.mark.skipif(not NOIDA.exists(), reason="the embedded broker (noida-db) is not installed")

MINUTE = 60_000_000
RULES = """
rules:
  - rule: test.failing
    severity: critical
    metric: quality.failed_ratio
    group_by: [tenant_id]
    threshold: {above: 0.5}
    summary: "$tenant_id fails: $value"
"""
DEADLINE = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def process(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        running = subprocess.Popen(arguments, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(5)


class Mesh:
    """A broker, an insight that can be killed, and what stands on the alerts' topic."""

    def __init__(self, folder: Path, kafka: str) -> None:
        self.folder, self.kafka = folder, kafka
        self.began = int(time.time()) // 60 * MINUTE - 4 * MINUTE
        (folder / "rules").mkdir()
        (folder / "rules" / "test.yaml").write_text(RULES)

    @contextlib.contextmanager
    def insight(self, instance: str = "0") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
        port = free_port()
        environment = {
            "SLUICE_HOME": str(self.folder / "home"), "SLUICE_KAFKA_BOOTSTRAP": self.kafka, "SLUICE_KAFKA_EMBEDDED": "true",
            "SLUICE_INSIGHT_GRPC_LISTEN": f"127.0.0.1:{port}", "SLUICE_INSIGHT_METRICS_LISTEN": f"127.0.0.1:{free_port()}",
            "SLUICE_INSIGHT_ALERT_RULES": str(self.folder / "rules"), "SLUICE_INSIGHT_ALERT_SECONDS": "0.3",
            "SLUICE_INSTANCE": instance,
        }  # fmt: skip
        command = [str(Path(sys.executable).with_name("sluice-insight"))]
        with process(command, environment, self.folder / f"insight-{instance}.log") as running:
            yield running, f"127.0.0.1:{port}"

    async def measure(self, minute: int, *, failed: int, of: int = 10, revision: int = 1) -> None:
        event = QualityMeasured()
        event.series.tenant_id = "acme"
        start = self.began + minute * MINUTE
        event.window.start.FromMicroseconds(start)
        event.window.length.FromMicroseconds(MINUTE)
        event.part.part_key, event.part.revision, event.part.closed = f"quality|acme|{minute}", revision, True
        event.part.complete_up_to.FromMicroseconds(start + MINUTE)
        event.requests.requests, event.requests.failed = of, failed
        event.metadata.event_id = f"measured-{minute}-{revision}"
        await self.publish(event)

    async def publish(self, event: Message) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.kafka, acks="all", enable_idempotence=False)
        await producer.start()
        try:
            record = encode(event)
            await producer.send_and_wait(record.topic, key=record.key, value=record.value, headers=record.headers)
        finally:
            await producer.stop()

    async def alerts(self, enough: Callable[[list[AlertRaised]], bool]) -> list[AlertRaised]:
        """Everything that the topic says of our rule (the shipped ones fire, too), as soon as it is enough.

        Each event once by its id, as every reader has it: on the embedded broker the outbox sends the last seconds again after a kill.
        """
        consumer = AIOKafkaConsumer(
            topic_of(AlertRaised).name, bootstrap_servers=self.kafka, auto_offset_reset="earliest", group_id=None
        )
        found: list[AlertRaised] = []
        await consumer.start()
        try:
            async with asyncio.timeout(DEADLINE):
                while not enough(found):
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        for record in records:
                            event = decode(record.topic, record.value, record.headers)
                            assert isinstance(event, AlertRaised)
                            ids = {one.metadata.event_id for one in found}
                            if event.rule == "test.failing" and event.metadata.event_id not in ids:
                                found.append(event)
        finally:
            await consumer.stop()
        return found


@pytest.fixture()
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    port = free_port()
    command = [str(NOIDA), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(tmp_path / "kafka")]
    with process(command, {}, tmp_path / "kafka.log"):
        kafka = f"127.0.0.1:{port}"
        broker.install_empty_fetch_guard(MeshSettings(kafka_bootstrap=kafka, kafka_embedded=True))
        await broker.ensure_topics(MeshSettings(kafka_bootstrap=kafka, kafka_embedded=True))
        yield Mesh(tmp_path, kafka)


def state(name: str) -> Callable[[list[AlertRaised]], bool]:
    return lambda found: any(event.state == name for event in found)


async def listed(target: str, count: int) -> list[pb.Alert]:
    async with grpc.aio.insecure_channel(target) as channel, asyncio.timeout(DEADLINE):
        stub = InsightServiceStub(channel)
        while True:
            answer = await stub.ListAlerts(
                pb.ListAlertsRequest(tenant_id="acme", rule="test.failing"), wait_for_ready=True
            )
            if len(answer.alerts) >= count:
                return list(answer.alerts)
            await asyncio.sleep(0.1)


async def test_an_alert_fires_once_and_is_resolved_once_over_kills(mesh: Mesh) -> None:
    await mesh.measure(0, failed=9)
    with mesh.insight() as (running, _):
        await mesh.alerts(state("firing"))
        running.kill()
        running.wait(5)
    with mesh.insight() as (running, target):
        [alert] = await listed(target, 1)
        assert (alert.state, alert.rule, alert.summary) == (pb.ALERT_STATE_FIRING, "test.failing", "acme fails: 0.9")
        assert (alert.evidence.value, alert.severity, alert.labels["tenant_id"]) == (0.9, "critical", "acme")
        running.kill()
        running.wait(5)
    await mesh.measure(1, failed=0)
    with mesh.insight() as (_, target):
        found = await mesh.alerts(state("resolved"))
        # A second alert of the same rule: whatever the first one's restarts said twice would stand before it.
        await mesh.measure(2, failed=10)
        found = await mesh.alerts(lambda all_: sum(event.state == "firing" for event in all_) >= 2)
        alerts = await listed(target, 2)
    assert [event.state for event in found] == ["firing", "resolved", "firing"]
    assert found[0].alert_id == found[1].alert_id != found[2].alert_id
    assert [alert.state for alert in alerts] == [pb.ALERT_STATE_FIRING, pb.ALERT_STATE_RESOLVED]


async def test_a_late_restatement_resolves(mesh: Mesh) -> None:
    await mesh.measure(0, failed=9)
    with mesh.insight():
        await mesh.alerts(state("firing"))
        await mesh.measure(0, failed=9, of=100, revision=2)
        found = await mesh.alerts(state("resolved"))
        assert [event.state for event in found] == ["firing", "resolved"]
