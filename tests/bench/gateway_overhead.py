"""What the gateway costs: added latency, throughput per core and memory, over neighbours that answer at once.

    python tests/bench/gateway_overhead.py [--requests 2000] [--chunks 20]

Three processes: the gateway as it is shipped (real outbox, Kafka away), fake neighbours, and this caller. The neighbours do no
work, so a request's whole latency is what the gateway and its five gRPC calls add. Throughput per core is requests per second
of the gateway's own CPU time, which a busy machine does not distort; wall-clock figures on a shared machine it does.
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from sluice.gateway.v1 import gateway_service_pb2 as gateway
from sluice.gateway.v1 import gateway_service_pb2_grpc as gateway_rpc
from sluice.inference.v1 import inference_service_pb2 as inference
from sluice.moderation.v1 import moderation_service_pb2 as moderation
from sluice.redaction.v1 import redaction_service_pb2 as redaction
from sluice.types.v1 import chat_pb2, finish_reason_pb2, usage_pb2, verdict_pb2

PROMPT = "My name is Jane Doe, my address is jane@example.com: please write two sentences about rivers and locks."
VERDICT = verdict_pb2.Verdict(
    decision_id="d" * 32, action=verdict_pb2.ACTION_ALLOW, policy_id="general", policy_version=1
)


# --- neighbours that do nothing, fast: raw bytes in, ready-made bytes out ---


def neighbours(port: Any, chunks: int) -> None:
    """Body of the neighbours' process."""
    import uvloop

    uvloop.run(_serve_neighbours(port, chunks))


async def _serve_neighbours(port: Any, chunks: int) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(_handlers(chunks)))
    number = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    port.put(number)
    await server.wait_for_termination()


def _handlers(chunks: int) -> list[grpc.GenericRpcHandler]:
    answers = {interval: _answer(chunks, interval) for interval in range(1, chunks + 1)}
    verdict = moderation.ModerateResponse(verdict=VERDICT).SerializeToString()

    async def redact(body: bytes, _: Any) -> bytes:
        request = redaction.RedactRequest.FromString(body)
        return redaction.RedactResponse(segments=request.segments).SerializeToString()

    async def moderate(_: bytes, __: Any) -> bytes:
        return verdict

    async def generate(body: bytes, __: Any) -> AsyncIterator[bytes]:
        interval = inference.GenerateStreamRequest.FromString(body).spec.response.stream_interval or 1
        for message in answers[min(interval, chunks)]:
            yield message

    return [
        grpc.method_handlers_generic_handler(
            "sluice.redaction.v1.RedactionService",
            {
                "Redact": grpc.unary_unary_rpc_method_handler(redact),
                "RedactStream": grpc.stream_stream_rpc_method_handler(_redact_stream),
            },
        ),
        grpc.method_handlers_generic_handler(
            "sluice.moderation.v1.ModerationService",
            {
                "Moderate": grpc.unary_unary_rpc_method_handler(moderate),
                "ModerateStream": grpc.stream_stream_rpc_method_handler(_moderate_stream),
            },
        ),
        grpc.method_handlers_generic_handler(
            "sluice.inference.v1.InferenceService", {"GenerateStream": grpc.unary_stream_rpc_method_handler(generate)}
        ),
    ]


def _answer(chunks: int, interval: int) -> list[bytes]:
    messages = [inference.GenerateStreamResponse(started=inference.GenerationStarted(model="fake"))]
    for first in range(0, chunks, interval):
        count = min(interval, chunks - first)
        text = "".join("river. " if (first + i) % 10 == 9 else "river " for i in range(count))
        token = inference.TokenDelta(text=text, token_count=count)
        messages.append(inference.GenerateStreamResponse(token=token))
    finished = inference.GenerationFinished(
        outputs=[inference.OutputFinished(finish_reason=finish_reason_pb2.FINISH_REASON_STOP)],
        usage=usage_pb2.TokenUsage(uncached_input_tokens=20, output_tokens=chunks),
    )
    messages.append(inference.GenerateStreamResponse(finished=finished))
    return [message.SerializeToString() for message in messages]


