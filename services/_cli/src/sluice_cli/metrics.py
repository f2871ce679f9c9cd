"""The command `sluice metrics`: what insight answers to QueryMetrics, and what it pushes by WatchMetrics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, timedelta
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.insight.v1 import insight_service_pb2_grpc as rpc
from sluice.types.v1.metric_pb2 import MetricPoint

from sluice_cli import terminal
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.requests.asking import moment
from sluice_cli.service_channel import as_tenant, insight_channel

_SECONDS = 10.0
_PREFIX = "DIMENSION_"
DIMENSIONS = {name.removeprefix(_PREFIX).lower(): value for name, value in pb.Dimension.items() if value}
WINDOWS = {
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
}
_FIELDS = {"tenant": "tenant_id", "project": "project_id"}
"""Dimensions that a series has under another name."""
console = terminal.console()


def metrics(
    names: Annotated[
        list[str], typer.Argument(help="Such as quality.requests, quality.latency_seconds.p95, drift.drifted.")
    ],
    by: Annotated[list[str] | None, typer.Option(help=f"Keep apart by: {', '.join(DIMENSIONS)}.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Only these, such as model=small; again for another value.")
    ] = None,
    window: Annotated[str, typer.Option(help=f"Length of the windows: {', '.join(WINDOWS)}.")] = "1m",
    since: Annotated[str, typer.Option("--from", help="First moment; an hour before the last without it.")] = "",
    until: Annotated[str, typer.Option("--until", help="Moment after the last; now without it.")] = "",
    tenant: Annotated[str, typer.Option(help="As this tenant: only its own. All tenants without it.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most points.")] = 1_000,
    watch: Annotated[bool, typer.Option("--watch", help="Go on and print what changes, until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="As JSON, an answer a line with --watch.")] = False,
) -> None:
    """Print live metrics by window, and the moment up to which they are complete. An unknown name is answered with the known ones."""
    query = asked(names, by or (), where or (), window)
    if watch and (since or until):
        raise MeshProblem("--watch begins now: leave out --from and --until.")
    with insight_channel(Home.here(), whose_work="keeps the metrics", unknown="metrics") as channel:
        stub = rpc.InsightServiceStub(channel)
        if watch:
            for message in stub.WatchMetrics(pb.WatchMetricsRequest(query=query), metadata=as_tenant(tenant)):
                show_change(message, console, by or (), as_json=json)
            return
        request = pb.QueryMetricsRequest(query=query, start_time=moment(since), end_time=moment(until), page_size=limit)
        answer = stub.QueryMetrics(request, metadata=as_tenant(tenant), timeout=_SECONDS)
    if json:
        _as_json(answer, console)
        return
    _table(answer.points, console, by or ())
    console.print(_complete(answer.complete_up_to if answer.HasField("complete_up_to") else None))
    if answer.next_page_token:
        console.print("There are more: ask for a shorter time, longer windows, or a higher --limit.")


def asked(names: Sequence[str], by: Sequence[str], where: Sequence[str], window: str) -> pb.MetricQuery:
    """What is typed as a question. MeshProblem for an unknown dimension or window, or a condition that is none."""
    if window not in WINDOWS:
        raise MeshProblem(f"--window {window!r} is not known: there are {', '.join(WINDOWS)}.")
    query = pb.MetricQuery(metrics=names, group_by=[_dimension(name, "--by") for name in by])
    query.window.FromTimedelta(WINDOWS[window])
    values: dict[pb.Dimension.ValueType, list[str]] = {}
    for condition in where:
        name, is_there, value = condition.partition("=")
        if not is_there:
            raise MeshProblem(f"--where {condition!r} must be dimension=value, such as model=small.")
        values.setdefault(_dimension(name, "--where"), []).append(value)
    query.filters.extend(pb.DimensionFilter(dimension=name, values=found) for name, found in values.items())
    return query


def _dimension(name: str, option: str) -> pb.Dimension.ValueType:
    if name not in DIMENSIONS:
        raise MeshProblem(f"{option} {name!r} is not known: there are {', '.join(DIMENSIONS)}.")
    return DIMENSIONS[name]


def show_change(message: pb.WatchMetricsResponse, console: Console, by: Sequence[str], *, as_json: bool) -> None:
    """What changed; of a heartbeat only up to where all is complete."""
    if as_json:
        _as_json(message, console, indent=None)
        return
    if message.HasField("update"):
        _table(message.update.points, console, by)
    told = message.update if message.HasField("update") else message.heartbeat
    console.print(_complete(told.complete_up_to if told.HasField("complete_up_to") else None))


def _table(points: Iterable[MetricPoint], console: Console, by: Sequence[str]) -> None:
    table = Table("window (UTC)", "metric", *by, "value", "95 %", "of")
    for point in points:
        start = point.window.start.ToDatetime(tzinfo=UTC)
        interval = f"{point.lower:g} to {point.upper:g}" if point.HasField("lower") and point.HasField("upper") else "-"
        table.add_row(
            f"{start:%m-%d %H:%M}{'' if point.closed else ' open'}",
            point.metric,
            *(_plain(getattr(point.series, _FIELDS.get(name, name)) or "-") for name in by),
            f"{point.value:g} {'' if point.unit == '1' else point.unit}" if point.HasField("value") else "-",
            interval,
            str(point.sample_count),
        )
    console.print(table if table.row_count else "Nothing was measured of this in this time.")


def _plain(text: str) -> Text:
    """A name is a caller's: it must not steer the terminal."""
    return Text("".join(sign if sign.isprintable() else "?" for sign in text))


def _complete(moment: Timestamp | None) -> str:
    return (
        "Nothing was seen yet."
        if moment is None
        else f"Complete up to {moment.ToDatetime(tzinfo=UTC):%Y-%m-%d %H:%M:%S}Z."
    )


def _as_json(
    message: pb.QueryMetricsResponse | pb.WatchMetricsResponse, console: Console, indent: int | None = 2
) -> None:
    console.out(MessageToJson(message, preserving_proto_field_name=True, indent=indent), highlight=False)
