"""Health as a list of named checks: what grpc.health.v1 and /healthz say."""

import asyncio
from collections.abc import Mapping
from typing import Any

from grpc_health.v1 import health, health_pb2

from sluice_kit.telemetry import logger

log = logger(__name__)

OVERALL = ""
_STATUS = {True: health_pb2.HealthCheckResponse.SERVING, False: health_pb2.HealthCheckResponse.NOT_SERVING}


class _Servicer(health.aio.HealthServicer):  # type: ignore[name-defined,misc]
    """grpcio's servicer with the List that it lacks."""

    async def List(self, request: Any, context: Any) -> health_pb2.HealthListResponse:
        statuses = {name: health_pb2.HealthCheckResponse(status=s) for name, s in self._server_status.items()}
        return health_pb2.HealthListResponse(statuses=statuses)


class HealthBoard:
    """Named checks. The overall status (`""` and every service name) is SERVING when all checks pass and the server runs.

    Names that are only told have a status of their own, on which nothing else depends.
    """

    def __init__(self) -> None:
        self.servicer: Any = _Servicer()
        self._checks: dict[str, bool] = {}
        self._asides: dict[str, bool] = {}
        self._service_names: tuple[str, ...] = ()
        self._running = False
        self._told: bool | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def set(self, check: str, serving: bool) -> None:
        """Report one check. Must be called on the server's event loop."""
        if self._checks.get(check) is not serving:
            self._checks[check] = serving
            self._publish()

    def tell(self, name: str, serving: bool) -> None:
        """Report a part whose absence leaves the service well: its name is SERVING while it and the server are."""
        if self._asides.get(name) is not serving:
            self._asides[name] = serving
            self._publish()

    def start(self, service_names: tuple[str, ...]) -> None:
        """The server is up: from now on the checks decide."""
        self._service_names, self._running = service_names, True
        self._publish()

    def stop(self) -> None:
        """The server drains: nothing is SERVING any more."""
        self._running = False
        self._publish()

    @property
    def serving(self) -> bool:
        """True when the server runs and every check passes."""
        return self._running and all(self._checks.values())

    @property
    def checks(self) -> Mapping[str, bool]:
        """The checks as last reported."""
        return dict(self._checks)

    def _publish(self) -> None:
        if self._running and self._told is not self.serving:
            self._told = self.serving
            failing = sorted(check for check, passes in self._checks.items() if not passes)
            log.info("service.ready") if self.serving else log.warning("service.not_ready", failing=failing)
        statuses = dict.fromkeys((OVERALL, *self._service_names), self.serving) | self._checks
        statuses |= {name: serving and self._running for name, serving in self._asides.items()}
        task = asyncio.get_running_loop().create_task(self._send(statuses))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, statuses: Mapping[str, bool]) -> None:
        for name, serving in statuses.items():
            await self.servicer.set(name, _STATUS[serving])
