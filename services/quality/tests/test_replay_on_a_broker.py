"""A replay as it is run, on a real broker: twice the same bytes, what is wrong is found, and corrected once it is nobody's."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from sluice.events.v1.gateway_pb2 import REQUEST_OUTCOME_COMPLETED, RequestCompleted
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice_kit import broker
from sluice_kit.events import encode, topic_of
from sluice_kit.ordered import OrderedReader
from sluice_kit.streams.windows_replayed import count
from sluice_quality.adapters import records
from sluice_quality.domain.watermark import Marks
from sluice_quality.replay import replay_of
from sluice_quality.settings import QualitySettings

# The program itself: its Python wrapper would be stopped and leave it running.
_FOUND = find_spec("noida_db")
NOIDA = Path(_FOUND.origin or "").with_name("noida-db") if _FOUND else Path("noida-db is not installed")
pytestmark = pytest.mark.skipif(not NOIDA.exists(), reason="the embedded broker (noida-db) is not installed")

BEGAN = 1_760_000_040
PARTITIONS = topic_of(RequestCompleted).partitions


@pytest.fixture()
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [str(NOIDA), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(tmp_path / "kafka")]
    with (tmp_path / "kafka.log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield {
            "SLUICE_HOME": str(tmp_path),
            "SLUICE_KAFKA_BOOTSTRAP": f"127.0.0.1:{port}",
            "SLUICE_KAFKA_EMBEDDED": "true",
        }
    finally:
        running.kill()
        running.wait(5)


def settings_of(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> QualitySettings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return QualitySettings()


def completions() -> list[RequestCompleted]:
    """Six minutes of requests."""
    found = []
    for number in range(60):
        event = RequestCompleted(outcome=REQUEST_OUTCOME_COMPLETED, model="small", output_characters=number)
        event.metadata.event_id, event.metadata.request_id = f"event-{number}", f"request-{number}"
        event.metadata.tenant_id = "acme"
        event.metadata.occurred_at.FromSeconds(BEGAN + 6 * number)
        found.append(event)
    return found


async def send(environment: dict[str, str], events: list[Any]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=environment["SLUICE_KAFKA_BOOTSTRAP"], acks="all") as producer:
        for event in events:
            record = encode(event)
            await producer.send_and_wait(record.topic, record.value, key=record.key, headers=record.headers)


async def remember(settings: QualitySettings, *, forgotten_before: int) -> None:
    """As a processor does that has forgotten everything up to a moment."""
    topic = f"{settings.group}-windows-changelog"
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all") as producer:
        for number in range(PARTITIONS):
            marks = Marks(number, forgotten_before=forgotten_before * 1_000_000)
            await producer.send_and_wait(topic, records.encode(marks), key=marks.key.encode())


def replayed(environment: dict[str, str], *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "sluice_quality.replay", *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    return done.returncode, json.loads(done.stdout)


async def published(settings: QualitySettings, tmp_path: Path) -> list[QualityMeasured]:
    """The windows as a processor would have published them, all closed."""
    counted = await count(replay_of(settings), begin="", export=tmp_path / "published")
    windows = [counted.replayed[key] for key in sorted(counted.replayed)]
    for window in windows:
        window.part.closed, window.metadata.event_id = True, f"window-{window.part.part_key}"
    return windows


async def test_windows_are_counted_twice_to_the_same_bytes_and_corrected_where_the_processor_cannot(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(environment, monkeypatch)
    await broker.ensure_topics(settings)
    await send(environment, completions())  # of long ago: every window is closed
    windows = await published(settings, tmp_path)
    early, missing, doubled, *_, wrong = sorted(windows, key=lambda window: window.window.start.ToSeconds())
    wrong.requests.requests += 1
    early.requests.requests += 1
    invented = QualityMeasured()
    invented.CopyFrom(doubled)
    invented.part.part_key += "0"
    await send(environment, [*(window for window in windows if window is not missing), invented])

    code, report = await asyncio.to_thread(replayed, environment, "--export", str(tmp_path / "one"))
    difference = report["difference"]
    assert (code, difference["different"], difference["only_live"], difference["only_replayed"]) == (3, 2, 1, 1)

    # The processor still remembers the last of them: it is left alone.
    await remember(settings, forgotten_before=wrong.window.start.ToSeconds())
    options = ("--switch", "--accept-differences", "--export", str(tmp_path / "two"))
    code, report = await asyncio.to_thread(replayed, environment, *options)
    held = sum(1 for window in (wrong, early, missing, invented) if window.window.start == wrong.window.start)
    assert (code, report["corrected"], report["held"]) == (3, 4 - held, held)

    await remember(settings, forgotten_before=BEGAN + 7000)
    code, report = await asyncio.to_thread(replayed, environment, *options)
    assert (code, report["corrected"], report["held"]) == (0, held, 0)
    code, report = await asyncio.to_thread(replayed, environment, "--export", str(tmp_path / "three"))
    assert (code, report["same"], report["difference"]["same"]) == (0, True, len(windows) + 1)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == (tmp_path / "three").read_bytes()
    await check_what_stands(settings, wrong=wrong, invented=invented)


async def check_what_stands(settings: QualitySettings, *, wrong: QualityMeasured, invented: QualityMeasured) -> None:
    """Readers of the topic take the correction: its revision is the highest."""
    counted = await count(replay_of(settings), begin="", export=settings.data_dir / "again")
    stands = counted.live[wrong.part.part_key]
    assert stands.part.revision > wrong.part.revision
    assert stands.requests.requests == wrong.requests.requests - 1
    assert stands.metadata.producer.startswith("sluice-quality/replay")
    assert counted.live[invented.part.part_key].requests.requests == 0
    async with OrderedReader.opened(settings) as reader:
        spans = await reader.spans([topic_of(QualityMeasured).name])
        assert sum(span.end for span in spans.values()) > len(counted.live)
