"""Budgets are bounds: real gateways and the real cost service on a broker, a scripted model with fixed usage between them."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from sluice.cost.v1 import cost_service_pb2 as cost
from sluice.cost.v1 import cost_service_pb2_grpc as cost_rpc
from sluice.inference.v1 import inference_service_pb2 as inference
from sluice.moderation.v1 import moderation_service_pb2 as moderation
from sluice.redaction.v1 import redaction_service_pb2 as redaction
from sluice.types.v1 import finish_reason_pb2, money_pb2, usage_pb2, verdict_pb2
from sluice_gateway.domain.api_key import mint

pytestmark = pytest.mark.skipif(find_spec("noida_db") is None, reason="no embedded broker: noida-db is not installed")

CENT = 10_000_000
TOKENS = 100
"""Of every answer, and max_tokens of every request: ten cents."""
PRICE_BOOK = """
id: test
version: "1"
currency: USD
effective_from: 2026-01-01T00:00:00Z
approved_by: a test
models:
  scripted-1: {input_per_million: "0", output_per_million: "1000"}
"""
ENTRY = {
    "gateway": "from sluice_gateway.main import main; main()",
    "cost": "from sluice_cost.main import main; main()",
}


# --- neighbours whose answer and usage are fixed ---


async def _redact(body: bytes, _: Any) -> bytes:
    return redaction.RedactResponse(segments=redaction.RedactRequest.FromString(body).segments).SerializeToString()


async def _moderate(_: bytes, __: Any) -> bytes:
    return moderation.ModerateResponse(verdict=_allowed()).SerializeToString()


def _allowed() -> verdict_pb2.Verdict:
    return verdict_pb2.Verdict(decision_id="d", action=verdict_pb2.ACTION_ALLOW, policy_id="general", policy_version=1)


async def _redact_stream(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for body in requests:
        request = redaction.RedactStreamRequest.FromString(body)
        if request.WhichOneof("event") == "text":
            yield redaction.RedactStreamResponse(text=request.text).SerializeToString()
    yield redaction.RedactStreamResponse(finished=redaction.RedactStreamFinished()).SerializeToString()


async def _moderate_stream(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for body in requests:
        request = moderation.ModerateStreamRequest.FromString(body)
        if request.text:
            yield moderation.ModerateStreamResponse(text=request.text).SerializeToString()
    yield moderation.ModerateStreamResponse(verdict=_allowed()).SerializeToString()


async def _generate(body: bytes, _: Any) -> AsyncIterator[bytes]:
    tokens = min(TOKENS, inference.GenerateStreamRequest.FromString(body).spec.stopping.max_tokens)
    output = inference.OutputFinished(finish_reason=finish_reason_pb2.FINISH_REASON_LENGTH)
    usage = usage_pb2.TokenUsage(uncached_input_tokens=20, output_tokens=tokens)
    for message in (
        inference.GenerateStreamResponse(started=inference.GenerationStarted(model="scripted-1")),
        inference.GenerateStreamResponse(token=inference.TokenDelta(text="river ", token_count=tokens)),
        inference.GenerateStreamResponse(finished=inference.GenerationFinished(outputs=[output], usage=usage)),
    ):
        yield message.SerializeToString()


HANDLERS = {
    "sluice.redaction.v1.RedactionService": {
        "Redact": grpc.unary_unary_rpc_method_handler(_redact),
        "RedactStream": grpc.stream_stream_rpc_method_handler(_redact_stream),
    },
    "sluice.moderation.v1.ModerationService": {
        "Moderate": grpc.unary_unary_rpc_method_handler(_moderate),
        "ModerateStream": grpc.stream_stream_rpc_method_handler(_moderate_stream),
    },
    "sluice.inference.v1.InferenceService": {"GenerateStream": grpc.unary_stream_rpc_method_handler(_generate)},
}


# --- the processes ---


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Town:
    """Gateways, one cost service, one broker."""

    home: Path
    key: str
    sha256: str
    neighbours: str = ""
    kafka: str = ""
    cost_target: str = ""
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    gateways: dict[str, str] = field(default_factory=dict)

    def start_broker(self) -> None:
        port = _free_port()
        self.kafka = f"127.0.0.1:{port}"
        binary = str(files("noida_db") / "noida-db")
        data = str(self.home / "broker")
        self._start("broker", [binary, "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", data], {})

    def start_cost(self) -> None:
        (self.home / "prices.yaml").write_text(PRICE_BOOK)
        self.cost_target = f"127.0.0.1:{_free_port()}"
        own = {
            "SLUICE_HOME": str(self.home / "cost"),
            "SLUICE_COST_GRPC_LISTEN": self.cost_target,
            "SLUICE_COST_METRICS_LISTEN": "127.0.0.1:0",
            "SLUICE_COST_PRICE_BOOK_FILE": str(self.home / "prices.yaml"),
        }
        self._start("cost", [sys.executable, "-c", ENTRY["cost"]], own)

    def start_gateway(self, name: str) -> None:
        """Also again, after it was killed: the same instance with the same home."""
        home = self.home / name
        home.mkdir(exist_ok=True)
        limits = {"requests_per_minute": 10_000_000, "concurrency": 1000}
        configuration = {
            "version": 1,
            "tenants": [{"id": "acme", "limits": limits}],
            "api_keys": [{"id": "key", "sha256": self.sha256, "tenant": "acme"}],
            "models": [{"alias": "small", "target": "scripted-1"}],
        }
        (home / "gateway.yaml").write_text(json.dumps(configuration))
        port = _free_port()
        own = {
            "SLUICE_HOME": str(home),
            "SLUICE_INSTANCE": name,
            "SLUICE_GATEWAY_HTTP_LISTEN": f"127.0.0.1:{port}",
            "SLUICE_GATEWAY_GRPC_LISTEN": "127.0.0.1:0",
            "SLUICE_GATEWAY_METRICS_LISTEN": "127.0.0.1:0",
            # Tests may run on a busy machine: it is the bound that is tested here, not how fast it is found.
            "SLUICE_GATEWAY_BUDGET_SECONDS": "20",
            "SLUICE_GATEWAY_FILTER_SECONDS": "60",
            # Every answer costs ten cents or is refused: none is cut short, so that answers can be counted in cents.
            "SLUICE_GATEWAY_BUDGET_LEAST_OUTPUT_TOKENS": str(TOKENS),
            "SLUICE_COST_TARGET": self.cost_target,
            **{f"SLUICE_{each}_TARGET": self.neighbours for each in ("INFERENCE", "REDACTION", "MODERATION")},
        }
        self._start(name, [sys.executable, "-c", ENTRY["gateway"]], own)
        self.gateways[name] = f"http://127.0.0.1:{port}"

    def _start(self, name: str, command: list[str], own: dict[str, str]) -> None:
        mesh = {"SLUICE_KAFKA_BOOTSTRAP": self.kafka, "SLUICE_KAFKA_EMBEDDED": "true"}
        plain = {key: value for key, value in os.environ.items() if not key.startswith("SLUICE_")}
        with (self.home / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, env=plain | mesh | own, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait(timeout=20)

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=20)

    async def ask(self, client: httpx.AsyncClient, name: str) -> tuple[int, str]:
        """Status and reason of one request; status 0 when the gateway was killed under it."""
        body = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "max_tokens": TOKENS}
        headers = {"authorization": f"Bearer {self.key}"}
        try:
            answer = await client.post(f"{self.gateways[name]}/v1/chat/completions", json=body, headers=headers)
        except httpx.HTTPError:
            return 0, ""
        return answer.status_code, "" if answer.status_code == 200 else answer.json()["error"]["sluice"]["reason"]

    async def is_up(self, client: httpx.AsyncClient, name: str) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await client.get(f"{self.gateways[name]}/healthz")).status_code == 200
        return False

    async def all_up(self, client: httpx.AsyncClient) -> None:
        for name in self.gateways:
            await until(lambda name=name: self.is_up(client, name))


async def until(holds: Callable[[], Awaitable[Any]], seconds: float = 90) -> Any:
    """What `holds` gives once it is true, polled with a deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := await holds()):
        assert time.monotonic() < deadline, "it did not become true in time"
        await asyncio.sleep(0.1)
    return answer


