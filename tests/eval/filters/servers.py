"""A service as a process of its own, as it is shipped, with its CPU time and memory; Kafka is away, so events wait in its outbox."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import socket

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Server:
    """target: `host:port` of gRPC."""

    target: str
    pid: int

    def cpu_seconds(self) -> float:
        """User and system time of the process, its children and those that have ended."""
        return sum(self._times(pid) for pid in _tree(self.pid))

    def memory_mib(self) -> float:
        """Resident memory of the process and its children, shared pages divided among those that share them where the kernel tells."""
        return sum(_memory(pid) for pid in _tree(self.pid)) / 1024

    @staticmethod
    def _times(pid: int) -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(fields[i]) for i in (11, 12, 13, 14)) / _TICKS


@contextmanager
def server(service: str, **settings: str) -> Iterator[Server]:
    """Starts `sluice-<service>` and waits until it says SERVING."""
    port, metrics = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as home:
        given = {"GRPC_LISTEN": f"127.0.0.1:{port}", "METRICS_LISTEN": f"127.0.0.1:{metrics}", **settings}
        environment = os.environ | {f"SLUICE_{service.upper()}_{name}": value for name, value in given.items()}
        environment |= {
            "SLUICE_HOME": home,
            "SLUICE_KAFKA_BOOTSTRAP": f"127.0.0.1:{_free_port()}",
            "SLUICE_LOG_LEVEL": "ERROR",
        }
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / f"sluice-{service}")],
            env=environment,
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_until_ready(f"127.0.0.1:{port}", process)
            yield Server(f"127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(target: str, process: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + _START_SECONDS
    with grpc.insecure_channel(target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < give_up:
            if process.poll() is not None:
                raise SystemExit(f"the service ended with code {process.returncode} at its start")
            try:
                if (
                    health.Check(health_pb2.HealthCheckRequest(), timeout=2).status
                    == health_pb2.HealthCheckResponse.SERVING
                ):
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.1)
    raise SystemExit(f"{target} was not ready within {_START_SECONDS:.0f} s")


def _tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [one for child in task.read_text().split() for one in _tree(int(child))]
    return found


def _memory(pid: int) -> int:
    """KiB."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(row for row in rows if row.startswith("Pss:")).split()[1])
    except (OSError, StopIteration):
        rows = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next((row for row in rows if row.startswith("VmRSS")), "VmRSS 0").split()[1])


def _free_port() -> int:
    with socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
