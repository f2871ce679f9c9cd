"""The commands `sluice alerts ...`."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from sluice.insight.v1 import alert_service_pb2 as pb
from sluice.insight.v1 import insight_service_pb2 as insight

from sluice_cli import terminal
from sluice_cli.alerts import asking, showing
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.privacy.erasure import own_id

alerts = typer.Typer(invoke_without_command=True, help="What fires, and what is done about it.")
console = terminal.console()
_Who = Annotated[
    str, typer.Option("--by", help="Who: an id, never a name (it is published); the number of your user without it.")
]
_Json = Annotated[bool, typer.Option("--json", help="As JSON.")]


@alerts.callback()
def show(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help=f"Only in this state: {', '.join(asking.STATES)}.")] = None,
    rule: Annotated[str, typer.Option(help="Only of this rule.")] = "",
    tenant: Annotated[str, typer.Option(help="As this tenant: only its own. All without it.")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="What stands, then every change, until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most to list.")] = 50,
    page: Annotated[str, typer.Option(help="Where the last list ended.")] = "",
    json: Annotated[bool, typer.Option("--json", help="As JSON; with --watch one alert a line.")] = False,
) -> None:
    """List alerts, newest first."""
    if context.invoked_subcommand:
        return
    home, states = Home.here(), asking.states(state or ())
    if watch:
        _watch(home, tenant, pb.WatchAlertsRequest(states=states, rule=rule), json=json)
        return
    request = insight.ListAlertsRequest(states=states, rule=rule, page_size=limit, page_token=page)
    answer = asking.listed(home, tenant, request)
    showing.as_json(answer, console) if json else showing.listing(list(answer.alerts), answer.next_page_token, console)


def _watch(home: Home, tenant: str, request: pb.WatchAlertsRequest, *, json: bool) -> None:
    try:
        for message in asking.watched(home, tenant, request):
            for alert in (*message.standing.alerts, *message.changed.alerts):
                showing.as_json(alert, console, indent=None) if json else showing.line(alert, console)
            if not json and message.HasField("standing") and not message.standing.left_count:
                console.print("Watching; Ctrl-C ends it.", style="dim")
    except KeyboardInterrupt:
        return


@alerts.command()
def silence(
    rule: Annotated[
        str, typer.Argument(help="Rule whose alerts are silenced; leave it out to go by labels alone.")
    ] = "",
    lasts: Annotated[str, typer.Option("--for", help="How long: 30m, 2h, 1d; seven days at most.")] = "2h",
    label: Annotated[
        list[str] | None, typer.Option(help="Only with this label, name=value; name= for without it (may be repeated).")
    ] = None,
    reason: Annotated[str, typer.Option(help="A code or the number of a ticket, no prose.")] = "",
    by: _Who = "",
    json: _Json = False,
) -> None:
    """Keep receivers from hearing of alerts that begin to fire. Everything else goes on."""
    if not reason:
        raise MeshProblem("Say why: --reason with a code or the number of a ticket, such as OPS-7.")
    made = asking.silenced(
        Home.here(), rule=rule, about=asking.labels(label or ()), lasts=asking.span(lasts), who=by or own_id(), reason=reason,
        now=datetime.now(UTC),
    )  # fmt: skip
    showing.as_json(made, console) if json else showing.silence(made, console)


@alerts.command()
def expire(
    silence_id: Annotated[str, typer.Argument(help="As `sluice alerts silences` lists it.")],
    by: _Who = "",
    json: _Json = False,
) -> None:
    """End a silence now: what still fires is told."""
    ended = asking.expired(Home.here(), silence_id, who=by or own_id())
    showing.as_json(ended, console) if json else showing.silence(ended, console)


@alerts.command()
def silences(
    is_all: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False, json: _Json = False
) -> None:
    """List silences, those that end last first."""
    answer = asking.silences(Home.here(), is_all=is_all)
    showing.as_json(answer, console) if json else showing.silences(answer, console)


@alerts.command()
def ack(
    alert_id: Annotated[str, typer.Argument(help="As `sluice alerts` lists it, below each alert.")],
    reason: Annotated[str, typer.Option(help="A code or the number of a ticket, no prose.")] = "",
    by: _Who = "",
    json: _Json = False,
) -> None:
    """Say that you have taken an alert on."""
    alert = asking.acknowledged(Home.here(), alert_id, who=by or own_id(), reason=reason)
    showing.as_json(alert, console) if json else showing.line(alert, console)
