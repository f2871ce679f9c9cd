"""Requests and stories, printed for a person."""

from collections.abc import Sequence
from datetime import UTC

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sluice.insight.v1 import request_service_pb2 as pb

from sluice_cli.requests.asking import outcome_name, verdict_name
from sluice_cli.requests.timeline import Step, money, steps, trace_id

_BAR = 24
_WIDE_ENOUGH_FOR_BARS = 110
_COLOURS = {
    "completed": "green", "allow": "green", "failed": "red", "block": "red", "hold": "red", "blocked_input": "red",
    "blocked_output": "red", "flag": "yellow", "skipped": "yellow", "found": "yellow", "no price": "yellow",
}  # fmt: skip


def as_json(message: Message, console: Console) -> None:
    """For a program."""
    console.out(MessageToJson(message, preserving_proto_field_name=True), highlight=False)


def listing(answer: pb.ListRequestsResponse, console: Console) -> None:
    """A line a request, and how to get the next page."""
    if not answer.requests:
        console.print("No request fits." if answer.HasField("newest_at") else "No request has ended yet.")
        return
    table = Table("ended (UTC)")
    table.add_column(
        "request", no_wrap=True, overflow="fold"
    )  # an id that is broken over lines can be copied by nobody
    for column in ("tenant", "outcome", "verdict", "why", "model", "took", "tokens", "cost", "found"):
        table.add_column(column)
    for one in answer.requests:
        name = outcome_name(one.outcome)
        table.add_row(
            _plain(one.ended_at.ToDatetime(tzinfo=UTC).strftime("%m-%d %H:%M:%S")),
            _plain(_printable(one.request_id)),
            _plain(one.tenant_id),
            _result(name),
            _plain(", ".join(map(verdict_name, one.verdicts))),
            _plain(", ".join(dict.fromkeys((*filter(None, (one.reason,)), *one.blocked_categories, *one.categories)))),
            _plain(one.model),
            _plain(duration(one.latency.ToMicroseconds()) if one.HasField("latency") else "-"),
            _plain(str(one.tokens)),
            _plain(", ".join(money(amount) for amount in one.costs) or "-"),
            _plain(", ".join(one.kinds)),
        )
    console.print(table)
    if answer.next_page_token:
        console.print(Text(f"There are more: --page '{_printable(answer.next_page_token)}'"), soft_wrap=True)


def story(told: pb.GetRequestResponse, request_id: str, console: Console) -> None:
    """The timeline of one request. Times count from its beginning."""
    done = steps(told)
    console.print(Text(f"request {_printable(request_id)}", style="bold"), soft_wrap=True)
    console.print(Text(_about(told)), soft_wrap=True)
    if not told.HasField("completed"):
        console.print(
            Text("Its end is not known yet: it is under way, or its RequestCompleted has not come.", style="yellow")
        )
    if not done:
        return
    begins = done[0].started_us
    until = max((one.ended_us for one in done if not one.is_afterwards), default=begins)
    is_wide = console.width >= _WIDE_ENOUGH_FOR_BARS
    table = Table("at", "took", "step", "result", "evidence", *(["when"] if is_wide else []))
    for step in done:
        table.add_row(
            _plain(f"+{duration(step.started_us - begins)}"),
            _plain("" if step.took_us is None else duration(step.took_us)),
            _plain(step.name),
            _result(step.result),
            _plain("\n".join(step.details)),
            *([bar(step, begins, until)] if is_wide else []),
        )
    console.print(table)


def bar(step: Step, begins: int, until: int) -> Text:
    """Where a step stands in the request; a dot for a moment, nothing for what came afterwards."""
    whole = until - begins
    if step.is_afterwards or whole <= 0:
        return Text("")
    first = min(_BAR - 1, (step.started_us - begins) * _BAR // whole)
    if step.took_us is None:
        return Text(" " * first + "·")
    last = max(first + 1, -((begins - step.ended_us) * _BAR // whole))
    return Text(" " * first + "█" * (min(last, _BAR) - first))


def duration(micros: int) -> str:
    """0.8 ms, 320 ms, 1.25 s, 3 min, 2 h."""
    milliseconds = micros / 1_000
    if milliseconds < 10:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1_000
    if seconds < 180:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"


def _about(told: pb.GetRequestResponse) -> str:
    events: Sequence[Message] = (told.completed, *told.decisions, *told.redactions, *told.generations, *told.costs)
    metadata = next((one.metadata for one in events if one.metadata.tenant_id), None)  # type: ignore[attr-defined]
    facts = [f"tenant {metadata.tenant_id}" if metadata else ""]
    facts.append(f"project {metadata.project_id}" if metadata and metadata.project_id else "")
    facts.append(f"trace {trace}" if (trace := trace_id(told)) else "")
    facts.append("a self-test probe" if told.completed.metadata.synthetic else "")
    total = ", ".join(money(amount) for amount in told.summary.costs)
    facts.append(f"cost {total}" if total else "")
    return _printable("; ".join(filter(None, facts)))


def _result(word: str) -> Text:
    return Text(_printable(word), style=_COLOURS.get(word, ""))


def _plain(text: str) -> Text:
    return Text("\n".join(_printable(line) for line in text.split("\n")))


def _printable(text: str) -> str:
    """Names come from callers: nothing of them may steer the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
