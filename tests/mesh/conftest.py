"""The real mesh, started once for each broker that this machine can have."""

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from sluice_cli.events import follow, topics_named
from sluice_cli.mesh import apache, demo_env, plan
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.ports import is_free
from sluice_cli.mesh.readiness import is_ready
from sluice_cli.mesh.supervisor import MARK, Supervisor
from sluice_kit.addresses import DEFAULT_PORTS
from sluice_kit.settings import MeshSettings

SLUICE = str(Path(sys.executable).parent / "sluice")
START_SECONDS = 240


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/mesh" in item.path.as_posix():
            item.add_marker(pytest.mark.mesh)


def eventually(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What check returns as soon as it is true; the last answer when it never is."""
    deadline = time.monotonic() + seconds
    while not (answer := check()) and time.monotonic() < deadline:
        time.sleep(0.25)
    return answer


def free_offset() -> int:
    """An offset at which no port of the mesh is taken."""
    wanted = [*DEFAULT_PORTS.values(), DEFAULT_PORTS["kafka"] + 1]
    for offset in random.sample(range(500, 9500), 200):
        if all(is_free(port + offset) for port in wanted):
            return offset
    raise AssertionError("no free range of ports")


@dataclass(frozen=True)
class Mesh:
    """A mesh of processes with its own home and ports."""

    home: Home
    offset: int
    broker: str

    @property
    def settings(self) -> dict[str, str]:
        own = {
            "SLUICE_HOME": str(self.home.path),
            "SLUICE_PORT_BASE_OFFSET": str(self.offset),
            "SLUICE_KAFKA": self.broker,
        }
        # Tests must not be led elsewhere by the shell they are started from.
        return (
            {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
            | own
            | {"COLUMNS": "120"}
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """What demo.env says."""
        return demo_env.read(self.home)

    def sluice(self, *arguments: str, timeout: float = START_SECONDS, **more: str) -> subprocess.CompletedProcess[str]:
        """Runs the command for this mesh."""
        environment = self.settings | more
        return subprocess.run(
            [SLUICE, *arguments], env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts the command for this mesh, in a session of its own, as a terminal would."""
        return subprocess.Popen(
            [SLUICE, *arguments],
            env=self.settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def pid(self, name: str) -> int:
        """Process id of a service now; 0 while there is none."""
        return next((state.pid for state in Supervisor(self.home).states() if state.name == name), 0)

    def is_ready(self) -> bool:
        """True when a supervisor runs and all its processes are ready."""
        states = {state.name: state for state in Supervisor(self.home).states()} if Supervisor(self.home).pid() else {}
        programs = plan.running(tuple(states), self.offset)
        return bool(programs) and all(states[program.name].pid and is_ready(program.check) for program in programs)

    def processes(self) -> list[psutil.Process]:
        """Every process of this mesh, however orphaned."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == str(self.home.path):
                    found.append(process)
        return found

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Everything on the event topics now, as `sluice events tail` tells it."""
        settings = MeshSettings(
            kafka_bootstrap=self.environment["SLUICE_KAFKA_BOOTSTRAP"], kafka_embedded=self.broker == "embedded"
        )

        async def read() -> list[dict[str, Any]]:
            async with asyncio.timeout(60):
                seen = follow(settings, topics_named(names), from_beginning=True, live=False)
                return [json.loads(event.as_json()) async for event in seen]

        return asyncio.run(read())


def runs_apache() -> str:
    """Why Apache Kafka cannot run here; empty when it can."""
    try:
        apache.resolve(print)
    except apache.CannotRun as reason:
        return str(reason)
    return ""


@pytest.fixture(scope="session", params=["embedded", "apache"])
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """The whole mesh on one broker. Embedded everywhere; Apache Kafka where Java and Maven can have it."""
    if request.param == "apache" and (reason := runs_apache()):
        pytest.skip(f"Apache Kafka cannot run here: {reason}")
    mesh = Mesh(Home(tmp_path_factory.mktemp(f"mesh-{request.param}")), free_offset(), request.param)
    try:
        begun = time.monotonic()
        # Tests on this mesh count all its requests, marked ones too: rounds of self-tests run only when they are asked for.
        up = mesh.sluice(
            "mesh", "up", "--detach", "--timeout", str(START_SECONDS - 40), SLUICE_PROBES_INTERVAL_SECONDS="0"
        )
        assert up.returncode == 0, up.stdout + up.stderr
        note(request, f"mesh on {request.param} Kafka: ready in {time.monotonic() - begun:.0f} s\n{_lines(up.stdout)}")
        yield mesh
    finally:
        mesh.sluice("mesh", "down")
        left = mesh.processes()
        assert not left, f"left after `sluice mesh down`: {left}"


def _lines(output: str) -> str:
    return "\n".join(line for line in output.splitlines() if "✓" in line or "Kafka:" in line)


REPORTS = pytest.StashKey[list[str]]()


def note(request: pytest.FixtureRequest, text: str) -> None:
    request.config.stash.setdefault(REPORTS, []).append(text)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Which brokers were used is seen in the output of every run, also of one that passes."""
    for text in config.stash.get(REPORTS, []):
        terminalreporter.write_line(text)
