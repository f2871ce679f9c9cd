"""`sluice probe`: the table of route x guard, as the self-test probes saw it."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from sluice.probe.v1 import probe_service_pb2 as pb
from sluice.probe.v1 import probe_service_pb2_grpc as pb_grpc
from sluice.types.v1 import probe_pb2
from sluice_kit.channel import connect
from sluice_kit.settings import MeshSettings

SECONDS = 15.0
ROUND_SECONDS = 260.0
"""A round in which every request waits for a silent filter takes two minutes (a dozen in turn, each 10 s), and one under way is waited for."""
_STATES: Mapping[int, tuple[str, str]] = {
    probe_pb2.GUARD_STATE_GUARDED: ("on", "green"),
    probe_pb2.GUARD_STATE_UNGUARDED: ("UNGUARDED", "bold red"),
    probe_pb2.GUARD_STATE_UNAVAILABLE: ("unavailable", "yellow"),
    probe_pb2.GUARD_STATE_UNTESTED: ("untested", "dim"),
}
_URGENCY = (
    probe_pb2.GUARD_STATE_UNGUARDED,
    probe_pb2.GUARD_STATE_UNAVAILABLE,
    probe_pb2.GUARD_STATE_UNTESTED,
    probe_pb2.GUARD_STATE_GUARDED,
)


async def reported(target: str, *, once: bool) -> pb.ProbeReport:
    """The newest round, or with `once` one that is run now. Raises grpc.RpcError."""
    settings = MeshSettings()  # type: ignore[call-arg]  # its fields are filled by name
    async with connect(target, settings) as channel:
        stub: Any = pb_grpc.ProbeServiceStub(channel)
        if once:
            return (await stub.RunProbes(pb.RunProbesRequest(), timeout=ROUND_SECONDS)).report
        return (await stub.GetProbeReport(pb.GetProbeReportRequest(), timeout=SECONDS)).report


def report(target: str, *, once: bool) -> pb.ProbeReport:
    """The same, waited for."""
    return asyncio.run(reported(target, once=once))


def show(told: pb.ProbeReport, console: Console) -> None:
    """Prints the table, why a guard is not on, and the recall."""
    console.print(_guards(told))
    for line in _reasons(told):
        console.print(f"  {line}", highlight=False)
    if told.recalls:
        console.print(_recalls(told))
    ended = told.ended_at.ToDatetime().strftime("%H:%M:%S")
    policy = f", moderation policy {told.moderation_policy}" if told.moderation_policy else ""
    console.print(f"  Round ended {ended} UTC, key {told.key_id or 'none'}{policy}.", highlight=False)


def is_guarded(told: pb.ProbeReport) -> bool:
    """Whether every guard was seen on."""
    return bool(told.guards) and all(check.state == probe_pb2.GUARD_STATE_GUARDED for check in told.guards)


def _reasons(told: pb.ProbeReport) -> list[str]:
    """A line for each guard that is not on, and one for all models of a route that wait for their turn."""
    waiting: Counter[tuple[str, str, str]] = Counter()
    lines = []
    for check in told.guards:
        if check.state == probe_pb2.GUARD_STATE_GUARDED:
            continue
        key = f" by key {check.key_id}" if check.key_id else ""
        if check.reason == "NOT_TRIED_YET":
            waiting[check.route, check.guard, key] += 1
            continue
        ids = f" ({', '.join(check.decision_ids)})" if check.decision_ids else ""
        lines.append(f"{check.route} {check.guard} {check.model}{key}: {check.reason}{ids}")
    for (route, guard, key), count in waiting.items():
        lines.append(f"{route} {guard} {count} model{'s' * (count > 1)}{key}: NOT_TRIED_YET")
    return lines


def _guards(told: pb.ProbeReport) -> Table:
    guards = list(dict.fromkeys(check.guard for check in told.guards))
    table = Table(box=None, padding=(0, 2))
    for column in ("route and mode", *(guard.replace("_", " ") for guard in guards)):
        table.add_column(column)
    for route in dict.fromkeys(check.route for check in told.guards):
        table.add_row(route, *(_cell(told, route, guard) for guard in guards))
    return table


def _cell(told: pb.ProbeReport, route: str, guard: str) -> str:
    found = [check.state for check in told.guards if (check.route, check.guard) == (route, guard)]
    known = [state for state in _URGENCY if state in found]
    if not known:
        return "[dim]-[/]"
    word, style = _STATES[known[0]]
    return f"[{style}]{word}[/]"


def _recalls(told: pb.ProbeReport) -> Table:
    table = Table(box=None, padding=(0, 2))
    for column in ("seeded values", "name origin"):
        table.add_column(column)
    for column in ("found", "of", "recall", "95 % interval"):
        table.add_column(column, justify="right")
    table.add_column("redaction policy")
    for each in told.recalls:
        interval = f"{each.lower:.2f} - {each.upper:.2f}"
        counts = (str(each.found), str(each.sought), f"{each.recall:.2f}", interval)
        table.add_row(each.kind, each.name_origin, *counts, each.redaction_policy)
    return table
