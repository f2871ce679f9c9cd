"""Real worker processes on a real broker: killed in the middle, every observation counts once, and drift is found."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from sluice.events.v1 import drift_pb2
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.gateway_pb2 import REQUEST_OUTCOME_COMPLETED, RequestCompleted
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice_drift.adapters.pinning import known
from sluice_drift.domain.observation import Series
from sluice_drift.settings import DriftSettings
from sluice_kit import broker
from sluice_kit.events import decode, encode, topic_of

# The program itself: its Python wrapper would be stopped and leave it running.
_FOUND = find_spec("noida_db")
NOIDA = Path(_FOUND.origin or "").with_name("noida-db") if _FOUND else Path("noida-db is not installed")
pytestmark = pytest.mark.skipif(not NOIDA.exists(), reason="the embedded broker (noida-db) is not installed")

SECOND = 1_000_000
WINDOW = 300 * SECOND
BASE = 1_760_000_100 * SECOND
REFERENCE = 100
EACH_WINDOW = 150
TENANTS = ("acme", "")
"""The series of the tenant, and of all tenants together."""
Windows = dict[tuple[str, int], DriftMeasured]


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


@pytest.fixture()
def kafka(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [str(NOIDA), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(tmp_path / "kafka")]
    with process(command, {}, tmp_path / "kafka.log"):
        yield f"127.0.0.1:{port}"


def generation(rng: np.random.Generator, number: int, *, at: int, drifted: bool) -> InferenceMeasured:
    version = "greeting@3" if drifted else "greeting@2"
    event = InferenceMeasured(model="small", model_digest="sha256:m", prompt_version=version)
    event.metadata.event_id = f"event-{number}"
    event.metadata.request_id = f"request-{number}"
    event.metadata.tenant_id = "acme"
    event.metadata.occurred_at.FromMicroseconds(at)
    for profile in (event.prompt_profile, event.answer_profile):
        profile.language = rng.choice(["en", "de"], p=[0.3, 0.7] if drifted else [0.8, 0.2])
        profile.words = int(rng.integers(5, 40))
        vector = rng.standard_normal(64) + (1.0 if drifted else 0.0) * np.eye(64)[3] * 4
        profile.embedding.extend((vector / np.linalg.norm(vector)).tolist())
        profile.embedding_model_digest = "sha256:a"
    return event


def completed(generation: InferenceMeasured) -> RequestCompleted:
    """The request that the generation was made for: one in ten is refused."""
    number = int(generation.metadata.request_id.rpartition("-")[2])
    event = RequestCompleted(model="alias", served_model="small", outcome=REQUEST_OUTCOME_COMPLETED)
    event.metadata.CopyFrom(generation.metadata)
    event.metadata.event_id = f"completed-{number}"
    event.refusal = number % 10 == 0
    return event


def traffic() -> list[InferenceMeasured]:
    """A reference and two quiet windows, then one with another language and other topics."""
    rng = np.random.default_rng(5)
    events = []
    for window in range(4):
        for position in range(REFERENCE if window == 0 else EACH_WINDOW):
            at = BASE + window * WINDOW + position * SECOND
            events.append(generation(rng, len(events), at=at, drifted=window == 3))
    return events


async def send(kafka: str, events: list[InferenceMeasured]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
        for event in events:
            for message in (event, completed(event)):
                record = encode(message)
                await producer.send(record.topic, record.value, key=record.key, headers=record.headers)
        await producer.flush()


async def wait_for_health(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            status = await reader.readline()
            writer.close()
            await writer.wait_closed()
            if b" 200 " in status:
                return
        await asyncio.sleep(0.1)
    raise TimeoutError("the worker did not become ready")


async def read_until(consumer: AIOKafkaConsumer, windows: Windows, observations: int) -> None:
    """Read windows until they hold so many observations."""
    deadline = time.monotonic() + 40
    while min(total(windows, tenant) for tenant in TENANTS) < observations and time.monotonic() < deadline:
        for records in (await consumer.getmany(timeout_ms=300)).values():
            for record in records:
                event = decode(record.topic, record.value, record.headers)
                assert isinstance(event, DriftMeasured)
                identity = event.series.tenant_id, event.window.start.ToMicroseconds()
                known = windows.get(identity)
                if known is None or event.part.revision >= known.part.revision:
                    windows[identity] = event


def total(windows: Windows, tenant: str) -> int:
    return sum(each.observations for (whose, _), each in windows.items() if whose == tenant)


@pytest.mark.parametrize("runner", ["faust", "plain"])
async def test_a_killed_worker_counts_every_observation_once_and_finds_the_drift(
    kafka: str, tmp_path: Path, runner: str
) -> None:
    port = free_port()
    environment = {
        "SLUICE_STREAMS_RUNNER": runner,
        "SLUICE_HOME": str(tmp_path),
        "SLUICE_KAFKA_BOOTSTRAP": kafka,
        "SLUICE_KAFKA_EMBEDDED": "true",
        "SLUICE_DRIFT_WEB_LISTEN": f"127.0.0.1:{port}",
        "SLUICE_DRIFT_REFERENCE_OBSERVATIONS": str(REFERENCE),
        "SLUICE_DRIFT_RETENTION_SECONDS": "86400",
    }
    settings = DriftSettings(SLUICE_KAFKA_BOOTSTRAP=kafka, SLUICE_KAFKA_EMBEDDED=True)  # type: ignore[call-arg]
    await broker.ensure_topics(settings)
    command = [sys.executable, "-c", "from sluice_drift.main import main; main()"]
    events = traffic()
    windows: Windows = {}
    topic = topic_of(DriftMeasured).name
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        with process(command, environment, tmp_path / "drift.log") as first:
            await wait_for_health(port)
            await send(kafka, events[: REFERENCE + EACH_WINDOW])
            await read_until(consumer, windows, REFERENCE + EACH_WINDOW // 2)
            first.send_signal(signal.SIGKILL)
            await send(kafka, events[REFERENCE + EACH_WINDOW :])
            first.wait(5)
        with process(command, environment, tmp_path / "drift.log"):
            await wait_for_health(port)
            await read_until(consumer, windows, len(events))
            await read_until_settled(consumer, windows)
    await asyncio.to_thread(check_a_replay, environment, tmp_path, len(windows))
    log = (tmp_path / "drift.log").read_text()[-3000:]
    for tenant in TENANTS:
        check_windows([each for (whose, _), each in sorted(windows.items()) if whose == tenant], len(events), log)


async def test_a_reference_is_pinned_anew_by_command_through_a_kill(kafka: str, tmp_path: Path) -> None:
    port = free_port()
    environment = {
        "SLUICE_HOME": str(tmp_path),
        "SLUICE_KAFKA_BOOTSTRAP": kafka,
        "SLUICE_KAFKA_EMBEDDED": "true",
        "SLUICE_DRIFT_WEB_LISTEN": f"127.0.0.1:{port}",
        "SLUICE_DRIFT_REFERENCE_OBSERVATIONS": str(REFERENCE),
        "SLUICE_DRIFT_RETENTION_SECONDS": "86400",
    }
    settings = DriftSettings(SLUICE_KAFKA_BOOTSTRAP=kafka, SLUICE_KAFKA_EMBEDDED=True)  # type: ignore[call-arg]
    await broker.ensure_topics(settings)
    command = [sys.executable, "-c", "from sluice_drift.main import main; main()"]
    events, before = traffic(), REFERENCE + EACH_WINDOW
    windows: Windows = {}
    topic = topic_of(DriftMeasured).name
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        with process(command, environment, tmp_path / "drift.log") as first:
            await wait_for_health(port)
            await send(kafka, events[:before])
            await read_until(consumer, windows, before)
            await read_until_settled(consumer, windows)
            assert "no series" in await asyncio.to_thread(pinned_anew, environment, "smal", code=1)
            told = json.loads(await asyncio.to_thread(pinned_anew, environment, "small", code=0))
            assert (told["version"], told["replaces"]) == (2, 1)
            await send(kafka, events[before : before + EACH_WINDOW // 2])
            await read_until(consumer, windows, before + 1)
            first.send_signal(signal.SIGKILL)
            await send(kafka, events[before + EACH_WINDOW // 2 : before + EACH_WINDOW])
            first.wait(5)
        with process(command, environment, tmp_path / "drift.log"):
            await wait_for_health(port)
            await wait_for_version(DriftSettings(**environment), 2)  # type: ignore[arg-type]
            await send(kafka, events[before + EACH_WINDOW :])
            await read_until(consumer, windows, len(events))
            await read_until_settled(consumer, windows)
    await asyncio.to_thread(check_a_replay, environment, tmp_path, len(windows))
    told_by = [each for (whose, _), each in sorted(windows.items()) if whose == "acme"]
    assert sum(each.observations for each in told_by) == len(events)
    assert [each.reference.version for each in told_by] == [1, 1, 1, 2]
    assert [bool(each.reference.command_id) for each in told_by] == [False, False, False, True]
    assert told_by[-1].verdict == drift_pb2.DRIFT_VERDICT_DRIFTED
    assert {each.reference.version for (whose, _), each in windows.items() if not whose} == {1}


async def wait_for_version(settings: DriftSettings, version: int) -> None:
    """Until it is the one in use: it needs requests as well as texts."""
    deadline = time.monotonic() + 40
    while (await known(settings, "sluice-drift-series-changelog"))[Series("acme", "small")].current.version != version:
        assert time.monotonic() < deadline, "the new version did not take over"
        await asyncio.sleep(0.3)


def pinned_anew(environment: dict[str, str], model: str, *, code: int) -> str:
    """What the command prints: its JSON, or why not."""
    command = [sys.executable, "-m", "sluice_drift.main", "pin", model, "--tenant", "acme"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


def check_windows(ordered: list[DriftMeasured], events: int, log: str) -> None:
    """Every observation once; drift in the last window alone, put down to the new version of the prompt."""
    assert sum(each.observations for each in ordered) == events, log
    assert {(each.reference.version, each.reference.pinned, each.reference.observations) for each in ordered} == {
        (1, True, REFERENCE)
    }
    assert {(each.reference.requests, each.reference.requests_pinned) for each in ordered} == {(REFERENCE, True)}
    counted = [each for window in ordered for each in window.features if each.feature == "request.outcome"]
    assert sum(each.observations for each in counted) == events - REFERENCE, log
    last = ordered[-1]
    assert last.verdict == drift_pb2.DRIFT_VERDICT_DRIFTED
    drifted = {each.feature for each in last.features if each.verdict == drift_pb2.DRIFT_VERDICT_DRIFTED}
    topics = {"prompt.topic", "answer.topic"}  # cut from the same embeddings, so they may move with them
    assert drifted - topics == {"prompt.language", "answer.language", "prompt.embedding", "answer.embedding"}
    assert all(each.verdict != drift_pb2.DRIFT_VERDICT_DRIFTED for each in ordered[:-1])
    assert {each.feature for each in last.causes} == drifted
    for feature in drifted:
        [first, *_] = [each for each in last.causes if each.feature == feature]
        assert (first.dimension, first.slice) == ("prompt_version", "greeting@3"), last.causes
        assert first.share > 0.95
    assert not any(each.causes for each in ordered[:-1])


def check_a_replay(environment: dict[str, str], folder: Path, windows: int) -> None:
    """Counted again from the log, in its own order: each window is the published one, but for the last, which is still open."""
    for name in ("one", "two"):
        command = [sys.executable, "-m", "sluice_drift.replay", "--export", str(folder / name)]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
        report = json.loads(done.stdout)
        assert (done.returncode, report["same"]) == (0, True), done.stdout + done.stderr
        assert report["difference"]["same"] == windows
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()


async def read_until_settled(consumer: AIOKafkaConsumer, windows: Windows) -> None:
    """One publishing interval more, so that every window's last revision is in."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(6):
            await read_until(consumer, windows, 10**9)
