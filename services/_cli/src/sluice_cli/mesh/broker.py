"""Which Kafka: the one named by SLUICE_KAFKA_BOOTSTRAP, else Apache Kafka where it can be had, else the embedded one."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from sluice_kit.addresses import DEFAULT_PORTS

from sluice_cli.mesh import apache, embedded
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.plan import Program
from sluice_cli.mesh.problem import MeshProblem

KINDS = ("apache", "embedded")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Broker:
    """The broker of this run."""

    kind: str
    """`external`, `apache` or `embedded`."""
    why: str
    """One line for the person at the keyboard."""
    bootstrap: str
    program: Program | None = None
    """The process to run; None when it is somebody else's."""

    @property
    def environment(self) -> dict[str, str]:
        """How clients are told."""
        return {"SLUICE_KAFKA_BOOTSTRAP": self.bootstrap, "SLUICE_KAFKA_EMBEDDED": str(self.kind == "embedded").lower()}


def choose(home: Home, offset: int, say: Say) -> Broker:
    """The broker PARTS.md prescribes. MeshProblem when what was asked for cannot be had."""
    own = f"127.0.0.1:{DEFAULT_PORTS['kafka'] + offset}"
    named = os.environ.get("SLUICE_KAFKA_BOOTSTRAP", "")
    begun_with = _begun_with(home)
    # Whoever has sourced our demo.env names the broker that we start ourselves.
    if named and not (named == own and begun_with):
        return Broker("external", f"the one at {named} (SLUICE_KAFKA_BOOTSTRAP)", named)
    kind, why, libraries = _kind(begun_with, say)
    if kind == "apache":
        program = apache.program(home, DEFAULT_PORTS["kafka"] + offset, libraries or apache.resolve(say))
        return Broker(kind, f"Apache Kafka {apache.VERSION}, {why}", own, program)
    return Broker(kind, f"embedded (noida-db), {why}", own, embedded.program(home, DEFAULT_PORTS["kafka"] + offset))


def _kind(begun_with: str | None, say: Say) -> tuple[str, str, apache.Distribution | None]:
    forced = os.environ.get("SLUICE_KAFKA", "")
    if forced and forced not in KINDS:
        raise MeshProblem(f"SLUICE_KAFKA={forced} is unknown: it may be apache or embedded, or empty.")
    if begun_with and forced and forced != begun_with:
        raise MeshProblem(
            f"This SLUICE_HOME was begun with the {begun_with} broker, and what services have read there does not fit"
            f" another: unset SLUICE_KAFKA, delete the folder, or set SLUICE_HOME to another."
        )
    if forced:
        return forced, "because SLUICE_KAFKA says so", None
    if begun_with:
        return begun_with, "as this SLUICE_HOME was begun with it", None
    try:
        return "apache", "because Java and its artifacts are here", apache.resolve(say)
    except apache.CannotRun as reason:
        if not embedded.installed():
            raise MeshProblem(
                f"There is no broker: Apache Kafka cannot run here ({reason}), and the embedded one is not installed"
                " (pip install 'sluice-cli[embedded]'). Or point SLUICE_KAFKA_BOOTSTRAP at one."
            ) from None
        return "embedded", f"because Apache Kafka cannot run here ({reason})", None


def _begun_with(home: Home) -> str | None:
    if not home.broker_file.exists():
        return None
    kind = home.broker_file.read_text().strip()
    return kind if kind in KINDS else None


def remember(home: Home, broker: Broker) -> None:
    """Notes the broker in the home: the next start takes the same, for offsets and data belong to it."""
    if broker.program:
        home.broker_file.write_text(f"{broker.kind}\n")
