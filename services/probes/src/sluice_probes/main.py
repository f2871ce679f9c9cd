"""Wires the self-test probes and serves them."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial

import httpx
from sluice.probe.v1.probe_service_pb2_grpc import add_ProbeServiceServicer_to_server
from sluice_kit import process, settings, telemetry
from sluice_kit.channel import connect
from sluice_kit.publisher import EventPublisher
from sluice_kit.server import GrpcServer
from sluice_kit.settings import target_of

from sluice_probes.adapters.doors import GatewayDoors
from sluice_probes.adapters.http_door import trust
from sluice_probes.adapters.prober import Prober
from sluice_probes.adapters.readiness import Readiness
from sluice_probes.api import SERVICE_NAME, ProbeService
from sluice_probes.settings import ProbesSettings

NEEDED = ("redaction", "moderation", "inference")
"""What a request of every route goes through behind the gateway."""


async def serve(configured: ProbesSettings) -> None:
    """Serve until a signal."""
    publisher = EventPublisher(producer=f"sluice-probes/{configured.instance}", settings=configured)
    server = GrpcServer(service="probes", settings=configured)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(verify=trust(configured.tls_ca_file)))
        channel, *behind = [
            await stack.enter_async_context(connect(target_of(configured, name), configured))
            for name in ("gateway", *NEEDED)
        ]
        readiness = Readiness(channel, dict(zip(NEEDED, behind, strict=True)))
        ready = partial(readiness.wait, configured.ready_seconds, after_gateway=configured.interval_seconds)
        prober = Prober(
            gateway=GatewayDoors(channel, client, url=configured.http_url, seconds=configured.request_seconds),
            publisher=publisher,
            keys_at=configured.keys_at,
            model=configured.model,
            embedding_model=configured.embedding_model,
            aliases_limit=configured.aliases_limit,
            first_number=int(time.time()),  # other values after every start
        )
        service = ProbeService(prober, interval=configured.interval_seconds)
        add_ProbeServiceServicer_to_server(service, server.grpc)
        await publisher.start()
        rounds = asyncio.create_task(prober.run_for_ever(configured.interval_seconds, ready=ready))
        try:
            await server.run(service_names=[SERVICE_NAME])
        finally:
            rounds.cancel()
            await asyncio.gather(rounds, return_exceptions=True)
            await prober.close()
            await publisher.stop()


def main() -> None:
    """Entry point of `sluice-probes`."""
    configured = settings.load(ProbesSettings)
    telemetry.configure("probes", configured)
    process.run(lambda: serve(configured))
