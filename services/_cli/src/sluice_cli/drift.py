"""The command `sluice drift`: what an operator tells the drift processor."""

import json
import os
import subprocess
import sys
from typing import Annotated

import typer

from sluice_cli import terminal
from sluice_cli.mesh import demo_env
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem

MODULE = "sluice_drift.main"

drift = typer.Typer(no_args_is_help=True, help="Tell the drift processor what to compare with.")
console = terminal.console()


@drift.callback()
def _commands() -> None:
    """Keeps `pin` a command of its own."""


@drift.command()
def pin(
    model: Annotated[str, typer.Argument(help="The model, as drift's series names it.")],
    tenant: Annotated[str, typer.Option(help="Whose series; the series of all tenants without it.")] = "",
) -> None:
    """Pin the reference of a series anew, from the next observations on. The old one stays in use until they are enough."""
    told = asked(Home.here(), ["pin", model, "--tenant", tenant])
    whose = f"tenant {told['tenant_id']}" if told["tenant_id"] else "all tenants"
    console.print(
        f"Asked for version {told['version']} of the reference of {told['model']}, {whose} ({told['command_id']}). It takes over from "
        f"version {told['replaces']} with the first window after the next {told['observations_to_collect']} texts and requests.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def asked(home: Home, arguments: list[str], *, module: str = MODULE) -> dict[str, str]:
    """As a process of its own: the command may not import a service."""
    known = demo_env.read(home) if home.demo_env.exists() else {}
    environment = {"SLUICE_HOME": str(home.path)} | known | dict(os.environ)
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise MeshProblem(lines[-1] if lines else f"{module} ended with exit code {done.returncode}.")
    told: dict[str, str] = json.loads(done.stdout)
    return told
