"""What the tests of the cost service share: databases to run against, and completions to enter."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from sluice.cost.v1 import cost_service_pb2_grpc as pb_grpc
from sluice_cost.adapters.cost_events import encode
from sluice_cost.adapters.database import Database, open_database
from sluice_cost.adapters.sql_budgets import SqlBudgets
from sluice_cost.adapters.sql_chain import SqlChainVerifier
from sluice_cost.adapters.sql_holds import SqlHolds
from sluice_cost.adapters.sql_ledger import SqlLedger
from sluice_cost.adapters.sql_prices import SqlPrices
from sluice_cost.adapters.sql_recompute import SqlRecomputer
from sluice_cost.adapters.sql_rows import SqlEntries
from sluice_cost.adapters.sql_spend import SqlSpend
from sluice_cost.api import CostServicer
from sluice_cost.domain.ledger import Completion, Partition
from sluice_cost.domain.pricing import Price
from sluice_cost.domain.usage import Usage
from sluice_cost.settings import CostSettings
from sluice_kit.server import GrpcServer

TOPIC = "sluice.gateway.request_completed.v1"
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


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
    path = tmp_path_factory.mktemp("migrated") / "cost.db"
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
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "cost.db")
        yield f"sqlite:///{tmp_path / 'cost.db'}"
        return
    server, template = request.getfixturevalue("postgres"), request.getfixturevalue("migrated_postgres")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")  # type: ignore[call-overload]
        yield _within(server, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind without any schema."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    server, name = request.getfixturevalue("postgres"), f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        yield _within(server, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[call-overload]


@pytest.fixture
async def database(database_url: str) -> Any:
    opened = Database(database_url)
    yield opened
    await opened.close()


def price(model: str = "small", **amounts: Any) -> Price:
    """Nano-units per million tokens, so 1 token of input is 2,000 nano-units and 1 of output 5,000."""
    defaults: dict[str, Any] = {
        "currency": "USD",
        "effective_from": NOON - timedelta(days=100),
        "uncached_input": 2_000_000_000,
        "cached_input": 1_000_000_000,
        "cache_write": 3_000_000_000,
        "output": 5_000_000_000,
        "reasoning": 7_000_000_000,
        "approved_by": "test",
    }
    return Price(model=model, **{**defaults, **amounts})


@pytest.fixture
def make_price() -> Callable[..., Price]:
    return price


@pytest.fixture
def make_completion() -> Callable[..., Completion]:
    """Makes the n-th completion: 10 tokens in, 4 out, so 40,000 nano-units at `price()`."""

    def make(number: int, **changes: Any) -> Completion:
        values: dict[str, Any] = {
            "event_id": f"event-{number}",
            "occurred_at": NOON + timedelta(seconds=number),
            "request_id": f"request-{number}",
            "tenant_id": "acme",
            "project_id": "shop",
            "subject_id": "",
            "api_key_id": "key-1",
            "operation": "chat",
            "model": "alias",
            "served_model": "small",
            "route": "alias/small",
            "outcome": "completed",
            "usage": Usage(uncached_input_tokens=10, output_tokens=4),
            "is_synthetic": False,
            "traceparent": "",
            "partition": Partition(TOPIC, number % 4),
            "offset": number // 4,
        }
        return Completion(**{**values, **changes})

    return make


@pytest.fixture
async def stub(
    database: Database, make_price: Callable[..., Price], make_completion: Callable[..., Completion], tmp_path: Any
) -> AsyncIterator[Any]:
    """CostService over real gRPC, with four requests in its ledger."""
    prices = SqlPrices(database, default_currency="USD")
    await prices.put(make_price(), recorded_at=NOON)
    completions = [
        make_completion(1),
        make_completion(2, tenant_id="umbrella"),
        make_completion(3, served_model="unheard-of"),
        make_completion(4, is_synthetic=True),
    ]
    ledger = SqlLedger(database, default_currency="USD")
    await ledger.append(completions, {Partition("t", 1): 9}, recorded_at=NOON, encode=encode)
    settings = CostSettings(home=tmp_path, grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=0)
    server = GrpcServer(service="cost", settings=settings)
    now = lambda: NOON + timedelta(minutes=10)  # noqa: E731
    servicer = CostServicer(
        spend=SqlSpend(database),
        prices=prices,
        budgets=SqlBudgets(database),
        holds=SqlHolds(database, default_currency="USD", expired_grace=timedelta(hours=1), clock=now),
        verifier=SqlChainVerifier(database),
        recomputer=SqlRecomputer(database, default_currency="USD", encode=encode),
        entries=SqlEntries(database),
        clock=now,
    )
    pb_grpc.add_CostServiceServicer_to_server(servicer, server.grpc)
    await server.start(service_names=["sluice.cost.v1.CostService"])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield pb_grpc.CostServiceStub(channel)
    await server.stop()
