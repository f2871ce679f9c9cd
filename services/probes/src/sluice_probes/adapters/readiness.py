"""Waits at the start until the gateway and what it needs say that they serve, for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluice_kit.telemetry import logger

log = logger(__name__)

PAUSE_SECONDS = 0.25
ANSWER_SECONDS = 2.0
"""Longest one question may take: a service that accepts calls and answers none is not ready."""


class Readiness:
    """Health of the gateway and of the services that it asks (grpc.health.v1, overall), each by its channel."""

    def __init__(self, gateway: Any, needed: Mapping[str, Any]) -> None:
        self._gateway = health_pb2_grpc.HealthStub(gateway)
        self._needed = {name: health_pb2_grpc.HealthStub(channel) for name, channel in needed.items()}

    async def wait(self, seconds: float, *, after_gateway: float) -> None:
        """Return when all serve, `seconds` from now, or `after_gateway` seconds after the gateway began to serve, whichever comes first.

        Without a gateway nothing comes through, so it may be waited for longer. Behind one that serves, content may pass a
        filter that never becomes ready, and somebody has to look.
        """
        end = asyncio.get_running_loop().time() + seconds
        waiting = await _until_serving({"gateway": self._gateway}, end)
        end = min(end, asyncio.get_running_loop().time() + after_gateway)
        if waiting := waiting | await _until_serving(self._needed, end):
            log.warning("probes.begun_unready", services=sorted(waiting))


async def _until_serving(stubs: Mapping[str, Any], end: float) -> set[str]:
    """The names of those that do not serve when `end` comes; all are asked at least once."""
    waiting = set(stubs)
    while waiting := await _not_serving({name: stubs[name] for name in waiting}):
        left = end - asyncio.get_running_loop().time()
        if left <= 0:
            break
        await asyncio.sleep(min(PAUSE_SECONDS, left))
    return waiting


async def _not_serving(stubs: Mapping[str, Any]) -> set[str]:
    serving: Iterable[bool] = await asyncio.gather(*(_serves(stub) for stub in stubs.values()))
    return {name for name, serves in zip(stubs, serving, strict=True) if not serves}


async def _serves(stub: Any) -> bool:
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=ANSWER_SECONDS)
    except grpc.RpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
