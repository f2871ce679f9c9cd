"""The server's frame, over all four kinds of RPC, on a real grpc.aio server."""

import asyncio
import http.client
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluice_kit import context
from sluice_kit.channel import connect
from sluice_kit.errors import InvalidInput, ResourceExhausted, from_rpc_error
from sluice_kit.process import PortTaken
from sluice_kit.server import GrpcServer
from sluice_kit.settings import GrpcServiceSettings, settings_config

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Settings(GrpcServiceSettings):
    model_config = settings_config("test")


def settings(**values: object) -> Settings:
    return Settings(grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=0.2, **values)


def deserialized(data: bytes) -> str:
    return data.decode("utf-8")


class Behaviour:
    """Handlers of all four kinds that answer with the request id, or raise what they are told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.cancelled = asyncio.Event()
        self.hang = False
        self.waited_seconds = 0.0

    async def _answer(self) -> bytes:
        if self.hang:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        if self.error:
            raise self.error
        now = context.current()
        return f"{now.request_id}|{now.tenant_id}|{now.traceparent[:35]}|{now.synthetic}".encode()

    async def unary(self, request: object, _context: object) -> bytes:
        if hasattr(request, "__aiter__"):
            async for _ in request:
                pass
        return await self._answer()

    async def stream(self, request: object, _context: object) -> AsyncIterator[bytes]:
        if hasattr(request, "__aiter__"):
            async for _ in request:
                pass
        yield await self._answer()

    async def written(self, _request: object, servicer_context: grpc.aio.ServicerContext) -> None:
        """A handler in the other style that grpc.aio knows: no generator."""
        await servicer_context.write(await self._answer())

    async def aborted(self, _request: object, servicer_context: grpc.aio.ServicerContext) -> bytes:
        await servicer_context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
        return b""

    async def calls_on(self, request: bytes, _context: object) -> bytes:
        """Calls a neighbour that hangs, without a timeout of its own; the time it waited."""
        begun = time.monotonic()
        async with connect(request.decode(), settings()) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/test.v1.TestService/unary_unary")(b"x")
        self.waited_seconds = time.monotonic() - begun
        return b""

    def handlers(self) -> grpc.GenericRpcHandler:
        made = {
            kind: getattr(grpc, f"{kind}_rpc_method_handler")(
                self.unary if kind.endswith("unary") else self.stream, request_deserializer=deserialized
            )
            for kind in KINDS
        }
        made["written"] = grpc.unary_stream_rpc_method_handler(self.written)
        made["aborted"] = grpc.unary_unary_rpc_method_handler(self.aborted)
        made["calls_on"] = grpc.unary_unary_rpc_method_handler(self.calls_on)
        return grpc.method_handlers_generic_handler("test.v1.TestService", made)


@pytest.fixture
async def server():
    behaviour = Behaviour()
    made = GrpcServer(service="test", settings=settings())
    made.grpc.add_generic_rpc_handlers((behaviour.handlers(),))
    made.behaviour = behaviour
    await made.start(service_names=["test.v1.TestService"])
    yield made
    await made.stop()


async def call(channel: object, kind: str, request: bytes = b"x", **options: object) -> bytes:
    multi = getattr(channel, kind)(f"/test.v1.TestService/{kind}")

    async def requests() -> AsyncIterator[bytes]:
        yield request

    started = multi(requests() if kind.startswith("stream") else request, **options)
    if kind.endswith("unary"):
        return await started
    return [message async for message in started][0]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_request_context_arrives_in_the_handler(server, kind):
    sent = context.RequestContext("r-1", "acme", traceparent=f"00-{'a' * 32}-{'b' * 16}-01", synthetic=True)
    async with connect(f"127.0.0.1:{server.port}", settings()) as channel:
        with context.use(sent):
            answer = await call(channel, kind, timeout=5)
    assert answer.decode() == f"r-1|acme|00-{'a' * 32}|True"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_id_is_made_where_none_came(server, kind):
    async with connect(f"127.0.0.1:{server.port}", settings()) as channel:
        assert len((await call(channel, kind, timeout=5)).split(b"|")[0]) == 32


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_of_ours_arrives_with_its_details(server, kind):
    server.behaviour.error = InvalidInput(
        "max_tokens is 9000; this model allows 4096.", field="max_tokens", metadata={"limit": "4096"}
    )
    async with connect(f"127.0.0.1:{server.port}", settings()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, kind, timeout=5)
    found = from_rpc_error(caught.value)
    assert isinstance(found, InvalidInput)
    assert (found.reason, found.field, found.metadata) == ("INVALID_INPUT", "max_tokens", {"limit": "4096"})
    assert str(found) == "max_tokens is 9000; this model allows 4096."


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unexpected_error_tells_the_caller_nothing(server, kind):
    server.behaviour.error = RuntimeError("secret of jane@example.com")
    async with connect(f"127.0.0.1:{server.port}", settings()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, kind, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "jane" not in str(caught.value)
    assert "internal error; request" in caught.value.details()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_that_is_no_message_is_the_callers_mistake(server, kind):
    async with connect(f"127.0.0.1:{server.port}", settings()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, kind, b"\xff\xfe", timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc_error(caught.value).reason == "UNREADABLE_REQUEST"


async def test_a_handler_may_write_to_its_context(server):
    async with connect(f"127.0.0.1:{server.port}", settings()) as channel:
        stream = channel.unary_stream("/test.v1.TestService/written")(b"x", timeout=5)
        assert len([message async for message in stream]) == 1
        server.behaviour.error = InvalidInput("wrong")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [message async for message in channel.unary_stream("/test.v1.TestService/written")(b"x", timeout=5)]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_aborted_call_is_counted_under_its_own_code(server):
    async with connect(f"127.0.0.1:{server.port}", settings()) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/test.v1.TestService/aborted")(b"x", timeout=5)
    _, body = await asyncio.to_thread(get, server.metrics_port, "/metrics")
    assert b'server_call_duration_seconds_count{code="NOT_FOUND",method="test.v1.TestService/aborted"}' in body
    assert b'client_call_duration_seconds_count{code="NOT_FOUND",method="test.v1.TestService/aborted"}' in body


async def test_a_call_to_a_neighbour_inherits_the_callers_deadline(server):
    server.behaviour.hang = True
    address = f"127.0.0.1:{server.port}"
    async with connect(address, settings()) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/test.v1.TestService/calls_on")(address.encode(), timeout=0.5)
    await asyncio.wait_for(server.behaviour.cancelled.wait(), 5)


async def test_a_full_service_says_when_to_come_back(server):
    server.behaviour.error = ResourceExhausted("the queue is full", retry_after_seconds=1.5)
    async with connect(f"127.0.0.1:{server.port}", settings()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, "unary_unary", timeout=5)
    assert from_rpc_error(caught.value).retry_after_seconds == 1.5


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_that_leaves_cancels_the_handler(server, kind):
    server.behaviour.hang = True
    async with connect(f"127.0.0.1:{server.port}", settings()) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, kind, timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(server.behaviour.cancelled.wait(), 5)


async def status_of(server: GrpcServer, service: str = "") -> int:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        return (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))).status


async def until(condition, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_health_is_the_sum_of_the_checks(server):
    serving = health_pb2.HealthCheckResponse.SERVING

    async def overall_is_serving() -> bool:
        return await status_of(server) == serving

    async def overall_is_not() -> bool:
        return await status_of(server) != serving

    await until(overall_is_serving)
    server.health.set("model", False)
    await until(overall_is_not)
    server.health.set("model", True)
    await until(overall_is_serving)


async def test_a_part_that_is_only_told_has_a_status_of_its_own(server):
    serving = health_pb2.HealthCheckResponse.SERVING
    server.health.tell("test.v1.TestService/part", False)

    async def part_is_known() -> bool:
        try:
            return await status_of(server, "test.v1.TestService/part") != serving
        except grpc.aio.AioRpcError:
            return False

    async def part_serves() -> bool:
        return await status_of(server, "test.v1.TestService/part") == serving

    await until(part_is_known)
    assert await status_of(server) == serving
    assert "test.v1.TestService/part" not in server.health.checks
    server.health.tell("test.v1.TestService/part", True)
    await until(part_serves)
    server.health.stop()
    await until(part_is_known)


async def test_health_can_be_listed_and_watched(server):
    server.health.set("model", False)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def model_is_listed() -> bool:
            return "model" in (await stub.List(health_pb2.HealthListRequest())).statuses

        await until(model_is_listed)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="test.v1.TestService"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        server.health.set("model", True)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


async def test_metrics_and_health_are_served_over_http(server):
    async with connect(f"127.0.0.1:{server.port}", settings()) as channel:
        await call(channel, "unary_unary", timeout=5)
    status, body = await asyncio.to_thread(get, server.metrics_port, "/metrics")
    assert status == 200
    assert b'sluice_grpc_server_call_duration_seconds_count{code="OK",method="test.v1.TestService/unary_unary"}' in body
    assert (await asyncio.to_thread(get, server.metrics_port, "/healthz"))[0] == 200
    server.health.set("broker", False)
    status, body = await asyncio.to_thread(get, server.metrics_port, "/healthz")
    assert status == 503
    assert b'"broker": false' in body


async def test_a_port_that_is_taken_is_named(server):
    second = GrpcServer(
        service="test", settings=Settings(grpc_listen=f"127.0.0.1:{server.port}", metrics_listen="127.0.0.1:0")
    )
    with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{server.port} is in use.*SLUICE_TEST_GRPC_LISTEN"):
        await second.start(service_names=[])
