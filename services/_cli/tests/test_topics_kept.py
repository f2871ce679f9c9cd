"""How long an Apache Kafka keeps topics: set when they are made, and on those that exist when the operator's file changes."""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from sluice_cli.mesh import apache
from sluice_cli.mesh.home import Home
from sluice_cli.topics import KeptTopic, kept_topics
from sluice_kit.broker import client_options, ensure_topics, topic_options
from sluice_kit.process import StartFailed
from sluice_kit.settings import MeshSettings

COMPLETED = "sluice.gateway.request_completed.v1"
DAY, HOUR = 86_400_000, 3_600_000


def _free_port() -> int:
    """A port whose successor is free as well: the controller takes it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshSettings]:
    try:
        libraries = apache.resolve(print)
    except apache.CannotRun as reason:
        pytest.skip(f"Apache Kafka cannot run here: {reason}")
    home, port = Home(tmp_path_factory.mktemp("kafka")), _free_port()
    home.prepare()
    program = apache.program(home, port, libraries)
    leash = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
    environment = {**os.environ, **program.environment}
    with subprocess.Popen(
        [*leash, *program.command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield MeshSettings(home=home.path, kafka_bootstrap=f"127.0.0.1:{port}")
        process.kill()


def kept(settings: MeshSettings) -> dict[str, KeptTopic]:
    return {topic.name: topic for topic in asyncio.run(kept_topics(settings))}


def eventually(holds: Callable[[], bool]) -> None:
    """A change of a topic reaches the broker from its controller a moment later."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.1)


def with_file(settings: MeshSettings, folder: Path, text: str) -> MeshSettings:
    (folder / "retention.yaml").write_text(text)
    return settings.model_copy(update={"topic_retention_file": folder / "retention.yaml"})


async def _options_of(settings: MeshSettings, name: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        return (await topic_options(admin, [name]))[name]
    finally:
        await admin.close()


async def _set(settings: MeshSettings, name: str, options: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(**client_options(settings))
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, options)])
    finally:
        await admin.close()


def test_topics_are_kept_as_the_contracts_say_then_as_the_operator_says_and_back(
    kafka: MeshSettings, tmp_path: Path
) -> None:
    assert COMPLETED in asyncio.run(ensure_topics(kafka))
    assert all(topic.exists and topic.is_as_wanted for topic in kept(kafka).values())
    assert kept(kafka)[COMPLETED].kept_ms == 30 * DAY

    shorter = with_file(kafka, tmp_path, "topics: {RequestCompleted: 2d}")
    assert not kept(shorter)[COMPLETED].is_as_wanted
    assert asyncio.run(ensure_topics(shorter)) == []
    eventually(lambda: all(topic.is_as_wanted for topic in kept(shorter).values()))
    assert (kept(shorter)[COMPLETED].kept_ms, kept(shorter)[f"{COMPLETED}.dlq"].kept_ms) == (2 * DAY, 2 * DAY)
    assert asyncio.run(_options_of(kafka, COMPLETED))["segment.ms"] == str(6 * HOUR)

    asyncio.run(ensure_topics(kafka))
    eventually(lambda: all(topic.is_as_wanted for topic in kept(kafka).values()))
    assert kept(kafka)[COMPLETED].kept_ms == 30 * DAY


def test_what_an_operator_set_on_a_topic_besides_stays(kafka: MeshSettings, tmp_path: Path) -> None:
    asyncio.run(ensure_topics(kafka))
    before = asyncio.run(_options_of(kafka, COMPLETED))
    asyncio.run(_set(kafka, COMPLETED, before | {"max.message.bytes": "2000000"}))
    eventually(lambda: "max.message.bytes" in asyncio.run(_options_of(kafka, COMPLETED)))
    asyncio.run(ensure_topics(with_file(kafka, tmp_path, "topics: {RequestCompleted: 3d}")))
    eventually(lambda: kept(kafka)[COMPLETED].kept_ms == 3 * DAY)
    after = asyncio.run(_options_of(kafka, COMPLETED))
    assert (after["max.message.bytes"], after["cleanup.policy"]) == ("2000000", "delete")
    assert after["retention.ms"] == str(3 * DAY)


def test_a_file_with_a_mistake_changes_nothing(kafka: MeshSettings, tmp_path: Path) -> None:
    asyncio.run(ensure_topics(kafka))
    eventually(lambda: all(topic.is_as_wanted for topic in kept(kafka).values()))
    with pytest.raises(StartFailed, match="allow_longer"):
        asyncio.run(ensure_topics(with_file(kafka, tmp_path, "topics: {RequestCompleted: 400d}")))
    assert all(topic.is_as_wanted for topic in kept(kafka).values())