async def _redact_stream(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for body in requests:
        request = redaction.RedactStreamRequest.FromString(body)
        if request.WhichOneof("event") == "text":
            yield redaction.RedactStreamResponse(text=request.text).SerializeToString()
    yield redaction.RedactStreamResponse(finished=redaction.RedactStreamFinished()).SerializeToString()


async def _moderate_stream(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    held = ""  # until its sentence ends, as the real one holds it
    async for body in requests:
        request = moderation.ModerateStreamRequest.FromString(body)
        held += request.text
        cut = held.rfind(". ") + 2 if ". " in held else 0
        if request.WhichOneof("event") == "end":
            cut = len(held)
        if cut:
            yield moderation.ModerateStreamResponse(text=held[:cut]).SerializeToString()
            held = held[cut:]
    yield moderation.ModerateStreamResponse(verdict=VERDICT).SerializeToString()


# --- the gateway, as it is shipped ---


class Gateway:
    """A running gateway process."""

    def __init__(self, home: Path, neighbour_port: int, *, cost_target: str = "", budgeted: str = "") -> None:
        """Tenants are `bench`, and `budgeted` where one is named. Without a cost service the neighbours say that there are no budgets."""
        limits = {"requests_per_minute": 10_000_000, "concurrency": 1000, "max_tokens": 1000}
        tenants = [tenant for tenant in ("bench", budgeted) if tenant]
        secret_of = {tenant: secrets.token_hex(32) for tenant in tenants}
        self.key_of = {tenant: f"sk-sluice-{tenant}-{secret}" for tenant, secret in secret_of.items()}
        self.key = self.key_of["bench"]
        config = {
            "version": 1,
            "tenants": [{"id": tenant, "limits": limits} for tenant in tenants],
            "api_keys": [
                {"id": tenant, "sha256": hashlib.sha256(secret.encode()).hexdigest(), "tenant": tenant}
                for tenant, secret in secret_of.items()
            ],
            "models": [{"alias": "small", "target": "fake"}],
        }
        (home / "gateway.yaml").write_text(json.dumps(config))  # JSON is YAML
        target = f"127.0.0.1:{neighbour_port}"
        # SLUICE_BENCH_WRAPPER: a command put before Python's, such as a profiler's.
        wrapper = os.environ.get("SLUICE_BENCH_WRAPPER", sys.executable).split()
        self.process = subprocess.Popen(
            [*wrapper, "-c", "from sluice_gateway.main import main; main()"],
            env=os.environ
            | {
                "SLUICE_HOME": str(home),
                "SLUICE_GATEWAY_GRPC_LISTEN": "127.0.0.1:0",
                "SLUICE_GATEWAY_METRICS_LISTEN": "127.0.0.1:0",
                "SLUICE_GATEWAY_HTTP_LISTEN": "127.0.0.1:0",
                "SLUICE_KAFKA_BOOTSTRAP": "127.0.0.1:1",
                **{f"SLUICE_{name}_TARGET": target for name in ("INFERENCE", "REDACTION", "MODERATION")},
                "SLUICE_COST_TARGET": cost_target or target,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        ports = self._ports()
        self.http_port, self.grpc_port = ports["http.listening"], ports["service.listening"]
        self.metrics_port = ports["metrics"]

    def _ports(self) -> dict[str, int]:
        ports: dict[str, int] = {}
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{") and (event := json.loads(line)).get("event") in (
                "http.listening",
                "service.listening",
            ):
                ports[event["event"]] = event["port"]
                ports["metrics"] = event.get("metrics_port", 0)
            if len(ports) == 3 and ports["metrics"]:
                break
        return ports

    def cpu_seconds(self) -> float:
        """User and system time the gateway has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        """Resident memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- callers: each makes one request and returns the seconds to the first text, or None ---

Call = Callable[[], Awaitable[float | None]]


class HttpCaller:
    """A keep-alive HTTP/1.1 connection, as thin as can be."""

    def __init__(self, gateway: Gateway, *, stream: bool, key: str = "") -> None:
        self._port = gateway.http_port
        body = {"model": "small", "messages": [{"role": "user", "content": PROMPT}], "stream": stream}
        content = json.dumps(body).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key or gateway.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        self._request, self._stream = head.encode() + content, stream

    async def connect(self) -> Call:
        """A caller with a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def call() -> float | None:
            began = time.perf_counter()
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            if not self._stream:
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                return None
            await reader.readuntil(b'"content":"river')
            first = time.perf_counter() - began
            await reader.readuntil(b"[DONE]\n\n")
            await reader.readuntil(b"0\r\n\r\n")
            return first

        return call


class GrpcCaller:
    """One gRPC channel for each caller."""

    def __init__(self, served: Gateway, *, stream: bool) -> None:
        self._target, self._stream = f"127.0.0.1:{served.grpc_port}", stream
        self._metadata = [("authorization", f"Bearer {served.key}")]
        message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=PROMPT)
        self._spec = gateway.ChatSpec(model="small", messages=[message])

    async def connect(self) -> Call:
        """A caller with a connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        stub: Any = gateway_rpc.GatewayServiceStub(grpc.aio.insecure_channel(self._target, options=options))

        async def whole() -> float | None:
            await stub.Chat(gateway.ChatRequest(spec=self._spec), metadata=self._metadata)
            return None

        async def stream() -> float | None:
            began, first = time.perf_counter(), None
            async for response in stub.ChatStream(gateway.ChatStreamRequest(spec=self._spec), metadata=self._metadata):
                if first is None and response.HasField("delta"):
                    first = time.perf_counter() - began
            return first

        return stream if self._stream else whole


async def measure(caller: Any, *, requests: int, concurrency: int) -> tuple[list[float], list[float], float]:
    """Latencies and times to first text in ms, and the wall time in seconds."""
    calls = [await caller.connect() for _ in range(concurrency)]
    await asyncio.gather(*(call() for call in calls))
    latencies: list[float] = []
    firsts: list[float] = []

    async def work(call: Call) -> None:
        for _ in range(requests // concurrency):
            began = time.perf_counter()
            first = await call()
            latencies.append((time.perf_counter() - began) * 1000)
            if first is not None:
                firsts.append(first * 1000)

    began = time.perf_counter()
    await asyncio.gather(*map(work, calls))
    return latencies, firsts, time.perf_counter() - began


def quantile(values: list[float], q: float) -> float:
    """The q-quantile, by nearest rank."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


async def bare_call(neighbour_port: int) -> float:
    """CPU ms that one unary gRPC call costs its caller, here and now: the unit the gateway's cost is made of."""
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{neighbour_port}")
    call: Any = channel.unary_unary("/sluice.moderation.v1.ModerationService/Moderate")  # type: ignore[call-arg]
    await call(b"")
    began = time.process_time()
    for _ in range(500):
        await call(b"")
    cost = (time.process_time() - began) / 500 * 1000
    await channel.close(None)
    return cost


async def report(gateway_process: Gateway, requests: int) -> None:
    """Print one row for each route and concurrency."""
    print(
        f"{'route':14} {'callers':>7} {'p50 ms':>7} {'p99 ms':>7} {'first p50':>9} {'req/s':>7} {'CPU ms/req':>10} {'req/s/core':>10}"
    )
    for name, caller in (
        ("http", HttpCaller(gateway_process, stream=False)),
        ("http stream", HttpCaller(gateway_process, stream=True)),
        ("grpc", GrpcCaller(gateway_process, stream=False)),
        ("grpc stream", GrpcCaller(gateway_process, stream=True)),
    ):
        for concurrency in (1, 16):
            before = gateway_process.cpu_seconds()
            count = requests // (4 if concurrency == 1 else 1)
            latencies, firsts, wall = await measure(caller, requests=count, concurrency=concurrency)
            cpu = (gateway_process.cpu_seconds() - before) / (len(latencies) + concurrency)
            first = f"{statistics.median(firsts):9.2f}" if firsts else f"{'-':>9}"
            print(
                f"{name:14} {concurrency:7} {statistics.median(latencies):7.2f} {quantile(latencies, 0.99):7.2f} {first} "
                f"{len(latencies) / wall:7.0f} {cpu * 1000:10.2f} {1 / cpu:10.0f}"
            )
    print(
        f"gateway RSS {gateway_process.rss_mib():.0f} MiB, load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--chunks", type=int, default=20)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    port = context.Queue()
    fakes = context.Process(target=neighbours, args=(port, arguments.chunks), daemon=True)
    fakes.start()
    with tempfile.TemporaryDirectory() as home:
        number = port.get(timeout=60)
        served = Gateway(Path(home), number)
        print(f"gateway RSS idle {served.rss_mib():.0f} MiB; answers of {arguments.chunks} chunks")
        print(f"a bare unary gRPC call costs its caller {asyncio.run(bare_call(number)):.2f} ms of CPU here and now")
        try:
            asyncio.run(report(served, arguments.requests))
        finally:
            served.process.terminate()
            served.process.communicate(timeout=30)
            fakes.terminate()


if __name__ == "__main__":
    main()
