"""Ports that somebody else holds, named before anything is started."""

import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from sluice_cli.mesh.plan import Program
from sluice_cli.mesh.problem import MeshProblem

# A closed connection keeps its port for a minute (TIME_WAIT).
PATIENCE_SECONDS = 75.0


def check_free(
    programs: Iterable[Program], offset: int, say: Callable[[str], None], *, patience_seconds: float = PATIENCE_SECONDS
) -> None:
    """MeshProblem, one sentence, when a port of a program cannot be bound on loopback.

    A port that only an outgoing or closed connection holds (they lie in Linux's range for such) is waited for.
    """
    needed = [(port, program.name) for program in programs for port in program.ports.values()]
    deadline = time.monotonic() + patience_seconds
    told = False
    while taken := [(port, user) for port, user in needed if not is_free(port)]:
        if time.monotonic() > deadline or any(_listener(port) for port, _ in taken):
            break
        if not told:
            say(f"Waiting for port {taken[0][0]}, which {taken[0][1]} needs and {_holder(taken[0][0])} ...")
            told = True
        time.sleep(0.5)
    if taken:
        named = "; ".join(f"port {port}, which {user} needs, {_holder(port)}" for port, user in taken)
        way_out = f"end that program, or shift all ports with SLUICE_PORT_BASE_OFFSET={offset + 100}"
        raise MeshProblem(f"{named[0].upper()}{named[1:]}: {way_out}.")


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
    listener = _listener(port)
    if listener:
        return f"is taken by {_process(listener.pid)}"
    owner = next((c.pid for c in _connections() if c.laddr and c.laddr.port == port and c.pid), None)
    return (
        f"is held by an outgoing connection of {_process(owner)}"
        if owner
        else "is held by a connection, perhaps one just closed"
    )


def _listener(port: int) -> Any:
    """Who listens there; None when nobody does, or the system does not tell."""
    found = (c for c in _connections() if c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN)
    return next(found, None) or (_Unknown() if _answers(port) else None)


@dataclass(frozen=True)
class _Unknown:
    """A listener the system names no process for."""

    pid: None = None


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


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
