"""The whole service as a process, against the embedded broker: feedback in, events out, and the requests it learns of."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from sluice.events.v1 import feedback_pb2, gateway_pb2
from sluice.feedback.v1 import feedback_service_pb2 as pb
from sluice.feedback.v1 import feedback_service_pb2_grpc as pb_grpc
from sluice_feedback.main import serve
from sluice_feedback.settings import FeedbackSettings
from sluice_kit.broker import ensure_topics, install_empty_fetch_guard
from sluice_kit.events import decode, encode, topic_of
from sluice_kit.process import StartFailed
from sluice_kit.sealing.file_keys import FileKeyStore
from sluice_kit.sealing.text import Place, TextErased, TextReader
from sluice_kit.settings import MeshSettings

NOIDA = find_spec("noida_db")
RECEIVED = topic_of(feedback_pb2.FeedbackReceived).name
ACME = (("x-sluice-tenant-id", "acme"),)

needs_broker = pytest.mark.skipif(NOIDA is None, reason="no embedded broker: noida-db is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def mesh(tmp_path: Path, start_process: Callable[..., Any]) -> MeshSettings:
    """A broker of its own."""
    port = free_port()
    binary = str(files("noida_db") / "noida-db")
    command = [binary, "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(tmp_path / "broker")]
    start_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return MeshSettings(home=tmp_path / "home", kafka_bootstrap=f"127.0.0.1:{port}", kafka_embedded=True)


class Service:
    """sluice-feedback as a child process."""

    def __init__(self, mesh: MeshSettings, redaction_target: str, start_process: Callable[..., Any]) -> None:
        self._start_process = start_process
        self.target = f"127.0.0.1:{free_port()}"
        self._environment = os.environ | {
            "SLUICE_HOME": str(mesh.home),
            "SLUICE_KAFKA_BOOTSTRAP": mesh.kafka_bootstrap,
            "SLUICE_KAFKA_EMBEDDED": "true",
            "SLUICE_FEEDBACK_GRPC_LISTEN": self.target,
            "SLUICE_FEEDBACK_METRICS_LISTEN": "127.0.0.1:0",
            "SLUICE_REDACTION_TARGET": redaction_target,
        }

    def start(self) -> None:
        command = [sys.executable, "-c", "from sluice_feedback.main import main; main()"]
        self._process = self._start_process(command, env=self._environment, stdout=subprocess.DEVNULL)

    def stop(self) -> int:
        self._process.terminate()
        return int(self._process.wait(timeout=20))


@pytest.fixture
def service(mesh: MeshSettings, redaction_target: str, start_process: Callable[..., Any]) -> Service:
    made = Service(mesh, redaction_target, start_process)
    made.start()
    return made


async def until(condition: Callable[[], Any], *, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := await condition():
            return result
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come to pass")


async def complete(mesh: MeshSettings, request_id: str, tenant_id: str) -> None:
    event = gateway_pb2.RequestCompleted()
    event.metadata.event_id = f"completed-{request_id}"
    event.metadata.request_id, event.metadata.tenant_id = request_id, tenant_id
    event.metadata.occurred_at.GetCurrentTime()
    record = encode(event)
    producer = AIOKafkaProducer(bootstrap_servers=mesh.kafka_bootstrap, acks="all")
    await producer.start()
    await producer.send_and_wait(record.topic, key=record.key, value=record.value, headers=record.headers)
    await producer.send_and_wait(record.topic, key=b"poison", value=b"\xff\xfe this is no event")
    await producer.stop()


async def received(mesh: MeshSettings, *, at_least: int) -> list[Any]:
    install_empty_fetch_guard(mesh)
    consumer = AIOKafkaConsumer(RECEIVED, bootstrap_servers=mesh.kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    records: list[Any] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(records) < at_least:
        records += [record for batch in (await consumer.getmany(timeout_ms=500)).values() for record in batch]
    await consumer.stop()
    return [decode(record.topic, record.value, list(record.headers)) for record in records]


@needs_broker
async def test_feedback_that_comes_before_its_request_is_told_at_once_and_judged_when_the_request_is_known(
    mesh: MeshSettings, service: Service
) -> None:
    await ensure_topics(mesh)
    async with grpc.aio.insecure_channel(service.target) as channel:
        stub: Any = pb_grpc.FeedbackServiceStub(channel)

        async def submit(request_id: str) -> Any:
            request = pb.SubmitFeedbackRequest(
                feedback_id=f"on-{request_id}", request_id=request_id, comment="Ask Jane Doe"
            )
            try:
                return await stub.SubmitFeedback(request, metadata=ACME, timeout=5)
            except grpc.aio.AioRpcError as error:
                return error if error.code() is not grpc.StatusCode.UNAVAILABLE else None  # not up yet

        assert not (await until(lambda: submit("own"))).request_known
        assert not (await submit("foreign")).request_known
        await complete(mesh, "own", "acme")
        await complete(mesh, "foreign", "umbrella")

        async def is_known() -> bool:
            return bool((await submit("own")).request_known)

        async def is_denied() -> bool:
            return getattr(await submit("foreign"), "code", lambda: None)() is grpc.StatusCode.PERMISSION_DENIED

        await until(is_known)
        await until(is_denied)
    events = await received(mesh, at_least=3)
    by_id = {event.metadata.event_id: event for event in events}
    told = sorted((event.feedback_id, event.retracted) for event in by_id.values())
    assert told == [("on-foreign", False), ("on-foreign", True), ("on-own", False)]
    assert {(event.WhichOneof("value"), event.redacted_comment) for event in events} == {("redacted_comment", "")}
    reader = TextReader(lambda: FileKeyStore(mesh.home / "keys"))
    opened = {
        event.feedback_id: reader.open(event.encrypted_text, Place.in_event(event, "encrypted_text"))
        for event in events
        if event.feedback_id == "on-own"
    }
    assert opened == {"on-own": "Ask <PERSON_1>"}
    for event in events:
        if event.feedback_id == "on-foreign" and not event.retracted:
            with pytest.raises(TextErased):
                reader.open(event.encrypted_text, Place.in_event(event, "encrypted_text"))
    assert service.stop() == 0


@pytest.mark.parametrize(
    "url", ["sqlite:////proc/nowhere/feedback.db", "postgresql://a:secret@127.0.0.1:1/x"], ids=["sqlite", "postgresql"]
)
async def test_a_database_that_can_not_be_opened_is_one_sentence_without_secrets(url: str, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="cannot be opened") as caught:
        await serve(FeedbackSettings(home=tmp_path, database_url=url))
    assert "SLUICE_FEEDBACK_DATABASE_URL" in str(caught.value)
    assert "secret" not in str(caught.value)
