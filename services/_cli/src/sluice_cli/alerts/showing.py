"""Shows alerts and silences."""

from datetime import UTC
from typing import Any

from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sluice.insight.v1 import alert_service_pb2 as pb
from sluice.insight.v1 import insight_service_pb2 as insight

from sluice_cli.alerts.asking import state_name

_COLOURS = {"firing": "red", "pending": "yellow", "resolved": "green"}
_SILENCE_STATES = {
    pb.SILENCE_STATE_PENDING: "to come",
    pb.SILENCE_STATE_ACTIVE: "holds",
    pb.SILENCE_STATE_EXPIRED: "over",
}


def as_json(message: Any, console: Console, *, indent: int | None = 2) -> None:
    """The whole answer."""
    console.out(MessageToJson(message, preserving_proto_field_name=True, indent=indent), highlight=False)


def listing(alerts: list[insight.Alert], more: str, console: Console) -> None:
    """One block an alert, so that ids can be copied."""
    if not alerts:
        console.print("No alerts.")
    for one in alerts:
        line(one, console)
    if more:
        console.print(Text(f"There are more: --page {_printable(more)}"), soft_wrap=True)


def line(alert: insight.Alert, console: Console) -> None:
    """One alert: what it is, what is done about it, and what `ack` takes."""
    state = state_name(alert.state)
    head = Text.assemble(
        (state, _COLOURS.get(state, "")), f" {_printable(alert.severity or '-')} ", (_printable(alert.rule), "bold"),
        f" since {_at(alert.since)}",
    )  # fmt: skip
    console.print(head, soft_wrap=True)
    told = [
        alert.summary,
        *(f"{name}: {share:.0%}" for name, share in sorted(alert.causes.items(), key=lambda one: -one[1])[:3]),
    ]
    if alert.silenced_by:
        told.append(f"silenced by {', '.join(alert.silenced_by)}")
    if alert.HasField("acknowledgement"):
        taken = alert.acknowledgement
        told.append(f"taken on by {taken.by}{f' ({taken.reason})' if taken.reason else ''} at {_at(taken.at)}")
    for text in (*told, alert.alert_id):
        if text:
            console.print(Text(f"  {_printable(text)}"), soft_wrap=True)


def silences(answer: pb.ListSilencesResponse, console: Console) -> None:
    """A table; the id is what `expire` takes."""
    if not answer.silences:
        console.print("No silences.")
        return
    table = Table("id", "state", "rule", "labels", "until", "set by", "reason", box=None, pad_edge=False)
    for one in answer.silences:
        about = " ".join(f"{name}={value}" for name, value in sorted(one.labels.items()))
        state = _SILENCE_STATES.get(one.state, str(one.state))
        cells = (one.silence_id, state, one.rule or "every", about, _at(one.ends_at), one.set_by, one.reason)
        table.add_row(*(Text(_printable(cell), overflow="fold") for cell in cells))
    console.print(table)


def silence(one: pb.Silence, console: Console) -> None:
    """What stands now."""
    state = _SILENCE_STATES.get(one.state, str(one.state))
    console.print(Text(f"{_printable(one.silence_id)}: {state}, until {_at(one.ends_at)}"), soft_wrap=True)


def _at(stamp: Timestamp) -> str:
    return stamp.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _printable(text: str) -> str:
    """Names are a caller's, too: none may steer the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
