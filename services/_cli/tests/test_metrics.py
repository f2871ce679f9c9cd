"""What `sluice metrics` asks and shows."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.insight.v1 import insight_service_pb2_grpc as rpc
from sluice.types.v1.metric_pb2 import MetricPoint, MetricSeries, MetricWindow
from sluice_cli import metrics
from sluice_cli.main import app
from typer.testing import CliRunner

from .played_insight import playing

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def point(**more: Any) -> MetricPoint:
    made = MetricPoint(
        metric="quality.refused_ratio",
        unit="ratio",
        series=MetricSeries(tenant_id="acme", model="small\x1b[31m"),  # a caller's name must not steer the terminal
        window=MetricWindow(),
        **more,
    )
    made.window.start.FromDatetime(NOON)
    return made


class Insight(rpc.InsightServiceServicer):
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.tenants: list[str] = []

    def _note(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        self.tenants.append(dict(context.invocation_metadata()).get("x-sluice-tenant-id", ""))

    def QueryMetrics(self, request: Any, context: Any) -> pb.QueryMetricsResponse:
        self._note(request, context)
        if request.query.metrics[0] == "odd":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "unknown metric; known are: quality.requests")
        points = [point(value=0.25, lower=0.125, upper=0.5, sample_count=40, closed=True), point()]
        answer = pb.QueryMetricsResponse(points=points, next_page_token="2")
        answer.complete_up_to.FromDatetime(NOON)
        return answer

    def WatchMetrics(self, request: Any, context: Any) -> Iterator[pb.WatchMetricsResponse]:
        self._note(request, context)
        yield pb.WatchMetricsResponse(update=pb.MetricUpdate(points=[point(value=1, sample_count=3)]))
        beat = pb.WatchMetricsResponse(heartbeat=pb.WatchHeartbeat())
        beat.heartbeat.complete_up_to.FromDatetime(NOON)
        yield beat


@pytest.fixture
def insight(monkeypatch: pytest.MonkeyPatch) -> Iterator[Insight]:
    monkeypatch.setattr(metrics.console, "width", 200)
    with playing(monkeypatch, Insight(), rpc.add_InsightServiceServicer_to_server) as played:
        yield played


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["metrics", *words])
    return result.exit_code, f"{result.output}{result.exception or ''}"


def test_what_is_asked_is_what_was_typed_and_points_are_told_with_their_intervals(insight: Insight) -> None:
    code, told = run(
        *("quality.refused_ratio", "quality.requests", "--by", "tenant", "--by", "model", "--window", "1h"),
        *("--where", "model=a", "--where", "model=b", "--where", "tenant=acme"),
        *("--from", "2026-11-26T10:00Z", "--tenant", "acme"),
    )
    assert code == 0, told
    (asked,) = insight.asked
    assert list(asked.query.metrics) == ["quality.refused_ratio", "quality.requests"]
    assert list(asked.query.group_by) == [pb.DIMENSION_TENANT, pb.DIMENSION_MODEL]
    assert [(one.dimension, list(one.values)) for one in asked.query.filters] == [
        (pb.DIMENSION_MODEL, ["a", "b"]),
        (pb.DIMENSION_TENANT, ["acme"]),
    ]
    assert asked.query.window.ToTimedelta() == timedelta(hours=1)
    assert asked.start_time.ToDatetime(tzinfo=UTC) == NOON - timedelta(hours=2)
    assert not asked.HasField("end_time")
    assert insight.tenants == ["acme"]
    assert re.search(
        r"11-26 12:00\W+quality\.refused_ratio\W+acme\W+small\?\[31m\W+0\.25 ratio\W+0\.125 to 0\.5\W+40", told
    )
    assert "12:00 open" in told
    assert "Complete up to 2026-11-26 12:00:00Z." in told
    assert "There are more" in told
    assert "\x1b[31m" not in told


def test_changes_are_watched_and_the_time_goes_on_without_one(insight: Insight) -> None:
    code, told = run("quality.refused_ratio", "--watch")
    assert code == 0, told
    assert "1 ratio" in told
    assert told.index("Nothing was seen yet.") < told.index("Complete up to 2026-11-26 12:00:00Z.")
    code, told = run("quality.refused_ratio", "--watch", "--json")
    assert [line[:2] for line in told.splitlines()] == ['{"', '{"']


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("odd",), "unknown metric; known are: quality.requests"),
        (("quality.requests", "--by", "colour"), "--by 'colour' is not known: there are tenant, "),
        (("quality.requests", "--where", "colour=red"), "--where 'colour' is not known"),
        (("quality.requests", "--where", "model"), "must be dimension=value"),
        (("quality.requests", "--window", "7m"), "--window '7m' is not known: there are 1m, "),
        (("quality.requests", "--from", "yesterday"), "'yesterday' is no time"),
        (("quality.requests", "--watch", "--from", "2026-11-26"), "--watch begins now"),
    ],
)
def test_what_cannot_be_asked_is_an_error_in_words(insight: Insight, words: tuple[str, ...], problem: str) -> None:
    code, told = run(*words)
    assert code != 0
    assert problem in told


def test_an_insight_that_is_away_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_INSIGHT_TARGET", "127.0.0.1:9")
    code, told = run("quality.requests")
    assert code != 0
    assert "insight, which keeps the metrics, does not answer" in told
