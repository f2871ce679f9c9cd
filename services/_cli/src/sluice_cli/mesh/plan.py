"""What runs: every process of the mesh with its command, its ports and the check that says it is ready."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sluice_kit.addresses import DEFAULT_PORTS, default_listen

from sluice_cli.mesh.problem import MeshProblem

GRPC_SERVICES = ("inference", "redaction", "moderation", "gateway", "cost", "feedback", "insight", "probes")
"""Heaviest start first."""
STREAM_PROCESSORS = ("quality", "drift", "fairness")
PAGES = ("console",)
SELF_TEST_MODEL = "sluice-self-test"
"""Id and alias of the model that answers the mesh's self-tests."""
SERVICES = (*GRPC_SERVICES, *STREAM_PROCESSORS, *PAGES)
JUDGE = "quality-judge"
OPTIONAL = (JUDGE,)
"""Part of a whole mesh only where it is asked for, and never on its own account."""


@dataclass(frozen=True)
class Check:
    """How to see that a process is ready: `grpc` (grpc.health.v1, overall), `http` (200 on /healthz) or `tcp` (it listens)."""

    kind: str
    port: int


@dataclass(frozen=True)
class Program:
    """One process."""

    name: str
    command: tuple[str, ...]
    ports: Mapping[str, int]
    """Listener name to port on loopback."""
    check: Check
    stop_signal: str = "TERM"
    stop_wait_seconds: int = 15
    """After this long the process is killed. Longer than the ten seconds a service drains."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where to reach it."""
        return f"127.0.0.1:{self.check.port}"


def whole_mesh(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The names of all services that this environment asks for."""
    return (*SERVICES, *((JUDGE,) if _is_judging(environment) else ()))


def _is_judging(environment: Mapping[str, str]) -> bool:
    """Whether a share of the answers is to be graded. What is no share counts as one, so that the judge tells what is wrong."""
    rate, rates = (environment.get(f"SLUICE_QUALITY_JUDGE_{name}", "").strip() for name in ("RATE", "RATES"))
    try:
        return float(rate or 0) != 0 or any(json.loads(rates or "{}").values())
    except (ValueError, AttributeError):
        return True


def services(names: tuple[str, ...], offset: int) -> tuple[Program, ...]:
    """The services by name, on their default ports shifted by the offset. MeshProblem for an unknown or missing one."""
    known = (*SERVICES, *OPTIONAL)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise MeshProblem(f"There is no service {', '.join(unknown)}; there are {', '.join(known)}.")
    return tuple(_service(name, offset, names) for name in known if name in names)


def running(names: tuple[str, ...], offset: int) -> tuple[Program, ...]:
    """The programs that a supervisor names, for showing them; the broker first."""
    port = DEFAULT_PORTS["kafka"] + offset
    broker = Program(name="kafka", command=(), ports={"kafka": port}, check=Check("tcp", port))
    return (
        *((broker,) if "kafka" in names else ()),
        *services(tuple(n for n in names if n in (*SERVICES, *OPTIONAL)), offset),
    )


def _service(name: str, offset: int, names: tuple[str, ...]) -> Program:
    listeners = [name, f"{name}_http", _web_of(name), f"metrics_{name}"]
    ports = {listener: DEFAULT_PORTS[listener] + offset for listener in listeners if listener in DEFAULT_PORTS}
    check = Check("grpc", ports[name]) if name in GRPC_SERVICES else Check("http", ports[_page_of(name)])
    return Program(
        name=name,
        command=(str(_script(f"sluice-{name}")),),
        ports=ports,
        check=check,
        environment=_environment(name, names, offset),
    )


def _page_of(name: str) -> str:
    """The listener that answers /healthz."""
    return name if name in PAGES else _web_of(name)


def _web_of(name: str) -> str:
    return f"{name.replace('-', '_')}_web"


def _environment(name: str, names: tuple[str, ...], offset: int) -> dict[str, str]:
    # By itself it serves no /healthz: two of them may stand on one machine.
    if name == JUDGE:
        return {"SLUICE_QUALITY_JUDGE_METRICS_LISTEN": default_listen(_web_of(name), offset)}
    # Without a cost service nobody has a budget. A gateway that was not told so would refuse everybody, since who may have one is
    # not let through while nobody can tell.
    if name == "gateway" and "cost" not in names and "SLUICE_COST_TARGET" not in os.environ:
        return {"SLUICE_GATEWAY_BUDGETS": "false"}
    # Receivers of alerts are told where a person sees them.
    if name == "insight" and "console" in names and "SLUICE_INSIGHT_CONSOLE_URL" not in os.environ:
        return {"SLUICE_INSIGHT_CONSOLE_URL": f"http://{default_listen('console', offset)}"}
    # llama.cpp's threads spin while they wait for one another. One a core, on cores shared with ten processes, is many times
    # slower than half of that: measured on two busy cores, 40 tokens took 1-3 s with one thread and 20-40 s with two.
    if name == "inference":
        own = {
            "SLUICE_INFERENCE_THREADS": str(max(1, (os.cpu_count() or 2) // 2)),
            "SLUICE_INFERENCE_SELF_TEST_MODEL": SELF_TEST_MODEL,
        }
        return {variable: value for variable, value in own.items() if variable not in os.environ}
    return {}


def _script(name: str) -> Path:
    # The console scripts of the services stand beside this Python; PATH may lead to another environment.
    script = Path(sys.executable).parent / name
    if not script.exists():
        raise MeshProblem(f"{name} is not installed beside {sys.executable}: run `make setup`.")
    return script
