"""`sluice events dlq`: records that consumers gave up."""

import asyncio
import json as json_text
from collections.abc import Sequence
from typing import Annotated

import typer
from sluice_kit.events import TopicSpec
from sluice_kit.ordered import OrderedReader
from sluice_kit.settings import MeshSettings

from sluice_cli import events as event_stream
from sluice_cli import terminal
from sluice_cli.dead_letters import putting_back, showing
from sluice_cli.dead_letters.letters import Letter, Selection, letters, offset_range
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem

dlq = typer.Typer(no_args_is_help=True, help="Look at dead letters, and put them back.")

console = terminal.console()

TOPIC = Annotated[
    list[str] | None,
    typer.Option("--topic", help="Only letters of this event: RequestCompleted or its full type (may be repeated)."),
]
REASON = Annotated[
    list[str] | None,
    typer.Option(
        "--reason", help="Only for this reason; `handler_failed` means every handler_failed:... (may be repeated)."
    ),
]
OFFSET = Annotated[
    list[str] | None,
    typer.Option("--offset", help="Only at this offset of the .dlq topic, or range 17-40 (may be repeated)."),
]


@dlq.command("list")
def list_(
    topic: TOPIC = None,
    reason: REASON = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Dead letters by topic and reason."""
    settings = event_stream.connection(Home.here())
    groups: dict[tuple[str, str], showing.Group] = {}

    async def read() -> None:
        async with OrderedReader.opened(settings) as reader:
            async for letter in letters(reader, _topics(topic), Selection(reasons=tuple(reason or ()))):
                showing.grouped(groups, letter)

    asyncio.run(read())
    showing.show_groups([groups[key] for key in sorted(groups)], console, as_json=json)


@dlq.command()
def show(
    topic: Annotated[str, typer.Argument(help="The event, RequestCompleted or its full type.")],
    offset: Annotated[int, typer.Argument(min=0, help="Offset of the letter, as `dlq list` shows.")],
    raw: Annotated[bool, typer.Option("--raw", help="Also key and value as hex: they may hold anything.")] = False,
) -> None:
    """One dead letter: why, its headers, and the event when it can be read."""
    found = _selected(event_stream.connection(Home.here()), _topics([topic]), Selection(offsets=((offset, offset),)))
    if not found:
        raise MeshProblem(f"There is no dead letter of {topic} at offset {offset}: see `sluice events dlq list`.")
    for letter in found:
        console.out(json_text.dumps(showing.describe(letter, raw=raw), indent=2, ensure_ascii=False), highlight=False)


@dlq.command()
def replay(
    topic: TOPIC = None,
    reason: REASON = None,
    offset: OFFSET = None,
    all_: Annotated[bool, typer.Option("--all", help="Every dead letter.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also those of which it can no longer be seen whether they were put back.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be put back.")] = False,
) -> None:
    """Put dead letters back on their topics, each once, also when this is killed and run again."""
    selection = Selection(tuple(reason or ()), tuple(offset_range(text) for text in offset or ()))
    if not (all_ or topic or reason or offset):
        raise MeshProblem("Say which: --topic, --reason, --offset, or --all.")
    if offset and len(topic or ()) != 1:
        raise MeshProblem("An offset belongs to a topic: add one --topic.")
    home = Home.here()
    settings = event_stream.connection(home)
    with putting_back.only_one(home.path):
        outcome = asyncio.run(putting_back.replay(settings, _topics(topic), selection, again=again, dry=dry_run))
    _tell(outcome, dry=dry_run)
    raise typer.Exit(1 if outcome.unknown or outcome.lost else 0)


def _selected(settings: MeshSettings, topics: Sequence[TopicSpec], selection: Selection) -> list[Letter]:
    async def read() -> list[Letter]:
        async with OrderedReader.opened(settings) as reader:
            return [letter async for letter in letters(reader, topics, selection)]

    return asyncio.run(read())


def _topics(names: Sequence[str] | None) -> list[TopicSpec]:
    return event_stream.topics_named(names or ())


def _tell(outcome: putting_back.Outcome, *, dry: bool) -> None:
    console.print(f"{len(outcome.put_back)} {'would be put back' if dry else 'put back'}.", highlight=False)
    if outcome.there_already:
        console.print(f"{len(outcome.there_already)} had been put back before.", highlight=False)
    if outcome.unknown:
        console.print(
            f"{len(outcome.unknown)} left out: records behind them were deleted from their topic, so it cannot be seen "
            f"whether they were put back before. --again puts them back all the same: {_places(outcome.unknown)}",
            highlight=False,
            soft_wrap=True,
        )
    if outcome.lost:
        console.print(
            f"{len(outcome.lost)} cannot be put back: no dead letters, or too large for one and gone from their topic: "
            f"{_places(outcome.lost)}",
            highlight=False,
            soft_wrap=True,
        )


def _places(found: putting_back.Tally) -> str:
    more = len(found) - len(found.places)
    return ", ".join(found.places) + (f" and {more} more" if more else "")
