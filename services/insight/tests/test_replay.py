"""The board rebuilt from its topics on a real broker: it answers as the live one, and twice with the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import pytest
from aiokafka import AIOKafkaProducer
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.insight.v1.insight_service_pb2_grpc import InsightServiceStub, add_InsightServiceServicer_to_server
from sluice_insight.api.metrics import SERVICE_NAME, InsightService
from sluice_insight.consumer import EVENTS
from sluice_insight.domain.board import MINUTE
from sluice_insight.domain.watch import Watchers
from sluice_insight.replay import HOUR, Rebuilt
from sluice_insight.replay import Report as SkippingReport
from sluice_insight.settings import InsightSettings
from sluice_kit import broker
from sluice_kit.events import encode, topic_of
from sluice_kit.ordered import OrderedReader
from sluice_kit.server import GrpcServer
from sluice_kit.settings import MeshSettings

# The program itself: its Python wrapper would be stopped and leave it running.
_FOUND = find_spec("noida_db")
NOIDA = Path(_FOUND.origin or "").with_name("noida-db") if _FOUND else Path("noida-db is not installed")
pytestmark = pytest.mark.skipif(not NOIDA.exists(), reason="the embedded broker (noida-db) is not installed")

# The board keeps a day.
BEGAN = int(time.time()) // 60 * MINUTE - HOUR


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        running = subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output)
    try:
        yield
    finally:
        running.kill()
        running.wait(10)


@pytest.fixture()
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    port, listen = free_port(), f"127.0.0.1:{free_port()}"
    command = [str(NOIDA), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(tmp_path / "kafka")]
    with process(command, {}, tmp_path / "kafka.log"):
        yield {
            "SLUICE_HOME": str(tmp_path),
            "SLUICE_KAFKA_BOOTSTRAP": f"127.0.0.1:{port}",
            "SLUICE_KAFKA_EMBEDDED": "true",
            "SLUICE_INSIGHT_GRPC_LISTEN": listen,
            "SLUICE_INSIGHT_METRICS_LISTEN": "127.0.0.1:0",
            "SLUICE_INSIGHT_TARGET": listen,
        }


def told(event: Any, number: int, *, minute: int = 0) -> Any:
    """An event with who and when, and its window where it has one."""
    event.metadata.event_id = f"{event.DESCRIPTOR.name}-{number}"
    event.metadata.tenant_id = ("acme", "globex")[number % 2]
    event.metadata.producer, event.metadata.producer_sequence = "sluice-test/0#0badcafe", number + 1
    event.metadata.occurred_at.FromMicroseconds(BEGAN + minute * MINUTE)
    if event.DESCRIPTOR.fields_by_name.get("part"):
        event.series.tenant_id, event.series.model = event.metadata.tenant_id, "small"
        event.window.start.FromMicroseconds(BEGAN + minute * MINUTE)
        event.window.length.FromMicroseconds(MINUTE)
        event.part.part_key = f"{event.DESCRIPTOR.name}|{event.metadata.tenant_id}|{minute}"
        event.part.revision, event.part.closed = number + 1, True
    return event


def events() -> list[Any]:
    """Windows with later revisions of some, and ledger rows, one of them twice under its number."""
    found: list[Any] = []
    for number in range(12):
        quality = told(QualityMeasured(), number, minute=number // 3)
        quality.requests.requests, quality.requests.succeeded = 5 + number, 5
        drift = told(DriftMeasured(observations=40 + number), number, minute=number // 4)
        cost = told(CostRecorded(model="small"), number, minute=number // 2)
        cost.amount.currency_code, cost.amount.nano_units = "EUR", 1_000 + number
        found += [quality, drift, cost]
    return [*found, found[-1]]


async def send(bootstrap: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        for event in events():
            record = encode(event)
            await producer.send_and_wait(record.topic, record.value, key=record.key, headers=record.headers)


def replayed(environment: dict[str, str], export: Path) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "sluice_insight.replay", "--export", str(export)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    return done.returncode, json.loads(done.stdout)


async def wait_until_read(target: str) -> None:
    """Until the live board has every ledger row but the copy."""
    asked = pb.QueryMetricsRequest()
    asked.query.metrics.append("cost.records")
    asked.query.window.FromSeconds(3600 * 24)
    asked.start_time.FromMicroseconds(BEGAN - 24 * HOUR)
    deadline, found = time.monotonic() + 60, 0.0
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = InsightServiceStub(channel)
        while found < 12 and time.monotonic() < deadline:
            answer = await stub.QueryMetrics(asked, wait_for_ready=True, timeout=60)
            found = sum(point.value for point in answer.points)
            await asyncio.sleep(0.1)
    assert found == 12


async def test_the_rebuilt_board_answers_as_the_live_one_and_twice_with_the_same_bytes(
    environment: dict[str, str], tmp_path: Path
) -> None:
    bootstrap = environment["SLUICE_KAFKA_BOOTSTRAP"]
    await broker.ensure_topics(MeshSettings(kafka_bootstrap=bootstrap, kafka_embedded=True))
    await send(bootstrap)
    command = [sys.executable, "-c", "from sluice_insight.main import main; main()"]
    with process(command, environment, tmp_path / "insight.log"):
        await wait_until_read(environment["SLUICE_INSIGHT_TARGET"])
        for name in ("one", "two"):
            code, report = await asyncio.to_thread(replayed, environment, tmp_path / name)
            assert (code, report["same"], report["events"]) == (0, True, len(events())), report
            assert report["difference"]["same"] > 12
    first = (tmp_path / "one").read_bytes()
    assert first == (tmp_path / "two").read_bytes()
    assert first.count(b"\n") == report["difference"]["same"]


async def test_a_live_board_that_missed_an_event_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    settings = MeshSettings(kafka_bootstrap=environment["SLUICE_KAFKA_BOOTSTRAP"], kafka_embedded=True)
    await broker.ensure_topics(settings)
    await send(settings.kafka_bootstrap)
    live = Rebuilt(24 * HOUR)
    async with OrderedReader.opened(settings) as reader:
        spans = await reader.spans([topic_of(event).name for event in EVENTS])
        records = [record async for record in reader.records(spans)]
    missed = next(record for record in records if record.topic == topic_of(CostRecorded).name)
    for record in records:
        if record is not missed:
            await live.take(record)
    listen = InsightSettings(grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=0.1)
    server = GrpcServer(service="insight", settings=listen)
    add_InsightServiceServicer_to_server(InsightService(board=live.board, watchers=Watchers(limit=1)), server.grpc)
    await server.start(service_names=[SERVICE_NAME])
    target = {"SLUICE_INSIGHT_TARGET": f"127.0.0.1:{server.port}"}
    code, report = await asyncio.to_thread(replayed, environment | target, tmp_path / "one")
    await server.stop()
    assert code == 3
    difference = report["difference"]
    assert difference["different"] + difference["only_replayed"] >= 2
    assert any("cost.nano_units" in example for example in difference["examples"])


def test_a_switch_is_a_restart() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sluice_insight.replay", "--switch"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "restart insight" in done.stderr


def test_a_report_tells_what_was_skipped_by_reason() -> None:
    report = SkippingReport(into="again", skipped=Counter(UnusableCompletion=2))
    assert json.loads(report.as_json())["skipped"] == {"UnusableCompletion": 2}
