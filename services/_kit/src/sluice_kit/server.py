"""A gRPC server that starts, tells its health, drains and stops like every other of the mesh."""

import asyncio
import contextlib
import signal
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sluice_kit.health import HealthBoard
from sluice_kit.interceptor import CallInterceptor
from sluice_kit.metrics import MetricsServer
from sluice_kit.process import PortTaken, StartFailed, check_free
from sluice_kit.settings import GrpcServiceSettings, MeshSettings
from sluice_kit.telemetry import logger

log = logger(__name__)


def stop_on_signals() -> asyncio.Event:
    """An event that is set by SIGTERM or SIGINT. Must be called on the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, ValueError):
            loop.add_signal_handler(number, stop.set)
    return stop


def credentials(settings: MeshSettings) -> grpc.ServerCredentials | None:
    """Mutual TLS where certificate files are set, None for plaintext."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    authority = settings.tls_ca_file.read_bytes() if settings.tls_ca_file else None
    pair = (settings.tls_key_file.read_bytes(), settings.tls_cert_file.read_bytes())
    return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)


class GrpcServer:
    """Add servicers to `.grpc`, report checks to `.health`, then `run`."""

    def __init__(self, *, service: str, settings: GrpcServiceSettings) -> None:
        self._service, self._settings = service, settings
        self.health = HealthBoard()
        self.grpc = grpc.aio.server(
            interceptors=[CallInterceptor()],
            maximum_concurrent_rpcs=settings.max_concurrent_calls,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                # Without this two processes share a port in silence.
                ("grpc.so_reuseport", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ],
        )
        self.port = 0
        self._metrics: MetricsServer | None = None

    async def start(self, *, service_names: Sequence[str]) -> None:
        """Listen on grpc_listen and metrics_listen (port 0 picks a free one). Raises PortTaken."""
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self.grpc)
        names = (*service_names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self.grpc)
        self.port = self._bind()
        self._metrics = MetricsServer(
            self._settings.metrics_listen, self.health, variable=self._variable("METRICS_LISTEN")
        )
        await self.grpc.start()
        self.health.start(tuple(service_names))
        log.info("service.listening", port=self.port, metrics_port=self._metrics.port)

    @property
    def metrics_port(self) -> int:
        """Port of /metrics and /healthz; 0 before the start."""
        return self._metrics.port if self._metrics else 0

    def _bind(self) -> int:
        listen, secure = self._settings.grpc_listen, credentials(self._settings)
        check_free(listen, self._variable("GRPC_LISTEN"))
        try:
            return self.grpc.add_secure_port(listen, secure) if secure else self.grpc.add_insecure_port(listen)
        except RuntimeError:
            raise PortTaken(listen, self._variable("GRPC_LISTEN")) from None

    def _variable(self, name: str) -> str:
        return f"SLUICE_{self._service.upper()}_{name}"

    async def stop(self) -> None:
        """Tell everybody, let running calls end for at most drain_seconds, stop."""
        self.health.stop()
        await self.grpc.stop(self._settings.drain_seconds)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.stop)
        log.info("service.stopped")

    async def run(self, *, service_names: Sequence[str]) -> None:
        """Serve until SIGTERM or SIGINT."""
        stop = stop_on_signals()
        if not self._settings.grpc_listen:
            raise StartFailed(f"{self._variable('GRPC_LISTEN')} is needed: {self._service} has no default address.")
        await self.start(service_names=service_names)
        try:
            await stop.wait()
        finally:
            await self.stop()
