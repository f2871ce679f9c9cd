"""The supervisor of the processes: supervisord, its configuration and its XML-RPC interface."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
from supervisor.xmlrpc import SupervisorTransport

from sluice_cli.mesh.home import Home
from sluice_cli.mesh.plan import Program
from sluice_cli.mesh.problem import MeshProblem

SERVICES_GROUP = "services"
# Marks every process of a mesh, so that `down` finds those whose supervisor was killed.
MARK = "SLUICE_MESH_HOME"
STOP_SECONDS = 75
# supervisord keeps no exit code of a program that ends within its first seconds; only its log tells.
_QUICK_EXIT = re.compile(rb"exited: (\S+) \(exit status (\d+); not expected\)")
_LOG_TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class ProcessState:
    """What the supervisor knows of one process."""

    name: str
    state: str
    """supervisord's word: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL, UNKNOWN."""
    pid: int
    uptime_seconds: int
    exit_code: int = 0
    """Of its last end, until it is started again; 0 while it runs."""

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the process and its children; 0 when it is gone."""
        try:
            process = psutil.Process(self.pid) if self.pid else None
            return sum(p.memory_info().rss for p in [process, *process.children(recursive=True)]) if process else 0
        except psutil.Error:
            return 0


def render(home: Home, broker: Program | None, services: Sequence[Program]) -> str:
    """supervisord's configuration. Services do not start by themselves: topics come first."""
    socket, run, logs = (_escape(str(path)) for path in (home.socket, home.run, home.logs))
    sections = [
        f"[unix_http_server]\nfile={socket}\nchmod=0700",
        f"[supervisord]\nlogfile={logs}/supervisord.log\nlogfile_maxbytes=5MB\nlogfile_backups=1\nloglevel=info"
        f"\npidfile={run}/supervisord.pid\nchildlogdir={logs}\nnodaemon=true\nsilent=true\numask=077",
        "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface",
    ]
    if broker:
        sections.append(_program(broker, logs, autostart=True))
    sections += [_program(program, logs, autostart=False) for program in services]
    # One group is stopped after another, and within a group all at once: the services together, then the broker.
    sections.append(f"[group:{SERVICES_GROUP}]\nprograms={','.join(p.name for p in services)}\npriority=999")
    return "\n\n".join(sections) + "\n"


def _program(program: Program, logs: str, *, autostart: bool) -> str:
    lines = [
        f"[program:{program.name}]",
        f"command={_escape(shlex.join(program.command))}",
        f"autostart={str(autostart).lower()}",
        "autorestart=true",
        # A start that dies within 5 s is tried again after 1, 2, 3 ... s, and never given up.
        "startsecs=5",
        "startretries=1000000000",
        f"stopsignal={program.stop_signal}",
        f"stopwaitsecs={program.stop_wait_seconds}",
        "stopasgroup=true",
        "killasgroup=true",
        "priority=10",
        "redirect_stderr=true",
        f"stdout_logfile={logs}/{program.name}.log",
        "stdout_logfile_maxbytes=10MB",
        "stdout_logfile_backups=2",
    ]
    if program.environment:
        values = (f'{name}="{_escape(value)}"' for name, value in program.environment.items())
        lines.append(f"environment={','.join(values)}")
    return "\n".join(lines)


def _escape(value: str) -> str:
    # supervisord expands %(...)s everywhere.
    return value.replace("%", "%%")


