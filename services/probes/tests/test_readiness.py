"""What the first round waits for: real health services, and how long at most."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluice_probes.adapters.readiness import Readiness
from structlog.testing import capture_logs

LOCAL = (("grpc.enable_http_proxy", 0),)
LONG = 60.0


@dataclass
class Health(health_pb2_grpc.HealthServicer):
    """Says what it is told to, and tells when it was asked."""

    serving: bool = False
    silent: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:
        self.asked.set()
        if self.silent:
            await asyncio.Event().wait()
        answer = health_pb2.HealthCheckResponse
        return answer(status=answer.SERVING if self.serving else answer.NOT_SERVING)


@asynccontextmanager
async def asked(gateway: Health | None, *needed: Health | None) -> AsyncIterator[Readiness]:
    """Readiness over real sockets; None is a service that does not run."""
    async with AsyncExitStack() as stack:
        first, *others = [await stack.enter_async_context(channel_to(each)) for each in (gateway, *needed)]
        yield Readiness(first, {f"filter-{number}": channel for number, channel in enumerate(others)})


@asynccontextmanager
async def channel_to(health: Health | None) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    if health is not None:
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        await server.start()
    else:
        await server.stop(None)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=LOCAL) as channel:
            yield channel
    finally:
        await server.stop(None)


def unready(logs: Sequence[Any]) -> list[str]:
    """The services that a wait was ended without."""
    return [name for line in logs if line["event"] == "probes.begun_unready" for name in line["services"]]


async def test_where_all_serve_nothing_is_waited_for():
    async with asyncio.timeout(LONG / 2), asked(Health(serving=True), Health(serving=True)) as ready:
        with capture_logs() as logs:
            await ready.wait(LONG, after_gateway=LONG)
    assert not unready(logs)


@pytest.mark.parametrize("late", [0, 1])
async def test_who_is_late_is_waited_for(late: int):
    services = [Health(serving=True), Health(serving=True)]
    services[late].serving = False
    async with asyncio.timeout(LONG / 2), asked(*services) as ready:
        waiting = asyncio.create_task(ready.wait(LONG, after_gateway=LONG))
        await services[late].asked.wait()
        assert not waiting.done()
        services[late].serving = True
        with capture_logs() as logs:
            await waiting
    assert not unready(logs)


@pytest.mark.parametrize("gateway", [None, Health(), Health(silent=True)])
async def test_a_gateway_that_never_serves_ends_the_wait_at_its_bound(gateway: Health | None):
    async with asyncio.timeout(LONG / 2), asked(gateway, Health(serving=True)) as ready:
        with capture_logs() as logs:
            await ready.wait(0.5, after_gateway=LONG)
    assert unready(logs) == ["gateway"]


async def test_behind_a_gateway_that_serves_filters_are_waited_for_no_longer_than_between_two_rounds():
    begun = time.monotonic()
    async with asyncio.timeout(LONG / 2), asked(Health(serving=True), None, Health(serving=True), Health()) as ready:
        with capture_logs() as logs:
            await ready.wait(LONG, after_gateway=0.5)
    assert unready(logs) == ["filter-0", "filter-2"]
    assert time.monotonic() - begun >= 0.5


async def test_a_service_without_a_health_is_not_waited_for_for_ever():
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=LOCAL) as channel:
            with capture_logs() as logs:
                await Readiness(channel, {}).wait(0, after_gateway=0)
    finally:
        await server.stop(None)
    assert unready(logs) == ["gateway"]
