"""Ports that somebody else holds, named before anything is started."""

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from sluice_cli.mesh.plan import Program
from sluice_cli.mesh.problem import MeshProblem


def check_free(programs: Iterable[Program], offset: int) -> None:
    """MeshProblem, one sentence, when a port of a program cannot be bound on loopback."""
    taken = [
        (port, f"{program.name} ({listener})" if listener != program.name else program.name)
        for program in programs
        for listener, port in program.ports.items()
        if not is_free(port)
    ]
    if not taken:
        return
    named = "; ".join(f"port {port}, which {user} needs, is {_holder(port)}" for port, user in taken)
    suggestion = f"SLUICE_PORT_BASE_OFFSET={offset + 100}"
    raise MeshProblem(f"{named[0].upper()}{named[1:]}: end that program, or shift all ports with {suggestion}.")


def is_free(port: int) -> bool:
    """True when a server could listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        # As servers do: connections that linger after a stop must not count, somebody who listens must.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    users = [c for c in _connections() if c.laddr and c.laddr.port == port]
    listening = next((c for c in users if c.status == psutil.CONN_LISTEN), None)
    if listening:
        return f"taken by {_process(listening.pid)}"
    if users and port in ephemeral_ports():
        return f"held for the moment by an outgoing connection of {_process(users[0].pid)} (try again)"
    return "taken"


def _connections() -> list[Any]:
    try:
        return list(psutil.net_connections("tcp"))
    except (psutil.AccessDenied, OSError):  # macOS tells root only
        return []


def _process(pid: int | None) -> str:
    if pid is None:
        return "another user's program"
    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:
        return f"pid {pid}"


def ephemeral_ports() -> range:
    """Ports the system gives to outgoing connections; the default gRPC ports lie in Linux's range."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return range(49152, 65536)  # IANA's range, which macOS uses
    return range(int(low), int(high) + 1)
