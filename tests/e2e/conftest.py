"""The gateway, redaction and moderation as the processes they are, before a model that says what a test wants."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluice.inference.v1 import inference_service_pb2 as inference
from sluice.inference.v1 import inference_service_pb2_grpc as inference_rpc
from sluice.types.v1 import finish_reason_pb2, usage_pb2
from sluice_gateway.domain.api_key import mint
from sluice_inference.domain import self_test

START_SECONDS = 120
TENANTS = {"plain": "", "redacting": "redact", "holding": "hold"}
POLICY = """policy: for-{tenant}
version: 1
description: For tests.
fail_closed: true
tenants: [{tenant}]
rules:
  input:
    toxicity: {{{action}: 0.8}}
    prompt_injection: {{{action}: 0.8}}
  output:
    toxicity: {{{action}: 0.8}}
"""


class ScriptedModel(inference_rpc.InferenceServiceServicer):
    """Says `script`, one piece a message, or what the self-test model says to a self-test; keeps what it was asked."""

    def __init__(self) -> None:
        self.script: list[str] = []
        self.asked: list[str] = []

    def GenerateStream(self, request: Any, context: Any) -> Iterator[inference.GenerateStreamResponse]:
        messages = request.spec.chat.messages
        self.asked.append("\n".join(message.content for message in messages))
        script = self.script
        if messages[0].content.startswith(self_test.COMMAND):
            said = self_test.answer(messages[0].content, messages[-1].content)
            script = [said[at : at + 7] for at in range(0, len(said), 7)]
        yield inference.GenerateStreamResponse(started=inference.GenerationStarted(model="scripted"))
        for piece in script:
            yield inference.GenerateStreamResponse(token=inference.TokenDelta(text=piece, token_count=1))
        yield inference.GenerateStreamResponse(
            finished=inference.GenerationFinished(
                outputs=[inference.OutputFinished(finish_reason=finish_reason_pb2.FINISH_REASON_STOP)],
                usage=usage_pb2.TokenUsage(uncached_input_tokens=7, output_tokens=len(script)),
            )
        )

    def Embed(self, request: Any, context: Any) -> inference.EmbedResponse:
        """Other texts have other vectors."""
        digests = [hashlib.sha256(text.encode()).digest() for text in request.texts]
        return inference.EmbedResponse(
            model="scripted",
            embeddings=[inference.Embedding(values=digest) for digest in digests],
            usage=usage_pb2.TokenUsage(uncached_input_tokens=7),
        )


@dataclass
class Process:
    """A service that is running, where it listens, and what it has logged."""

    popen: "subprocess.Popen[str]"
    ports: dict[str, int]
    logs: list[str] = field(default_factory=list)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.ports['service.listening']}"


@dataclass
class Guarded:
    """Everything a test needs."""

    model: ScriptedModel
    gateway: Process
    moderation: Process
    redaction: Process
    keys: dict[str, str]
    home: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.ports['http.listening']}"

    def everything_written(self) -> bytes:
        """All logs and all files of the services."""
        logs = "\n".join(line for process in (self.gateway, self.moderation, self.redaction) for line in process.logs)
        return logs.encode() + b"".join(path.read_bytes() for path in self.home.rglob("*") if path.is_file())


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    home = tmp_path_factory.mktemp("home")
    policies = tmp_path_factory.mktemp("policies")
    for tenant, action in TENANTS.items():
        if action:
            (policies / f"{tenant}.yaml").write_text(POLICY.format(tenant=tenant, action=action))
    keys = _write_configuration(home)
    with ExitStack() as stack:
        model = ScriptedModel()
        server = grpc.server(ThreadPoolExecutor(8))
        inference_rpc.add_InferenceServiceServicer_to_server(model, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        stack.callback(lambda: server.stop(0).wait())
        filters = {
            "redaction": _start(stack, "redaction", home),
            "moderation": _start(stack, "moderation", home, SLUICE_MODERATION_POLICIES=str(policies)),
        }
        for process in filters.values():
            _wait_for(process, {"service.listening"})
            _wait_until_healthy(process)
        targets = {f"SLUICE_{name.upper()}_TARGET": process.target for name, process in filters.items()}
        gateway = _start(
            stack, "gateway", home, SLUICE_GATEWAY_HTTP_LISTEN="127.0.0.1:0", SLUICE_INFERENCE_TARGET=f"127.0.0.1:{port}",
            SLUICE_GATEWAY_FILTER_SECONDS="30", SLUICE_GATEWAY_BUDGETS="false", **targets,
        )  # fmt: skip
        _wait_for(gateway, {"service.listening", "http.listening"})
        yield Guarded(model, gateway, filters["moderation"], filters["redaction"], keys, home)


def _write_configuration(home: Path) -> dict[str, str]:
    minted = {tenant: mint(tenant) for tenant in TENANTS}
    configuration = {
        "version": 1,
        "tenants": [{"id": tenant, "content_capture": "redacted"} for tenant in TENANTS],
        "models": [
            {"alias": "small", "target": "scripted"},
            {"alias": "sluice-self-test", "target": "scripted"},
            {"alias": "vectors", "target": "scripted", "tasks": ["embed"]},
        ],
        "api_keys": [{"id": tenant, "sha256": sha256, "tenant": tenant} for tenant, (_, sha256) in minted.items()],
    }
    (home / "gateway.yaml").write_text(json.dumps(configuration))
    return {tenant: key for tenant, (key, _) in minted.items()}


def _start(stack: ExitStack, service: str, home: Path, **more: str) -> Process:
    settings = {
        "SLUICE_HOME": str(home),
        "SLUICE_KAFKA_BOOTSTRAP": "127.0.0.1:1",  # nobody can listen there: events stay in the outbox
        f"SLUICE_{service.upper()}_GRPC_LISTEN": "127.0.0.1:0",
        f"SLUICE_{service.upper()}_METRICS_LISTEN": "127.0.0.1:0",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    popen = subprocess.Popen(
        [sys.executable, "-c", f"from sluice_{service}.main import main; main()"],
        env=inherited | settings | more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    process = Process(popen, {})
    assert popen.stdout is not None
    threading.Thread(target=_follow, args=(popen.stdout, process), daemon=True).start()
    stack.callback(_end, popen)
    return process


def _follow(output: IO[str], process: Process) -> None:
    for line in output:
        process.logs.append(line)
        found = re.search(r'"event": "((?:service|http)\.listening)"', line)
        if found:
            process.ports[found[1]] = json.loads(line)["port"]


def _wait_for(process: Process, events: set[str]) -> None:
    ready = threading.Event()
    for _ in range(START_SECONDS * 10):
        if events <= set(process.ports):
            return
        assert process.popen.poll() is None, "".join(process.logs)
        ready.wait(0.1)
    raise AssertionError("".join(process.logs))


def _wait_until_healthy(process: Process) -> None:
    """Redaction listens before its recognizers are loaded; until then it answers UNAVAILABLE and says that it is not ready."""
    pause = threading.Event()
    with grpc.insecure_channel(process.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for _ in range(START_SECONDS * 10):
            with suppress(grpc.RpcError):
                told = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
                if told.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            pause.wait(0.1)
    raise AssertionError("".join(process.logs))


def _end(popen: "subprocess.Popen[str]") -> None:
    popen.terminate()
    try:
        popen.wait(30)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()
    assert popen.stdout is not None
    popen.stdout.close()
