"""A real broker (embedded) and a real schema registry (Apicurio, over Maven and Java) for the contracts with other teams."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from confluent_kafka import Consumer
from sluice_cli.mesh import embedded
from sluice_cli.mesh.home import Home
from sluice_kit.settings import MeshSettings

REGISTRY = "io.apicurio:apicurio-registry-app:2.6.13.Final:tar.gz:all"
REGISTRY_FILE = "apicurio-registry-app-2.6.13.Final-all.tar.gz"
REGISTRY_SHA256 = "3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba"
START_SECONDS = 60


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not start within {START_SECONDS} s"
        time.sleep(0.1)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


def run(command: list[str], what: str, ready: Callable[[], bool], **options: object) -> Iterator[None]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(command, **(quiet | options))
    try:
        wait_until(ready, what)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


@pytest.fixture
def kafka(tmp_path) -> Iterator[MeshSettings]:
    """An empty embedded broker, as settings."""
    port, home = free_port(), tmp_path / "home"
    (home / "broker").mkdir(parents=True)
    program = embedded.program(Home(home / "broker"), port)
    for _ in run(list(program.command), "the embedded broker", lambda: listens(port)):
        yield MeshSettings(home=home, kafka_bootstrap=f"127.0.0.1:{port}", kafka_embedded=True)


def _registry_archive() -> Path:
    cache = Path(os.environ.get("SLUICE_CACHE") or platformdirs.user_cache_dir("sluice"))
    archive = cache / REGISTRY_FILE
    if not archive.exists() or hashlib.sha256(archive.read_bytes()).hexdigest() != REGISTRY_SHA256:
        command = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={REGISTRY}", f"-DoutputDirectory={cache}"]
        cache.mkdir(parents=True, exist_ok=True)
        fetched = subprocess.run(command, cwd=cache, capture_output=True, timeout=300, check=False)
        if fetched.returncode:
            pytest.skip("Maven cannot fetch the schema registry (offline?)")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == REGISTRY_SHA256
    return archive


@pytest.fixture(scope="session")
def registry_url(tmp_path_factory) -> Iterator[str]:
    """Apicurio Registry, in memory, by its interface that is compatible with Confluent's."""
    if not (shutil.which("java") and shutil.which("mvn")):
        pytest.skip("a schema registry needs Java 17 and Maven")
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    shutil.unpack_archive(_registry_archive(), folder, filter="data")
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"

    def ready() -> bool:
        try:
            return urllib.request.urlopen(f"{url}/subjects", timeout=2).status == 200
        except OSError:
            return False

    command = ["java", "-Xmx300m", f"-Dquarkus.http.port={port}", "-Dquarkus.http.host=127.0.0.1", "-jar"]
    jar = next(folder.glob("*-runner.jar"))
    for _ in run([*command, str(jar)], "the schema registry", ready, cwd=folder):
        yield url
    shutil.rmtree(folder)


@pytest.fixture
def confluent_records() -> Callable[[MeshSettings, list[str], int], list[Any]]:
    """Records as a plain client of somebody else's (librdkafka) reads them: topics, and how many there must be."""
    return _confluent_records


def _confluent_records(settings: MeshSettings, topics: list[str], count: int) -> list[Any]:
    group = {"group.id": "confluent", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap, **group})
    consumer.subscribe(topics)
    records: list[Any] = []
    deadline = time.monotonic() + START_SECONDS
    try:
        while len(records) < count:
            assert time.monotonic() < deadline, f"{len(records)} of {count} records within {START_SECONDS} s"
            record = consumer.poll(0.2)
            if record is not None and record.error() is None:
                records.append(record)
    finally:
        consumer.close()
    return records
