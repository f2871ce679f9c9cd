"""Whether a process of the mesh is ready: asked the way Kubernetes would ask."""

import socket

import grpc
import httpx2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sluice_cli.mesh.plan import Check

PROBE_SECONDS = 2.0
# A proxy of the environment must not get what is meant for loopback.
CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))


def is_ready(check: Check) -> bool:
    """Asks once; False for every kind of no."""
    if not _listens(check.port):
        return False
    return {"tcp": _listens, "grpc": _serves_grpc, "http": _serves_http}[check.kind](check.port)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=PROBE_SECONDS):
            return True
    except OSError:
        return False


def _serves_grpc(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PROBE_SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _serves_http(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/healthz", timeout=PROBE_SECONDS, trust_env=False).status_code == 200
    except httpx2.HTTPError:
        return False
