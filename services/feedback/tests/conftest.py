"""What the tests of the feedback service share: databases to run against, and a redaction service."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from sluice.redaction.v1 import redaction_service_pb2 as redaction_pb
from sluice.redaction.v1 import redaction_service_pb2_grpc as redaction_grpc
from sluice_feedback.adapters.database import Database, open_database


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server: SLUICE_TEST_POSTGRES_URL, or one started for these tests, or a skip."""
    if given := os.environ.get("SLUICE_TEST_POSTGRES_URL"):
        yield given
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("no PostgreSQL: set SLUICE_TEST_POSTGRES_URL, or install Debian's `postgresql`")
    yield from _throw_away_cluster(programs[-1])


def _throw_away_cluster(programs: Path) -> Iterator[str]:
    # PostgreSQL refuses to run as root.
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="sluice-pg-"))
    if user:
        shutil.chown(folder, "nobody", "nogroup")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
    cluster = str(folder / "data")
    subprocess.run(
        [programs / "initdb", "-D", cluster, "-A", "trust", "-U", "sluice", "--no-sync"], check=True, **quiet
    )
    settings = ("listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}", "fsync=off")
    options = [word for setting in settings for word in ("-c", setting)]
    server = start_with_tests([str(programs / "postgres"), "-D", cluster, *options], **quiet)
    url = f"postgresql://sluice@127.0.0.1:{port}/postgres"
    try:
        _wait_for(url)
        yield url
    finally:
        server.kill()
        server.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def start_with_tests(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Starts a process that the kernel ends with this one, however this one ends (where there is `setpriv`)."""
    # Not by preexec_fn: that makes Python fork, which gRPC's threads do not survive.
    leash = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
    return subprocess.Popen([*leash, *command], text=True, **options)


@pytest.fixture
def start_process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts processes that end with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        started.append(start_with_tests(command, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with the schema in it, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "feedback.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: str) -> str:
    """Name of a PostgreSQL database with the schema in it, to be used as a template."""
    name = f"template_{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
    _migrate(_within(postgres, name))
    return name


def _migrate(url: str) -> None:
    asyncio.run(open_database(url).close())


def _within(server: str, name: str) -> str:
    return server.rsplit("/", 1)[0].replace("postgresql://", "postgresql+psycopg://") + f"/{name}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "feedback.db")
        yield f"sqlite:///{tmp_path / 'feedback.db'}"
        return
    server, template = request.getfixturevalue("postgres"), request.getfixturevalue("migrated_postgres")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[call-overload]
        yield _within(server, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]


@pytest.fixture
async def database(database_url: str) -> Any:
    opened = Database(database_url)
    yield opened
    await opened.close()


class Redaction(redaction_grpc.RedactionServiceServicer):
    """Knows one name. Can be told to fail."""

    def __init__(self) -> None:
        self.answer: str | grpc.StatusCode = "redact"
        self.tenants: list[str] = []

    async def Redact(self, request: Any, context: grpc.aio.ServicerContext) -> redaction_pb.RedactResponse:
        self.tenants.append(dict(context.invocation_metadata() or ()).get("x-sluice-tenant-id", ""))
        if isinstance(self.answer, grpc.StatusCode):
            await context.abort(self.answer, "Jane Doe broke it")
        if self.answer == "nothing":
            return redaction_pb.RedactResponse()
        redacted = [
            redaction_pb.TextSegment(segment_id=one.segment_id, text=one.text.replace("Jane Doe", "<PERSON_1>"))
            for one in request.segments
        ]
        return redaction_pb.RedactResponse(segments=redacted)


@pytest.fixture
def redaction() -> Redaction:
    return Redaction()


@pytest.fixture
async def redaction_target(redaction: Redaction) -> AsyncIterator[str]:
    server = grpc.aio.server()
    redaction_grpc.add_RedactionServiceServicer_to_server(redaction, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)
