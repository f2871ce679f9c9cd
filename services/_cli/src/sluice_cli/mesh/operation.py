"""Bringing the mesh up, watching it, and taking it down."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import FrameType

from rich.console import Console
from sluice_kit.broker import ensure_topics
from sluice_kit.process import StartFailed
from sluice_kit.settings import MeshSettings

from sluice_cli.mesh import broker as brokers
from sluice_cli.mesh import demo_env, plan, ports
from sluice_cli.mesh.board import Board, print_addresses, print_status
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.logs import last_words
from sluice_cli.mesh.plan import Program
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.mesh.readiness import is_ready
from sluice_cli.mesh.supervisor import ProcessState, Supervisor, render

POLL_SECONDS = 0.2
WATCH_SECONDS = 2.0
BROKER_SECONDS = 60
# The kit's exit codes for settings that are wrong and a port that is taken: starting again changes nothing.
HOPELESS_EXITS = (2, 3)


class Interrupted(BaseException):
    """Ctrl-C, SIGTERM, or the terminal is gone."""


@dataclass(frozen=True)
class Mesh:
    """What is to run, and where."""

    home: Home
    offset: int
    broker: brokers.Broker
    services: tuple[Program, ...]

    @property
    def programs(self) -> tuple[Program, ...]:
        """Everything under the supervisor, the broker first."""
        return (*((self.broker.program,) if self.broker.program else ()), *self.services)

    @property
    def ports_at_risk(self) -> list[int]:
        """Ports of services that the system may give to an outgoing connection while nobody listens there."""
        return [port for service in self.services for port in service.ports.values() if port in ports.ephemeral_ports()]

    @property
    def environment(self) -> dict[str, str]:
        """What every process of it is told, beside its own settings."""
        loopback = "127.0.0.1,localhost"
        return {
            "SLUICE_HOME": str(self.home.path),
            "SLUICE_PORT_BASE_OFFSET": str(self.offset),
            "SLUICE_INSTANCE": "0",
            "SLUICE_GATEWAY_CONFIG_FILE": str(self.home.gateway_file),
            # Nothing between the processes may go through a proxy of this machine.
            "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), loopback))),
            "no_proxy": ",".join(filter(None, (os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), loopback))),
            **self.broker.environment,
        }


def up(
    home: Home, offset: int, names: Sequence[str], *, console: Console, timeout_seconds: float, detach: bool
) -> bool:
    """Starts the mesh; True when all of it became ready. In the foreground it returns when the mesh has been stopped again."""
    supervisor = Supervisor(home)
    if detach and supervisor.pid():
        console.print("The mesh runs already.")
        return status(home, console=console)
    home.prepare()
    ready = keep = False
    with _only_one_start(home), _signals_interrupt():
        mesh = _prepare(home, offset, names, console)
        board = Board(console, mesh.programs)
        configuration = render(home, mesh.broker.program, mesh.services)
        try:
            leash = supervisor.start(configuration, mesh.environment, leashed=not detach, ports=mesh.ports_at_risk)
            ready = _start(mesh, supervisor, board, timeout_seconds)
            keep = detach and ready
            _tell(mesh, console, ready=ready)
            if not detach:
                _watch(supervisor, board, leash)
        except Interrupted:
            console.print()
        finally:
            if not keep:
                _stop(supervisor, console)
    return ready


def _prepare(home: Home, offset: int, names: Sequence[str], console: Console) -> Mesh:
    supervisor = Supervisor(home)
    pid = supervisor.pid()
    if pid:
        raise MeshProblem(
            f"The mesh of SLUICE_HOME={home.path} runs already (supervisor pid {pid}):"
            " see it with `sluice mesh status`, end it with `sluice mesh down`."
        )
    if supervisor.leftovers():
        console.print("  [dim]Ending what a killed supervisor has left behind ...[/]")
        supervisor.stop()
    services = plan.services(tuple(names) or plan.whole_mesh(os.environ), offset)

    def say(text: str) -> None:
        console.print(f"  [dim]{text}[/]", highlight=False)

    broker = brokers.choose(home, offset, say)
    mesh = Mesh(home, offset, broker, services)
    ports.check_free(mesh.programs, offset, say)
    brokers.remember(home, broker)
    demo_env.write(home, offset, broker.environment)
    console.print(f"  Kafka: {broker.why}.", highlight=False, soft_wrap=True)
    return mesh


def _start(mesh: Mesh, supervisor: Supervisor, board: Board, timeout_seconds: float) -> bool:
    begun = time.monotonic()
    if mesh.broker.program:
        _await(mesh, (mesh.broker.program,), supervisor, board, begun, BROKER_SECONDS)
    created = _create_topics(mesh)
    if created:
        board.say(f"{created} topics created")
    supervisor.start_services()
    return not _await(mesh, mesh.services, supervisor, board, time.monotonic(), timeout_seconds)


def _create_topics(mesh: Mesh) -> int:
    settings = MeshSettings(  # type: ignore[call-arg]  # its fields are filled by name
        home=mesh.home.path,
        kafka_bootstrap=mesh.broker.bootstrap,
        kafka_embedded=mesh.broker.kind == "embedded",
        port_base_offset=mesh.offset,
    )
    try:
        return len(asyncio.run(ensure_topics(settings)))
    except StartFailed as problem:
        raise MeshProblem(str(problem)) from None


def _await(
    mesh: Mesh, programs: Sequence[Program], supervisor: Supervisor, board: Board, begun: float, timeout_seconds: float
) -> tuple[Program, ...]:
    """Waits until the programs are ready, a line each; the ones that are not in time."""
    waiting = tuple(programs)
    with ThreadPoolExecutor(len(waiting)) as pool, board.waiting() as tell:
        while waiting and time.monotonic() - begun < timeout_seconds:
            tell(waiting)
            answers = list(zip(waiting, pool.map(lambda program: is_ready(program.check), waiting), strict=True))
            states = _by_name(supervisor)
            # Who answers on a port while the supervisor has no such process is not ours.
            ready = [program for program, answer in answers if answer and states[program.name].pid]
            for program in ready:
                board.ready(program, states[program.name], time.monotonic() - begun)
            waiting = tuple(program for program in waiting if program not in ready)
            if any(states[program.name].exit_code in HOPELESS_EXITS for program in waiting):
                break
            time.sleep(POLL_SECONDS if waiting else 0)
    states = _by_name(supervisor)
    hopeless = tuple(program for program in waiting if states[program.name].exit_code in HOPELESS_EXITS)
    for program in hopeless or waiting:
        words = last_words(mesh.home.logs / f"{program.name}.log")
        board.late(program, states[program.name].state, time.monotonic() - begun, words)
    return waiting


def _by_name(supervisor: Supervisor) -> dict[str, ProcessState]:
    return {state.name: state for state in supervisor.states()}


def _tell(mesh: Mesh, console: Console, *, ready: bool) -> None:
    if ready and {service.name for service in mesh.services} >= set(plan.SERVICES):
        print_addresses(console, mesh.home, demo_env.read(mesh.home))
    elif not ready:
        console.print(
            f"  [red]Not all of the mesh is ready.[/] Logs: {mesh.home.logs}", highlight=False, soft_wrap=True
        )


def _watch(supervisor: Supervisor, board: Board, leash: subprocess.Popen[bytes]) -> None:
    """Says what is restarted, until the supervisor ends (`sluice mesh down`) or a signal comes."""
    board.say("Ctrl-C stops it.")
    pids = {name: state.pid for name, state in _by_name(supervisor).items()}
    while leash.poll() is None:
        with contextlib.suppress(MeshProblem):
            for name, state in _by_name(supervisor).items():
                if state.pid and state.pid != pids.get(name):
                    board.restarted(name, state.pid)
                    pids[name] = state.pid
        time.sleep(WATCH_SECONDS)


def _stop(supervisor: Supervisor, console: Console) -> None:
    for number in STOPPING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # it is stopping already; every wait in it is bounded
    supervisor.stop()
    with contextlib.suppress(OSError):  # the terminal may be gone
        console.print("  Stopped; no process is left.")


def down(home: Home, *, console: Console) -> None:
    """Stops the mesh, also what a killed supervisor has left behind."""
    stopped = Supervisor(home).stop()
    console.print(
        "Stopped; no process is left." if stopped else f"No mesh runs in SLUICE_HOME={home.path}.", highlight=False
    )


def require_running(home: Home) -> Supervisor:
    """The supervisor of the mesh. MeshProblem when none runs."""
    supervisor = Supervisor(home)
    if not supervisor.pid():
        left = "; processes of a killed one are left, `sluice mesh down` ends them" if supervisor.leftovers() else ""
        raise MeshProblem(f"No mesh runs in SLUICE_HOME={home.path}{left}: start one with `make run`.")
    return supervisor


def status(home: Home, *, console: Console) -> bool:
    """Shows the processes; True when all of them are ready. MeshProblem when no mesh runs."""
    supervisor = require_running(home)
    # Where the mesh is, is told by its own folder, not by the shell that asks.
    offset = int(demo_env.read(home).get("SLUICE_PORT_BASE_OFFSET", "0"))
    states = _by_name(supervisor)
    programs = plan.running(tuple(states), offset)
    with ThreadPoolExecutor(len(programs)) as pool:
        ready = dict(zip((p.name for p in programs), pool.map(lambda p: is_ready(p.check), programs), strict=True))
    print_status(console, programs, states, ready)
    return all(ready.values())


@contextlib.contextmanager
def _only_one_start(home: Home) -> Iterator[None]:
    with (home.run / "start.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MeshProblem(
                f"Another `sluice mesh up` holds SLUICE_HOME={home.path}: end it first, or set SLUICE_HOME to another folder."
            ) from None
        yield


STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in STOPPING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
