"""A broker, insights that can be killed, and a receiver of alerts: real processes for tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import grpc
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from google.protobuf.message import Message
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.insight.v1.insight_service_pb2_grpc import InsightServiceStub
from sluice_kit.events import decode, encode, topic_of

# The program itself: its Python wrapper would be stopped and leave it running.
_FOUND = find_spec("noida_db")
NOIDA = Path(_FOUND.origin or "").with_name("noida-db") if _FOUND else Path("noida-db is not installed")

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


def broker_port() -> int:
    """A port that is free together with the next one, which Apache Kafka's controller takes; none that the kernel gives to clients."""
    for port in random.sample(range(20_000, 32_000), 1_000):
        with socket.socket() as one, socket.socket() as next_, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            next_.bind(("127.0.0.1", port + 1))
            return port
    raise AssertionError("no two free ports side by side")


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


class Far:
    """A receiver: what it got, and what it answers next."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        far = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                far.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(far.answers.pop(0) if far.answers else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def told(self) -> list[tuple[str, str]]:
        """What webhooks said, in their order: the id, and the type."""
        return [(headers["webhook-id"], json.loads(body)["type"]) for _, headers, body in list(self.got)]

    @contextlib.contextmanager
    def serving(self) -> Iterator[Far]:
        """Until the end of the block."""
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


class Mesh:
    """A broker, an insight that can be killed, and what stands on the alerts' topic."""

    def __init__(self, folder: Path, kafka: str, *, embedded: bool = True) -> None:
        self.folder, self.kafka, self.embedded = folder, kafka, embedded
        self.metrics = ""
        """Where the insight that started last serves /metrics."""
        self.began = int(time.time()) // 60 * MINUTE - 4 * MINUTE
        (folder / "rules").mkdir()
        (folder / "rules" / "test.yaml").write_text(RULES)

    @contextlib.contextmanager
    def insight(self, instance: str = "0") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
        port, self.metrics = free_port(), f"127.0.0.1:{free_port()}"
        environment = {
            "SLUICE_HOME": str(self.folder / f"home-{instance}"), "SLUICE_KAFKA_BOOTSTRAP": self.kafka,
            "SLUICE_KAFKA_EMBEDDED": str(self.embedded).lower(),
            "SLUICE_INSIGHT_GRPC_LISTEN": f"127.0.0.1:{port}", "SLUICE_INSIGHT_METRICS_LISTEN": self.metrics,
            "SLUICE_INSIGHT_ALERT_RULES": str(self.folder / "rules"), "SLUICE_INSIGHT_ALERT_SECONDS": "0.3",
            "SLUICE_INSTANCE": instance,
        }  # fmt: skip
        if (self.folder / "receivers.yaml").exists():
            environment["SLUICE_INSIGHT_ALERT_RECEIVERS_FILE"] = str(self.folder / "receivers.yaml")
        command = [str(Path(sys.executable).with_name("sluice-insight"))]
        with process(command, environment, self.folder / f"insight-{instance}.log") as running:
            yield running, f"127.0.0.1:{port}"

    def deliver_to(self, far: Far) -> None:
        """Insights that start from now on tell this receiver of our rule."""
        secret = self.folder / "secret"
        secret.write_text("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
        receiver = f'{{receiver: hook, kind: webhook, url: "{far.url}", secret_file: {secret}, rules: [test.failing]}}'
        (self.folder / "receivers.yaml").write_text(f"receivers:\n  - {receiver}\n")

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

    async def alerts(
        self, enough: Callable[[list[AlertRaised]], bool], *, rule: str = "test.failing", seconds: float = DEADLINE
    ) -> list[AlertRaised]:
        """Everything that the topic says of our rule (the shipped ones fire, too), as soon as it is enough.

        Each event once by its id, as every reader has it: on the embedded broker the outbox sends the last seconds again after a kill.
        """
        consumer = AIOKafkaConsumer(
            topic_of(AlertRaised).name, bootstrap_servers=self.kafka, auto_offset_reset="earliest", group_id=None
        )
        found: list[AlertRaised] = []
        await consumer.start()
        try:
            async with asyncio.timeout(seconds):
                while not enough(found):
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        for record in records:
                            event = decode(record.topic, record.value, record.headers)
                            assert isinstance(event, AlertRaised)
                            ids = {one.metadata.event_id for one in found}
                            if event.rule == rule and event.metadata.event_id not in ids:
                                found.append(event)
        finally:
            await consumer.stop()
        return found


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


async def judged(target: str, *, up_to: int) -> None:
    """Waits until insight says that it has judged this minute."""
    async with grpc.aio.insecure_channel(target) as channel, asyncio.timeout(DEADLINE):
        stub = InsightServiceStub(channel)
        while (await stub.ListAlerts(pb.ListAlertsRequest())).complete_up_to.ToMicroseconds() != up_to:
            await asyncio.sleep(0.1)
