"""The whole service as a process, against the embedded broker: events in, ledger exact, events out."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from sluice.cost.v1 import cost_service_pb2 as pb
from sluice.cost.v1 import cost_service_pb2_grpc as pb_grpc
from sluice.events.v1 import cost_pb2, gateway_pb2
from sluice_cost.main import serve
from sluice_cost.settings import CostSettings
from sluice_kit.broker import ensure_topics, install_empty_fetch_guard
from sluice_kit.events import decode, encode, topic_of
from sluice_kit.process import StartFailed
from sluice_kit.settings import MeshSettings, load

NOIDA = find_spec("noida_db")
COMPLETED = topic_of(gateway_pb2.RequestCompleted).name
RECORDED = topic_of(cost_pb2.CostRecorded).name
REQUESTS = 200

pytestmark = pytest.mark.skipif(NOIDA is None, reason="no embedded broker: noida-db is not installed")


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
    """sluice-cost as a child process."""

    def __init__(self, mesh: MeshSettings, start_process: Callable[..., Any]) -> None:
        self._start_process = start_process
        self.target = f"127.0.0.1:{free_port()}"
        self._environment = os.environ | {
            "SLUICE_HOME": str(mesh.home),
            "SLUICE_KAFKA_BOOTSTRAP": mesh.kafka_bootstrap,
            "SLUICE_KAFKA_EMBEDDED": "true",
            "SLUICE_COST_GRPC_LISTEN": self.target,
            "SLUICE_COST_METRICS_LISTEN": "127.0.0.1:0",
        }

    def start(self) -> None:
        command = [sys.executable, "-c", "from sluice_cost.main import main; main()"]
        self._process = self._start_process(command, env=self._environment, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=10)

    def stop(self) -> int:
        self._process.terminate()
        return int(self._process.wait(timeout=20))


@pytest.fixture
def service(mesh: MeshSettings, start_process: Callable[..., Any]) -> Service:
    made = Service(mesh, start_process)
    made.start()
    return made


@pytest.fixture
async def stub(service: Service) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(service.target) as channel:
        yield pb_grpc.CostServiceStub(channel)


def completed(number: int) -> gateway_pb2.RequestCompleted:
    event = gateway_pb2.RequestCompleted(
        outcome=gateway_pb2.REQUEST_OUTCOME_COMPLETED, model="alias", served_model="smollm2-135m-instruct"
    )
    event.metadata.event_id = f"event-{number}"
    event.metadata.request_id = f"request-{number}"
    event.metadata.tenant_id = "acme"
    event.metadata.traceparent = f"00-{number:032x}-{number:016x}-01"
    event.metadata.occurred_at.GetCurrentTime()
    event.usage.uncached_input_tokens = 100
    event.usage.output_tokens = 50  # 100 * 0.05 + 50 * 0.20 per million = 15,000 nano-units
    return event


def impossible() -> gateway_pb2.RequestCompleted:
    event = completed(10**6)
    event.usage.output_tokens = 2**60
    return event


async def publish(mesh: MeshSettings, numbers: range) -> None:
    """Every event twice, and what nobody can read or use in between."""
    producer = AIOKafkaProducer(bootstrap_servers=mesh.kafka_bootstrap, acks="all")
    await producer.start()
    records = [encode(completed(number)) for number in numbers for _ in range(2)]
    for record in records:
        await producer.send(record.topic, key=record.key, value=record.value, headers=record.headers)
    await producer.send(COMPLETED, key=b"poison", value=b"\xff\xfe this is no event")
    bad = encode(impossible())
    await producer.send(bad.topic, key=bad.key, value=bad.value, headers=bad.headers)
    await producer.stop()


async def requests_in_ledger(stub: Any) -> tuple[int, int]:
    answer = await stub.GetSpend(pb.GetSpendRequest(), timeout=5)
    return sum(group.request_count for group in answer.groups), sum(group.amount.nano_units for group in answer.groups)


async def until_in_ledger(stub: Any, count: int) -> None:
    deadline = time.monotonic() + 60
    found = -1
    while time.monotonic() < deadline:
        try:
            found, _ = await requests_in_ledger(stub)
        except grpc.aio.AioRpcError:
            found = -1  # not up yet
        if found >= count:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{found} of {count} requests are in the ledger")


async def read_topic(mesh: MeshSettings, topic: str, *, at_least: int) -> list[Any]:
    """All records of a topic, from its start, until there are enough of them and then half a second of silence."""
    install_empty_fetch_guard(mesh)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=mesh.kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    records: list[Any] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        fetched = [record for batch in (await consumer.getmany(timeout_ms=500)).values() for record in batch]
        records += fetched
        if len(records) >= at_least and not fetched:
            break
    await consumer.stop()
    return records


async def test_every_request_is_in_the_ledger_once_and_told_once_though_the_service_is_killed_on_the_way(
    mesh: MeshSettings, service: Service, stub: Any
) -> None:
    await ensure_topics(mesh)
    await publish(mesh, range(REQUESTS // 2))
    await until_in_ledger(stub, REQUESTS // 4)
    service.kill()
    await publish(mesh, range(REQUESTS // 2, REQUESTS))
    service.start()
    await until_in_ledger(stub, REQUESTS)
    assert await requests_in_ledger(stub) == (REQUESTS, REQUESTS * 15_000)

    told = [
        decode(record.topic, record.value, list(record.headers))
        for record in await read_topic(mesh, RECORDED, at_least=REQUESTS)
    ]
    by_id = {event.metadata.event_id: event for event in told}  # type: ignore[attr-defined]
    assert sorted(event.source_event_id for event in by_id.values()) == sorted(f"event-{n}" for n in range(REQUESTS))
    one: Any = next(event for event in by_id.values() if event.source_event_id == "event-7")
    assert (one.metadata.request_id, one.metadata.tenant_id, one.amount.nano_units) == ("request-7", "acme", 15_000)
    assert one.metadata.traceparent == f"00-{7:032x}-{7:016x}-01"
    assert [(line.bucket, line.quantity, line.unit_price) for line in one.lines] == [
        ("input", 100, "0.05"),
        ("output", 50, "0.2"),
    ]

    buried = await read_topic(mesh, COMPLETED + ".dlq", at_least=4)
    reasons = Counter(dict(record.headers)["sluice_error_reason"] for record in buried)
    assert set(reasons) == {b"malformed", b"handler_failed:AbsurdUsage"}
    assert service.stop() == 0


async def test_the_service_starts_before_its_broker_and_answers_meanwhile(
    tmp_path: Path, start_process: Callable[..., Any]
) -> None:
    away = MeshSettings(home=tmp_path / "home", kafka_bootstrap=f"127.0.0.1:{free_port()}", kafka_embedded=True)
    service = Service(away, start_process)
    service.start()
    async with grpc.aio.insecure_channel(service.target) as channel:
        await until_in_ledger(pb_grpc.CostServiceStub(channel), 0)
    assert service.stop() == 0


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("database_url", "sqlite:////proc/nowhere/cost.db", "cannot be opened"),
        ("database_url", "postgresql://a:secret@127.0.0.1:1/x", "cannot be opened"),
        ("price_book_file", "/nowhere/book.yaml", "cannot be read"),
        ("budgets_file", "/nowhere/budgets.yaml", "is no folder"),
    ],
)
async def test_what_the_service_can_not_start_with_is_one_sentence_without_secrets(
    setting: str, value: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(StartFailed) as caught:
        await serve(CostSettings(home=tmp_path, **{setting: value}))
    assert sentence in str(caught.value)
    assert f"SLUICE_COST_{setting.upper()}" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_database_of_another_kind_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_COST_DATABASE_URL", "oracle://x")
    with pytest.raises(SystemExit):
        load(CostSettings)
    assert capsys.readouterr().err.startswith("SLUICE_COST_DATABASE_URL:")
