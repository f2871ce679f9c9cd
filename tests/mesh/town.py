"""A small mesh for budgets: real gateways, the real cost service, a broker, and neighbours whose answer and usage are fixed."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import grpc
import httpx
from sluice.cost.v1 import cost_service_pb2 as cost
from sluice.cost.v1 import cost_service_pb2_grpc as cost_rpc
from sluice.inference.v1 import inference_service_pb2 as inference
from sluice.moderation.v1 import moderation_service_pb2 as moderation
from sluice.redaction.v1 import redaction_service_pb2 as redaction
from sluice.types.v1 import finish_reason_pb2, money_pb2, usage_pb2, verdict_pb2

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
  scripted-vectors: {input_per_million: "100", output_per_million: "0"}
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


async def _embed(body: bytes, _: Any) -> bytes:
    texts = inference.EmbedRequest.FromString(body).texts
    return inference.EmbedResponse(
        model="scripted-vectors",
        embeddings=[inference.Embedding(values=[0.6, 0.8]) for _ in texts],
        usage=usage_pb2.TokenUsage(uncached_input_tokens=sum(map(len, texts))),
    ).SerializeToString()


HANDLERS = {
    "sluice.redaction.v1.RedactionService": {
        "Redact": grpc.unary_unary_rpc_method_handler(_redact),
        "RedactStream": grpc.stream_stream_rpc_method_handler(_redact_stream),
    },
    "sluice.moderation.v1.ModerationService": {
        "Moderate": grpc.unary_unary_rpc_method_handler(_moderate),
        "ModerateStream": grpc.stream_stream_rpc_method_handler(_moderate_stream),
    },
    "sluice.inference.v1.InferenceService": {
        "GenerateStream": grpc.unary_stream_rpc_method_handler(_generate),
        "Embed": grpc.unary_unary_rpc_method_handler(_embed),
    },
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
    grpc_targets: dict[str, str] = field(default_factory=dict)

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
            "models": [
                {"alias": "small", "target": "scripted-1"},
                {"alias": "vectors", "target": "scripted-vectors", "tasks": ["embed"]},
            ],
        }
        (home / "gateway.yaml").write_text(json.dumps(configuration))
        port, grpc_port = _free_port(), _free_port()
        own = {
            "SLUICE_HOME": str(home),
            "SLUICE_INSTANCE": name,
            "SLUICE_GATEWAY_HTTP_LISTEN": f"127.0.0.1:{port}",
            "SLUICE_GATEWAY_GRPC_LISTEN": f"127.0.0.1:{grpc_port}",
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
        self.gateways[name], self.grpc_targets[name] = f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}"

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
