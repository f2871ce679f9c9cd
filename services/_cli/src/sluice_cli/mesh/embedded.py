"""The embedded broker, noida-db: for machines with nothing but pip. Rules it needs: kafka-faust notes in docs/decisions."""

from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from sluice_cli.mesh.home import Home
from sluice_cli.mesh.plan import Check, Program
from sluice_cli.mesh.problem import MeshProblem


def installed() -> bool:
    """True when the optional extra is there."""
    return find_spec("noida_db") is not None


def program(home: Home, port: int) -> Program:
    """The broker as a process. MeshProblem when it is not installed."""
    if not installed():
        raise MeshProblem("The embedded broker is not installed: pip install 'sluice-cli[embedded]'.")
    # The package's own starter stays as a parent in between and passes no signal on; so we start the binary itself.
    binary = Path(str(files("noida_db"))) / "noida-db"
    binary.chmod(0o755)
    data = home.path / "noida"
    return Program(
        name="kafka",
        command=(str(binary), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(data)),
        ports={"kafka": port},
        check=Check("tcp", port),
        # It saves on SIGINT; on a killing it loses what was acknowledged within about a second.
        stop_signal="INT",
        stop_wait_seconds=30,
    )
