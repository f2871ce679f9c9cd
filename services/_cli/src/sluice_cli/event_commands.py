"""`sluice events`: look at the events of the mesh, prove them complete, and put back what was given up."""

import asyncio
import contextlib
from pathlib import Path
from typing import Annotated

import typer

from sluice_cli import events as event_stream
from sluice_cli import terminal, topics
from sluice_cli.dlq_commands import dlq
from sluice_cli.mesh import demo_env
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.privacy.reading import opener
from sluice_cli.proof import replays, showing, verification

events = typer.Typer(no_args_is_help=True, help="Look at the events of the mesh, and prove them complete.")
events.add_typer(dlq, name="dlq")

console = terminal.console()

TYPE = Annotated[
    list[str] | None,
    typer.Option("--type", help="Only this event: RequestCompleted or its full type (may be repeated)."),
]


@events.command()
def tail(
    type_: TYPE = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Also the events that are there already.")
    ] = False,
    no_follow: Annotated[bool, typer.Option("--no-follow", help="End after the events that are there.")] = False,
    max_: Annotated[int | None, typer.Option("--max", min=1, help="End after this many.")] = None,
    decrypt: Annotated[
        bool, typer.Option("--decrypt", help="Show captured texts; needs the key store, and says of which were erased.")
    ] = False,
) -> None:
    """Print events as they come, one JSON line each."""
    wanted = event_stream.topics_named(type_ or ())
    settings = event_stream.connection(Home.here())
    opened = opener(settings) if decrypt else None

    async def show() -> None:
        left = max_
        async with contextlib.aclosing(
            event_stream.follow(settings, wanted, from_beginning=from_beginning or no_follow, live=not no_follow)
        ) as seen:
            async for event in seen:
                print(event.as_json(opened), flush=True)
                left = left - 1 if left else None
                if left == 0:
                    return

    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        asyncio.run(show())


@events.command("topics")
def show_topics() -> None:
    """Show the topics: who may read them, how long they should keep their records, and how long they do."""
    topics.show(asyncio.run(topics.kept_topics(event_stream.connection(Home.here()))), console)


@events.command()
def verify(
    type_: TYPE = None,
    against: Annotated[str, typer.Option(help="`ledger`: also compare requests, CostRecorded and the ledger.")] = "",
    answered: Annotated[
        Path | None, typer.Option(help="File with the ids of answered requests, one a line (with --against ledger).")
    ] = None,
    settle: Annotated[float, typer.Option(min=0, help="Seconds to wait for what is on its way.")] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Prove that no event is missing: per producer and topic, up to the ends of now. Exit code 1 when one is."""
    if against not in ("", "ledger"):
        raise MeshProblem(f"--against {against}: events can be compared with `ledger`.")
    if answered and not against:
        raise MeshProblem("--answered is compared with the ledger: add --against ledger.")
    home = Home.here()
    found = asyncio.run(
        verification.verify(
            event_stream.connection(home),
            event_stream.topics_named(type_ or ()),
            home=home.path,
            settle_seconds=settle,
            ledger=demo_env.target(home, "cost") if against else "",
            answered=_ids(answered),
        )
    )
    showing.show(found, console, as_json=json)
    raise typer.Exit(0 if found.is_sound else 1)


@events.command()
def replay(
    projection: Annotated[
        str,
        typer.Argument(
            help="What to rebuild: `ledger`, `metrics` (the windows of quality), `drift`, `feedback` or `insight`."
        ),
    ],
    from_: Annotated[
        str, typer.Option("--from", help="Offset or time (2026-11-24T12:00:00+00:00) to begin at; all without it.")
    ] = "",
    into: Annotated[str, typer.Option(help="Name of the new version; one of this name is replaced.")] = "replay",
    export: Annotated[Path | None, typer.Option(help="Also write the rows, canonical, to this file.")] = None,
    switch: Annotated[
        bool,
        typer.Option(
            "--switch",
            help="Put it in the live one's place if all rows are the same; windows: publish those that differ.",
        ),
    ] = False,
    accept_differences: Annotated[
        bool, typer.Option("--accept-differences", help="Switch although rows differ: those in the topics are right.")
    ] = False,
) -> None:
    """Rebuild a projection from the topics beside the live one, and compare both. Exit code 1 when they differ."""
    found = replays.projection(projection)
    if switch and from_:
        raise MeshProblem("A part cannot be switched to: leave out --from.")
    home = Home.here()
    report = replays.build(found, home, into=into, begin=from_, export=export)
    replays.show(report, console)
    if switch and (report["same"] or accept_differences):
        report = replays.switch(found, home, into=into, accept_differences=accept_differences)
        replays.show(report, console)
    raise typer.Exit(0 if report["same"] or report["kept_as"] else 1)


def _ids(file: Path | None) -> list[str]:
    if file is None:
        return []
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MeshProblem(
            f"{file} cannot be read ({type(error).__name__}): it must hold one request id a line."
        ) from None
