"""The default addresses of the mesh: one table, shifted as a whole by SLUICE_PORT_BASE_OFFSET."""

import ipaddress
from collections.abc import Mapping
from types import MappingProxyType

_GRPC_PORTS = {
    "gateway": 50051,
    "inference": 50052,
    "redaction": 50053,
    "moderation": 50054,
    "feedback": 50055,
    "cost": 50056,
    "registry": 50057,
    "insight": 50058,
    "probes": 50059,
}
_OTHER_PORTS = {
    "gateway_http": 8080,
    "console": 8090,
    "kafka": 9092,
    "quality_web": 6066,
    "drift_web": 6067,
    "fairness_web": 6068,
    "quality_judge_web": 6069,
}

DEFAULT_PORTS: Mapping[str, int] = MappingProxyType(
    _GRPC_PORTS
    | _OTHER_PORTS
    | {f"metrics_{name}": 9450 + port - 50050 for name, port in _GRPC_PORTS.items()}
    | {"metrics_console": 9490}
)
"""Listener name to TCP port, before the offset. `metrics_<service>` serves /metrics and /healthz."""


def is_loopback(host: str) -> bool:
    """Whether a host, as it is written, can only be this machine. No name but `localhost` is looked up or trusted."""
    if host.strip("[]").lower() in ("localhost", "ip6-localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def default_listen(name: str, offset: int) -> str:
    """`host:port` on loopback for a listener of DEFAULT_PORTS, shifted by offset. KeyError for an unknown name."""
    return f"127.0.0.1:{DEFAULT_PORTS[name] + offset}"
