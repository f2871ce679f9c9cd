"""The gateway's doors, one for each route and mode."""

from __future__ import annotations

from typing import Any

import httpx

from sluice_probes.adapters.grpc_door import GrpcDoor
from sluice_probes.adapters.http_door import HttpDoor
from sluice_probes.domain.findings import ROUTES
from sluice_probes.domain.round import Door


class GatewayDoors:
    """Fits adapters.prober.Gateway."""

    def __init__(self, channel: Any, client: httpx.AsyncClient, *, url: str, seconds: float) -> None:
        self._channel, self._client, self._url, self._seconds = channel, client, url, seconds

    def doors(self, key: str) -> dict[str, Door]:
        return {route: self._door(route, key) for route in ROUTES}

    async def models(self, key: str) -> list[str]:
        return await GrpcDoor(self._channel, key, streamed=False, seconds=self._seconds).models()

    def _door(self, route: str, key: str) -> Door:
        streamed = route.endswith("stream")
        if route.startswith("grpc"):
            return GrpcDoor(self._channel, key, streamed=streamed, seconds=self._seconds)
        return HttpDoor(self._client, self._url, key, streamed=streamed, seconds=self._seconds)
