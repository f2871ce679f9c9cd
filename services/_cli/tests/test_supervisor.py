"""The real supervisor over small processes."""

import sys
import time
from pathlib import Path

from sluice_cli.mesh.home import Home
from sluice_cli.mesh.plan import Check, Program
from sluice_cli.mesh.supervisor import ProcessState, Supervisor, render


def running(name: str, code: str) -> Program:
    return Program(name=name, command=(sys.executable, "-c", code), ports={}, check=Check("tcp", 1))


def test_a_process_that_ends_at_once_is_known_by_its_exit_code_while_others_run(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    supervisor = Supervisor(home)
    programs = (running("wrong", "raise SystemExit(2)"), running("right", "import time; time.sleep(60)"))
    process = supervisor.start(render(home, None, programs), {}, leashed=False, ports=())
    try:
        supervisor.start_services()
        assert told(supervisor, "wrong").exit_code == 2
        assert told(supervisor, "right", state="RUNNING").exit_code == 0
    finally:
        assert supervisor.stop()
        process.wait(10)


def told(supervisor: Supervisor, name: str, *, state: str = "BACKOFF") -> ProcessState:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = next(one for one in supervisor.states() if one.name == name)
        if found.state == state:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{name} is {found.state}, not {state}")
