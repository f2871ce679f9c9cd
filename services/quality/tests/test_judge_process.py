"""The judge as the process it is: off by default, and from a completion on the broker to a judgement on the broker."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from sluice.events.v1.gateway_pb2 import (
    CONTENT_CAPTURE_REDACTED,
    REQUEST_OPERATION_CHAT,
    REQUEST_OUTCOME_COMPLETED,
    RequestCompleted,
)
from sluice.events.v1.quality_pb2 import AnswerJudged
from sluice_kit import broker
from sluice_kit.events import decode, encode, topic_of
from sluice_quality.settings import QualitySettings

_FOUND = importlib.util.find_spec("noida_db")
NOIDA = Path(_FOUND.origin or "").with_name("noida-db") if _FOUND else Path("noida-db is not installed")
COMMAND = [sys.executable, "-c", "from sluice_quality.main import judge; judge()"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**settings: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")} | settings


@contextlib.contextmanager
def process(command: list[str], settings: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        running = subprocess.Popen(command, env=environment(**settings), stdout=output, stderr=output)
    try:
        yield running
    finally:
        running.kill()
        running.wait(10)


def embedded_broker(port: int, folder: Path) -> list[str]:
    return [str(NOIDA), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(folder / "kafka")]


def completed(number: int) -> RequestCompleted:
    event = RequestCompleted(
        operation=REQUEST_OPERATION_CHAT, outcome=REQUEST_OUTCOME_COMPLETED, content_capture=CONTENT_CAPTURE_REDACTED,
        redacted_prompt="Which river is this?", redacted_answer="The Limmat.",
    )  # fmt: skip
    event.metadata.event_id, event.metadata.request_id = f"event-{number}", f"request-{number}"
    event.metadata.tenant_id = "acme"
    event.metadata.occurred_at.GetCurrentTime()
    return event


async def judgements(kafka: str, requests: int) -> list[AnswerJudged]:
    """What is on the topic as soon as so many requests are judged."""
    found: list[AnswerJudged] = []
    topic = topic_of(AnswerJudged).name
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        deadline = time.monotonic() + 90
        while len({event.metadata.request_id for event in found}) < requests and time.monotonic() < deadline:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    event = decode(record.topic, record.value, record.headers)
                    assert isinstance(event, AnswerJudged)
                    found.append(event)
    return found


def test_no_answer_is_judged_unless_somebody_sets_a_rate(tmp_path: Path) -> None:
    ended = subprocess.run(
        COMMAND, env=environment(SLUICE_HOME=str(tmp_path)), capture_output=True, text=True, timeout=90, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.strip().endswith("set SLUICE_QUALITY_JUDGE_RATE or SLUICE_QUALITY_JUDGE_RATES.")


@pytest.mark.parametrize("rates", ['{"acme": 2}', "much"])
def test_a_rate_that_is_none_is_named(rates: str, tmp_path: Path) -> None:
    settings = environment(SLUICE_HOME=str(tmp_path), SLUICE_QUALITY_JUDGE_RATES=rates)
    ended = subprocess.run(COMMAND, env=settings, capture_output=True, text=True, timeout=90, check=False)
    assert ended.returncode == 2
    assert "SLUICE_QUALITY_JUDGE_RATES" in ended.stderr


def health(port: int) -> tuple[int, dict[str, bool]]:
    """What /healthz says; 0 while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return answer.status, json.load(answer)["checks"]
    except urllib.error.HTTPError as answer:
        return answer.code, json.load(answer)["checks"]
    except OSError:
        return 0, {}


async def becomes(port: int, status: int) -> dict[str, bool]:
    """The checks as soon as /healthz has that status."""
    deadline = time.monotonic() + 90
    while (found := await asyncio.to_thread(health, port))[0] != status and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    assert found[0] == status
    return found[1]


@pytest.mark.skipif(not NOIDA.exists(), reason="the embedded broker (noida-db) is not installed")
async def test_the_judge_is_healthy_when_it_has_its_partitions_and_not_before(tmp_path: Path) -> None:
    kafka, metrics = free_port(), free_port()
    settings = {
        "SLUICE_HOME": str(tmp_path), "SLUICE_KAFKA_BOOTSTRAP": f"127.0.0.1:{kafka}", "SLUICE_KAFKA_EMBEDDED": "true",
        "SLUICE_KEY_STORE": "off", "SLUICE_QUALITY_JUDGE_RATE": "1",
        "SLUICE_QUALITY_JUDGE_METRICS_LISTEN": f"127.0.0.1:{metrics}",
    }  # fmt: skip
    with process(COMMAND, settings, tmp_path / "judge.log"):
        assert await becomes(metrics, 503) == {"kafka": False}
        with process(embedded_broker(kafka, tmp_path), {}, tmp_path / "kafka.log"):
            assert await becomes(metrics, 200) == {"kafka": True}


@pytest.mark.skipif(not NOIDA.exists(), reason="the embedded broker (noida-db) is not installed")
async def test_a_judge_that_is_away_is_told_and_holds_nobody_up_and_a_restart_goes_on(tmp_path: Path) -> None:
    port = free_port()
    kafka = f"127.0.0.1:{port}"
    settings = {
        "SLUICE_HOME": str(tmp_path), "SLUICE_KAFKA_BOOTSTRAP": kafka, "SLUICE_KAFKA_EMBEDDED": "true",
        "SLUICE_KEY_STORE": "off", "SLUICE_INFERENCE_TARGET": "127.0.0.1:1",  # nobody can listen there
        "SLUICE_QUALITY_JUDGE_RATES": '{"acme": 1.0}',
    }  # fmt: skip
    with process(embedded_broker(port, tmp_path), {}, tmp_path / "kafka.log"):
        configured = QualitySettings(SLUICE_KAFKA_BOOTSTRAP=kafka, SLUICE_KAFKA_EMBEDDED=True)  # type: ignore[call-arg]
        await broker.ensure_topics(configured)
        for first in (0, 2):  # the second judge goes on where the killed one was
            with process(COMMAND, settings, tmp_path / "judge.log") as judge:
                async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all") as producer:
                    for number in (first, first + 1):
                        record = encode(completed(number))
                        await producer.send_and_wait(record.topic, record.value, key=record.key, headers=record.headers)
                found = await judgements(kafka, first + 2)
                if first:
                    judge.send_signal(signal.SIGTERM)
                    assert await asyncio.to_thread(judge.wait, 30) == 0
    log = (tmp_path / "judge.log").read_text()
    assert {event.metadata.request_id for event in found} == {f"request-{number}" for number in range(4)}, log[-2000:]
    # The killed judge had not committed what it judged: it is judged again, under the same id.
    assert len({event.metadata.event_id for event in found}) == 4
    assert {(event.failure, event.score_milli, event.metadata.tenant_id) for event in found} == {
        ("unavailable", 0, "acme")
    }
    assert "Limmat" not in log
