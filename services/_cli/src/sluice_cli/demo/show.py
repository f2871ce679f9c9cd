"""The demonstration on the terminal: a line a conversation, then what the mesh measured."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from sluice_cli.demo.sending import Outcome
from sluice_cli.demo.witness import Spend

_MARKS = {"answered": "[green]✓[/]", "blocked": "[red]■[/]", "filtered": "[yellow]▲[/]", "failed": "[bold red]✗[/]"}
BARS = 12


def progress(console: Console) -> Progress:
    """The bar at the bottom."""
    columns = (
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, TextColumn("[dim]{task.fields[tally]}"), console=console, transient=True)


def line(outcome: Outcome, width: int) -> str:
    """One conversation in one line of that many columns: whose, by which door, what was said, what became of it."""
    conversation = outcome.conversation
    room = max(20, width - 27)
    said = _cut(conversation.turns[-1].text, room * 2 // 5)
    door = f"{conversation.door}{'≈' if conversation.streamed else ' '}"
    result = _result(outcome, room - room * 2 // 5)
    return f" {_MARKS[outcome.status]} [dim]{conversation.tenant:<7}{door:<6}{outcome.seconds:4.1f} s[/]  {escape(said):<{room * 2 // 5}} {result}"


def _result(outcome: Outcome, room: int) -> str:
    if outcome.status in ("blocked", "failed"):
        return f"[red]{outcome.status}:[/] [red dim]{escape(_cut(outcome.note.replace(',', ', '), room - 9))}[/]"
    asked = len(outcome.earlier_ids) + 1
    judged = outcome.feedback or (
        "withheld" if outcome.status == "filtered" else f"asked {asked} times" if asked > 1 else ""
    )
    room -= len(judged) + 2 if judged else 0
    hidden = _cut(f"{_kinds(outcome.redacted)} hidden", room) if outcome.redacted else ""
    room -= len(hidden) + 2 if hidden else 0
    answer = _cut(outcome.answer, room) if room > 8 else ""
    parts = (f"[cyan]{hidden}[/]" if hidden else "", f"[italic dim]{escape(answer)}[/]" if answer else "")
    return "  ".join(filter(None, (*parts, f"[magenta]{judged}[/]" if judged else "")))


def _cut(text: str, length: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else f"{flat[: max(0, length - 1)]}…"


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{kind.lower().replace('_', ' ')}{f' ×{count}' if count > 1 else ''}" for kind, count in counts.items()
    )


def tally(outcomes: Sequence[Outcome]) -> str:
    """How many of each so far."""
    counts = Counter(outcome.status for outcome in outcomes)
    return "  ".join(f"{count} {status}" for status, count in counts.items())


def bars(title: str, counts: Mapping[str, int], colour: str) -> Panel:
    """Counts as bars, largest first."""
    table = Table.grid(padding=(0, 1))
    most = max(counts.values(), default=1) or 1
    for name, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        table.add_row(
            name.lower().replace("_", " "), f"[{colour}]{'█' * max(1, round(BARS * count / most))}[/]", str(count)
        )
    return Panel(
        table if counts else "[dim]none[/]",
        title=f"[bold]{title}[/]",
        title_align="left",
        border_style="dim",
        padding=(0, 1),
    )


def spend(rows: Sequence[Spend]) -> Panel:
    """The ledger, a line a tenant."""
    table = Table(box=None, pad_edge=False, padding=(0, 2))
    table.add_column("tenant")
    for column in ("requests", "tokens in", "tokens out", "cost"):
        table.add_column(column, justify="right")
    for row in sorted(rows, key=lambda row: row.tenant):
        cost = f"{row.nano_units / 1e9:.7f} {row.currency}" if row.currency else "-"
        table.add_row(row.tenant, str(row.requests), str(row.tokens_in), str(row.tokens_out), cost)
    return Panel(
        table,
        title="[bold]Cost[/] [dim]CostService.GetSpend[/]",
        title_align="left",
        border_style="dim",
        padding=(0, 1),
    )


def windows(title: str, source: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Panel:
    """Live metrics, a line a window."""
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < 2 else "right")
    for row in rows:
        table.add_row(*row)
    body: RenderableType = table if rows else "[dim]no window yet[/]"
    return Panel(
        body, title=f"[bold]{title}[/] [dim]{source}[/]", title_align="left", border_style="dim", padding=(0, 1)
    )


def checks(rows: Sequence[tuple[str, int, int]]) -> Panel:
    """Whether the counts agree: what, how many there are, how many there should be."""
    table = Table.grid(padding=(0, 2))
    for name, count, wanted in rows:
        mark = "[green]✓[/]" if count == wanted else "[red]✗[/]"
        table.add_row(mark, name, f"[bold]{count}[/]", "" if count == wanted else f"[red]should be {wanted}[/]")
    return Panel(
        table, title="[bold]Nothing lost, nothing twice[/]", title_align="left", border_style="dim", padding=(0, 1)
    )


def page(*parts: RenderableType) -> Group:
    """The summary."""
    return Group(*parts)


def side_by_side(*panels: RenderableType) -> Columns:
    """Panels in a row where the terminal is wide enough."""
    return Columns(panels, padding=(0, 1))


def clock(seconds: float) -> str:
    """Local time of a window's start."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M")
