"""The `sluice` command."""

import asyncio
import os
import sys
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from sluice_kit.errors import SluiceError

from sluice_cli import cost, decision, probe, terminal
from sluice_cli.alerts.commands import alerts
from sluice_cli.drift import drift
from sluice_cli.event_commands import events
from sluice_cli.mesh import demo_env, operation
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.metrics import metrics
from sluice_cli.privacy.commands import privacy
from sluice_cli.requests.commands import requests
from sluice_cli.service_channel import in_words

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sluice: a governed, measured mesh for language models.",
)
mesh = typer.Typer(no_args_is_help=True, help="Run the mesh on this machine.")
app.add_typer(mesh, name="mesh")
app.add_typer(events, name="events")
app.add_typer(privacy, name="privacy")
app.add_typer(cost.app, name="cost")
app.add_typer(alerts, name="alerts")
app.add_typer(drift, name="drift")
app.command("requests")(requests)
app.command("metrics")(metrics)

console = terminal.console()


def _offset() -> int:
    told = os.environ.get("SLUICE_PORT_BASE_OFFSET") or "0"
    if not told.isdecimal() or int(told) > 10_000:
        raise MeshProblem(f"SLUICE_PORT_BASE_OFFSET={told} must be a number from 0 to 10000.")
    return int(told)


@mesh.command()
def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return when all is ready, and let it run.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds until every service must be ready.")] = 180.0,
    service: Annotated[
        list[str] | None, typer.Option(help="Only this service (may be repeated); all without it.")
    ] = None,
) -> None:
    """Start broker and services, each as its own process; Ctrl-C stops them."""
    ready = operation.up(Home.here(), _offset(), service or (), console=console, timeout_seconds=timeout, detach=detach)
    raise typer.Exit(0 if ready else 1)


@mesh.command()
def down() -> None:
    """Stop everything."""
    operation.down(Home.here(), console=console)


@mesh.command()
def status() -> None:
    """Show the processes. Exit code 0 when all of them are ready."""
    raise typer.Exit(0 if operation.status(Home.here(), console=console) else 1)


@app.command()
def demo(
    count: Annotated[int, typer.Option(min=1, max=1000, help="Conversations to send.")] = 36,
    seed: Annotated[int, typer.Option(help="The same seed gives the same conversations.")] = 7,
    concurrency: Annotated[int, typer.Option(min=1, max=32, help="Conversations at a time.")] = 4,
) -> None:
    """Send real conversations through the running mesh, and show what it measured. Exit code 0 when all counts agree."""
    # Here and not above: the openai client takes a second to import, which every other command would pay.
    from sluice_cli.demo import performance

    home = Home.here()
    operation.require_running(home)
    agreed = asyncio.run(performance.perform(home, console, count=count, seed=seed, concurrency=concurrency))
    raise typer.Exit(0 if agreed else 1)


@app.command()
def explain(
    decision_id: Annotated[str, typer.Argument(help="As in x-sluice-decision-ids or a ContentModerated event.")],
    tenant: Annotated[str, typer.Option(help="Whose decision it is; the demo tenant without it.")] = "",
    json: Annotated[bool, typer.Option("--json", help="The whole evidence as JSON.")] = False,
) -> None:
    """Tell why a text was flagged, withheld or let through."""
    evidence = decision.explained(decision_id, tenant, decision.environment(Home.here()))
    decision.show(evidence, console, as_json=json)


@app.command(name="probe")
def probe_command(
    once: Annotated[bool, typer.Option("--once", help="Run a round now; without it the newest one is shown.")] = False,
) -> None:
    """Show whether the filters are really on, by route and mode. Exit code 0 when every guard was seen on."""
    target = demo_env.target(Home.here(), "probes")
    with in_words("probes", "sends the self-tests"):
        told = probe.report(target, once=once)
    probe.show(told, console)
    raise typer.Exit(0 if probe.is_guarded(told) else 1)


def main() -> None:
    """Runs the command; a problem is one sentence on standard error and exit code 1."""
    try:
        app()
    except (MeshProblem, SluiceError) as problem:
        _tell(str(problem))
    except OSError as problem:
        # A file that was named by the caller. Anything else is a fault of ours, of which the trace tells more.
        if problem.filename is None:
            raise
        _tell(f"{problem.filename}: {problem.strerror}.")


def _tell(problem: str) -> NoReturn:
    Console(stderr=True).print(f"[red]sluice:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