@pytest.fixture
def stopped_town(tmp_path: Path) -> Iterator[Town]:
    town = Town(tmp_path, *mint("key"))
    try:
        yield town
    finally:
        town.stop()


@pytest_asyncio.fixture
async def town(stopped_town: Town) -> AsyncIterator[Town]:
    """A broker and the cost service; gateways are started by the tests."""
    server = grpc.aio.server()
    for name, handlers in HANDLERS.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    stopped_town.neighbours = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    stopped_town.start_broker()
    stopped_town.start_cost()
    yield stopped_town
    await server.stop(0)


class Books:
    """The cost service, asked by an operator."""

    def __init__(self, channel: Any) -> None:
        self._stub: Any = cost_rpc.CostServiceStub(channel)

    async def put_budget(self, cents: int) -> None:
        budget = cost.Budget(
            budget_id="acme",
            scope=cost.BUDGET_SCOPE_TENANT,
            tenant_ids=["acme"],
            limit=money_pb2.Money(currency_code="USD", nano_units=cents * CENT),
            window=cost.BUDGET_WINDOW_MONTH,
            enforcement=cost.BUDGET_ENFORCEMENT_HARD,
            approved_by="a test",
        )

        async def done() -> bool:
            try:
                await self._stub.PutBudget(cost.PutBudgetRequest(budget=budget), timeout=10)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
                return False
            return True

        await until(done)

    async def cents(self) -> tuple[float, float, float]:
        """Spent, held, and leased of what is held."""
        answer = await self._stub.GetBudget(cost.GetBudgetRequest(budget_id="acme"), timeout=20)
        return answer.spent.nano_units / CENT, answer.held.nano_units / CENT, answer.leased.nano_units / CENT