class Supervisor:
    """supervisord of one home, whether it runs or not."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @property
    def configuration(self) -> str:
        """Path of its configuration."""
        return str(self._home.run / "supervisord.conf")

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._home.socket}")
        # The host name is never looked up: the transport goes to the socket.
        with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            return getattr(proxy.supervisor, method)(*arguments)

    def pid(self) -> int | None:
        """Its process id when it runs and answers; otherwise None."""
        try:
            return int(self._call("getPID"))
        except (OSError, xmlrpc.client.Error):
            return None

    def start(
        self, text: str, environment: Mapping[str, str], *, leashed: bool, ports: Iterable[int]
    ) -> subprocess.Popen[bytes]:
        """Starts it with this configuration, holding the ports. Leashed, it ends when the returned process's stdin is closed."""
        (self._home.run / "supervisord.conf").write_text(text)
        self._home.socket.unlink(missing_ok=True)
        mark = {
            MARK: str(self._home.path),
            "SLUICE_MESH_LEASH": "1" if leashed else "0",
            "SLUICE_MESH_PORTS": ",".join(map(str, ports)),
        }
        # A session of its own: Ctrl-C in the terminal and the terminal's end reach only the command in front of it.
        # supervisord would read SIGHUP as "restart everything".
        with (self._home.logs / "supervisord.stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "sluice_cli.mesh.leash", "-c", self.configuration],
                stdin=subprocess.PIPE if leashed else subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**os.environ, **environment, **mark},
                cwd=self._home.path,
                start_new_session=True,
            )
        self._await_answer(process)
        return process

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            if self.pid() == process.pid:
                return
            time.sleep(0.05)
        told = (self._home.logs / "supervisord.stderr").read_text(errors="replace").strip().splitlines()
        raise MeshProblem(
            f"supervisord did not start: {told[-1] if told else 'it said nothing'} (see {self._home.logs})."
        )

    def states(self) -> list[ProcessState]:
        """All processes. MeshProblem when the supervisor does not answer."""
        try:
            told = self._call("getAllProcessInfo")
        except (OSError, xmlrpc.client.Error):
            raise MeshProblem("The supervisor is gone.") from None
        quick = self._quick_exits() if any(one["statename"] == "BACKOFF" for one in told) else {}
        return [
            ProcessState(
                one["name"],
                one["statename"],
                one["pid"],
                one["now"] - one["start"] if one["pid"] else 0,
                quick.get(one["name"], 0) if one["statename"] == "BACKOFF" else one["exitstatus"],
            )
            for one in told
        ]

    def _quick_exits(self) -> dict[str, int]:
        """By program, the code of its last end that came at once."""
        with (self._home.logs / "supervisord.log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return {name.decode(): int(code) for name, code in _QUICK_EXIT.findall(log.read())}

    def start_services(self) -> None:
        """Starts all services at once, without waiting for them."""
        self._call("startProcessGroup", SERVICES_GROUP, False)

    @contextlib.contextmanager
    def without(self, service: str) -> Iterator[None]:
        """Inside, this service does not run; afterwards it is started again. Nothing is done where no supervisor runs."""
        name = f"{SERVICES_GROUP}:{service}"
        stopped = bool(self.pid()) and any(one.name == service and one.pid for one in self.states())
        if stopped:
            self._call("stopProcess", name, True)
        try:
            yield
        finally:
            if stopped:
                self._call("startProcess", name, False)

    def stop(self) -> bool:
        """Stops everything, the supervisor last, and returns when no process is left. False when none was running."""
        found = self._processes()
        if not found:
            return False
        pid = self.pid()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            psutil.wait_procs([p for p in found if p.pid == pid], timeout=STOP_SECONDS)
        self._end(self._processes())
        return True

    def _end(self, processes: list[psutil.Process]) -> None:
        for ask in (psutil.Process.terminate, psutil.Process.kill):
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    ask(process)
            _, processes = psutil.wait_procs(processes, timeout=15)

    def _processes(self) -> list[psutil.Process]:
        """Every process of this mesh, found by its mark: also those whose supervisor was killed."""
        return [p for p in psutil.process_iter() if p.pid != os.getpid() and self._is_ours(p)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == str(self._home.path)
        except (psutil.Error, OSError):
            return False

    def leftovers(self) -> bool:
        """True when processes of this mesh live on without their supervisor."""
        return self.pid() is None and bool(self._processes())
