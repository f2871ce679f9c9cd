"""The two brokers as processes that can be stopped, killed, frozen and started again: noida-db and Apache Kafka."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from sluice_kit.settings import MeshSettings

START_SECONDS = 90
STOP_SECONDS = 40


# Below those the kernel gives to outgoing connections: one of them could take the port while the broker is down for a moment.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port that is free together with the next one, which Apache Kafka's controller takes."""
    for port in random.sample(PORTS, 1_000):
        if _free(port) and _free(port + 1):
            return port
    raise AssertionError(f"no two free ports side by side among {PORTS}")


def _free(port: int) -> bool:
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Broker:
    """One node on loopback; its data outlives its process."""

    kind = ""
    embedded = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen | None = None

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "broker.log").read_text()[-2000:]
                time.sleep(0.05)
        raise AssertionError(f"{self.kind} did not start within {START_SECONDS} s")

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.running():
            self.signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    def stop(self) -> None:
        """As an operator would: it saves what it has."""
        self.signal(signal.SIGINT if self.embedded else signal.SIGTERM)
        self.process.wait(timeout=STOP_SECONDS)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def settings(self, home: Path, **values: object) -> MeshSettings:
        return MeshSettings(home=home, kafka_bootstrap=f"127.0.0.1:{self.port}", kafka_embedded=self.embedded, **values)


class EmbeddedBroker(Broker):
    kind, embedded = "embedded", True

    def command(self) -> Sequence[str]:
        binary = shutil.which("noida-db") or str(Path(sys.executable).parent / "noida-db")
        return [binary, "start", "--only", "kafka", "--kafka-port", str(self.port), "--data-dir", str(self.folder)]


class ApacheBroker(Broker):
    """Started as `sluice mesh up` starts it: the same artifacts, the same settings."""

    kind = "apache"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from sluice_cli.mesh import apache
        from sluice_cli.mesh.home import Home

        folder.mkdir(parents=True, exist_ok=True)
        try:
            distribution = apache.resolve(print)
        except apache.CannotRun as reason:
            pytest.skip(f"Apache Kafka cannot run here: {reason}")
        self._command = apache.program(Home(folder), self.port, distribution).command
        self.data = folder / "kafka" / "data"

    def command(self) -> Sequence[str]:
        return self._command


def new_broker(kind: str, folder: Path) -> Broker:
    """A broker that is not started yet. Skips the test with the reason where Apache Kafka cannot be had."""
    if kind == "embedded":
        return EmbeddedBroker(folder)
    pytest.importorskip("sluice_cli", reason="the kit is installed without sluice-cli, which can start Apache Kafka")
    return ApacheBroker(folder)