@pytest_asyncio.fixture
async def books(town: Town) -> AsyncIterator[Books]:
    async with grpc.aio.insecure_channel(town.cost_target) as channel:
        yield Books(channel)


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=400)) as made:
        yield made


@pytest.mark.parametrize("gateways", [1, 4])
async def test_a_hundred_at_once_of_ten_cents_against_five_dollars_are_exactly_fifty(
    town: Town, books: Books, client: httpx.AsyncClient, gateways: int
) -> None:
    await books.put_budget(cents=500)
    names = [f"gateway{number}" for number in range(gateways)]
    for name in names:
        town.start_gateway(name)
    await town.all_up(client)
    answers = await asyncio.gather(*(town.ask(client, names[number % gateways]) for number in range(100)))
    assert sorted(answers) == [(200, "")] * 50 + [(429, "BUDGET_EXHAUSTED")] * 50

    async def entered() -> bool:
        return await books.cents() == (500, 0, 0)

    await until(entered)


async def test_a_gateway_that_is_stopped_gives_back_what_it_had_leased(
    town: Town, books: Books, client: httpx.AsyncClient
) -> None:
    await books.put_budget(cents=100_000)
    town.start_gateway("gateway0")
    await town.all_up(client)

    async def has_leased() -> bool:
        assert set(await asyncio.gather(*(town.ask(client, "gateway0") for _ in range(8)))) == {(200, "")}
        return (await books.cents())[2] > 0

    await until(has_leased)
    town.processes["gateway0"].terminate()
    assert town.processes["gateway0"].wait(timeout=30) == 0

    async def is_free() -> bool:
        _, held, _ = await books.cents()
        return held == 0

    await until(is_free)


async def test_a_gateway_that_is_killed_under_load_never_overshoots_and_comes_back(
    town: Town, books: Books, client: httpx.AsyncClient
) -> None:
    limit = 3000
    await books.put_budget(cents=limit)
    for name in ("gateway0", "gateway1"):
        town.start_gateway(name)
    await town.all_up(client)
    answered = refused = 0
    most_leased = 0.0

    async def call_on(name: str) -> None:
        nonlocal answered, refused
        while refused < 60:
            status, reason = await town.ask(client, name)
            assert (status, reason) in ((200, ""), (429, "BUDGET_EXHAUSTED"), (0, "")), (status, reason)
            answered += status == 200
            refused += status == 429
            await asyncio.sleep(0.5 if status == 0 else 0)

    async def kill_and_restart() -> None:
        async def is_busy() -> bool:
            return answered >= 100

        await until(is_busy)
        town.kill("gateway0")
        town.start_gateway("gateway0")

    async def watch() -> None:
        nonlocal most_leased
        while refused < 60:
            spent, held, leased = await books.cents()
            assert spent + held <= limit, (spent, held)
            most_leased = max(most_leased, leased)
            await asyncio.sleep(0.1)

    async with asyncio.timeout(240):
        callers = [call_on(f"gateway{number % 2}") for number in range(16)]
        await asyncio.gather(*callers, kill_and_restart(), watch())
    assert 10 * answered <= limit
    assert most_leased > 0

    async def entered() -> bool:
        spent, held, _ = await books.cents()
        assert spent + held <= limit
        return spent >= 10 * answered

    await until(entered)
    # What was lost with the process is at most what it had leased: most of the budget was used all the same.
    assert 10 * answered >= limit * 6 // 10
