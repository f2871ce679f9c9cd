"""InsightService over the board."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.insight.v1 import insight_service_pb2_grpc as pb_grpc
from sluice.types.v1 import metric_pb2
from sluice_kit import context as contexts
from sluice_kit.errors import InvalidInput, ResourceExhausted

from sluice_insight.adapters.history import History, TooMuchHistory
from sluice_insight.adapters.sources import SHOWN_RANGES, Source, Sources
from sluice_insight.adapters.watermark import Watermark, stamp
from sluice_insight.api import alerts
from sluice_insight.api.paging import check_token, page
from sluice_insight.domain.board import MINUTE, Board, Point, Query
from sluice_insight.domain.catalogue import UnknownMetric, metric
from sluice_insight.domain.part import DIMENSIONS, Series
from sluice_insight.domain.watch import Watcher, Watchers

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["InsightService"].full_name
DEFAULT_PAGE = 1000
LARGEST_PAGE = 10_000
LONGEST_WINDOW = 24 * 60 * MINUTE
MOST_METRICS = 200
MOST_OVERLAPPING = 12
"""Windows that one minute may be in: each is merged into all of them."""
HEARTBEAT_SECONDS = 15.0
SETTLE_SECONDS = 0.2
OF_REDACTION_POLICIES = "probe.recall"
"""With this begin the names of all metrics that are told apart by redaction policy."""
_HOUR = 60 * MINUTE
_DIMENSIONS = {
    pb.DIMENSION_TENANT: "tenant_id",
    pb.DIMENSION_PROJECT: "project_id",
    pb.DIMENSION_MODEL: "model",
    pb.DIMENSION_ROUTE: "route",
    pb.DIMENSION_PROMPT_VERSION: "prompt_version",
    pb.DIMENSION_EXPERIMENT_ARM: "experiment_arm",
    pb.DIMENSION_REDACTION_POLICY: "redaction_policy",
}


class InsightService(pb_grpc.InsightServiceServicer):
    """Answers questions about what the mesh measures, and pushes what changes."""

    def __init__(
        self,
        *,
        board: Board,
        watchers: Watchers,
        sources: Sources | None = None,
        alert_view: alerts.AlertView | None = None,
        history: History | None = None,
        watermark: Watermark | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._alerts = alert_view or alerts.AlertView()
        self._sources = sources or Sources(now=now)
        self._watermark = watermark or Watermark(board, self._sources, now=now)
        self._board, self._history = board, history
        self._watchers = watchers
        self._now = now

    async def QueryMetrics(
        self, request: pb.QueryMetricsRequest, context: grpc.aio.ServicerContext
    ) -> pb.QueryMetricsResponse:
        """One page of points. INVALID_ARGUMENT on an unknown metric or dimension, a bad window, range or page token."""
        query = self._query(request)
        check_token(request.page_token)
        shown = page(
            await self._points(query),
            size=request.page_size,
            default=DEFAULT_PAGE,
            largest=LARGEST_PAGE,
            token=request.page_token,
        )
        return pb.QueryMetricsResponse(
            points=[_point(point) for point in shown.items],
            complete_up_to=self._complete_up_to(),
            next_page_token=shown.next_token,
        )

    async def WatchMetrics(
        self, request: pb.WatchMetricsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.WatchMetricsResponse]:
        """Points whenever they change; a heartbeat after 15 s of silence. RESOURCE_EXHAUSTED when too many watch."""
        query = _selection(request.query)
        watcher = self._watchers.join(frozenset(metric(name).family for name in query["metrics"]))
        if watcher is None:
            raise ResourceExhausted("too many watchers; try again later", retry_after_seconds=30)
        try:
            if request.HasField("history"):
                start = self._microseconds() - request.history.ToMicroseconds()
                yield self._update(Query(**query, start=_first_window(start, query)), coalesced=0)
            while True:
                yield await self._next(watcher, query)
        finally:
            self._watchers.leave(watcher)

    async def ListAlerts(
        self, request: pb.ListAlertsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListAlertsResponse:
        """One page of alerts, whichever service raised them. INVALID_ARGUMENT on a bad page token."""
        # Before they are listed: what is judged meanwhile may be missing from the answer.
        complete_up_to = stamp(self._watermark.of_alerts())
        return alerts.listed(self._alerts, request, complete_up_to=complete_up_to)

    async def ListSources(
        self, request: pb.ListSourcesRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListSourcesResponse:
        """Up to where each producer's events have come in without a gap."""
        return pb.ListSourcesResponse(sources=[_source(source) for source in self._sources.snapshot()])

    async def _next(self, watcher: Watcher, query: dict) -> pb.WatchMetricsResponse:
        changed = await watcher.changed(timeout=HEARTBEAT_SECONDS, settle=SETTLE_SECONDS)
        if changed is None:
            return pb.WatchMetricsResponse(heartbeat=pb.WatchHeartbeat(complete_up_to=self._complete_up_to()))
        starts, coalesced = changed
        # gRPC asks for the next message only when the reader has room: what changes meanwhile is merged by the watcher.
        first, last = _first_window(min(starts), query), max(starts)
        asked = Query(**query, start=first, end=last + query["window"])
        windows = {window for start in starts for window in asked.windows_of(start)}
        return self._update(asked, coalesced=coalesced, only=windows | starts)  # drift has windows of its own

    def _update(self, query: Query, *, coalesced: int, only: set[int] | None = None) -> pb.WatchMetricsResponse:
        # A window that begins before minutes do lacks some: what it was said to be before it is right, and this is not.
        begin = self._board.begins_at(self._microseconds())
        found = [point for point in self._board.points(query) if point.start >= begin]
        points = [_point(point) for point in found if only is None or point.start in only]
        update = pb.MetricUpdate(points=points, coalesced=coalesced, complete_up_to=self._complete_up_to())
        return pb.WatchMetricsResponse(update=update)

    async def _points(self, query: Query) -> list[Point]:
        """Of minutes, and of the hours and days that are left of those before."""
        history = self._history
        since = history.folded_up_to if history else 0
        if history is None or query.start >= since or not query.is_of_whole_hours:
            return self._board.points(query, since=since)
        families = frozenset(metric(name).family for name in query.metrics)
        # Before anything is waited for: hours that are folded meanwhile leave the board, and are not in `older` either.
        minutes = self._board.starting(since, query.until)
        try:
            older = await history.parts(query, families, before=since)
        except TooMuchHistory as error:
            raise InvalidInput(f"the answer {error}", reason="TOO_MUCH_HISTORY", field="query") from None
        return await asyncio.to_thread(self._board.points, query, parts=[*older, *minutes])

    def _clipped(self, start: int, selection: dict) -> int:
        """The first window of an answer. Minutes are gone before the history begins: a window that would lack some is left out."""
        first = _first_window(start, selection)
        begin = self._board.begins_at(self._microseconds()) if self._history else 0
        if first >= begin or Query(**selection).is_of_whole_hours:
            return first
        if start < begin:
            moment = datetime.fromtimestamp(begin / 1e6, tz=UTC).isoformat()
            raise InvalidInput(
                f"before {moment} values are kept by the hour: begin there, or ask for windows (and hops) of whole hours",
                reason="KEPT_BY_THE_HOUR",
                field="start_time",
            )
        hop = int(selection["hop"])
        return -(-begin // hop) * hop

    def _query(self, request: pb.QueryMetricsRequest) -> Query:
        selection = _selection(request.query)
        end = request.end_time.ToMicroseconds() if request.HasField("end_time") else self._microseconds()
        start = request.start_time.ToMicroseconds() if request.HasField("start_time") else end - _HOUR
        if start >= end:
            raise InvalidInput("start_time must be before end_time", field="start_time")
        return Query(**selection, start=self._clipped(start, selection), end=end)

    def _complete_up_to(self) -> Timestamp | None:
        return stamp(self._watermark.of_metrics())

    def _microseconds(self) -> int:
        return int(self._now() * 1_000_000)


def _selection(query: pb.MetricQuery) -> dict:
    if not query.metrics:
        raise InvalidInput("name at least one metric", field="query.metrics")
    if len(query.metrics) > MOST_METRICS:
        raise InvalidInput(f"ask for at most {MOST_METRICS} metrics at once", field="query.metrics")
    for name in query.metrics:
        _check_metric(name)
    filters: dict[str, frozenset[str]] = {}
    for chosen in query.filters:
        name = _dimension(chosen.dimension, field="query.filters", metrics=query.metrics)
        if not chosen.values:
            raise InvalidInput(
                f"name at least one value of {pb.Dimension.Name(chosen.dimension)}, or leave this filter out: without any it leaves out everything",
                field="query.filters",
            )
        filters[name] = filters.get(name, frozenset(chosen.values)) & frozenset(chosen.values)
    if tenant := contexts.current().tenant_id:
        filters["tenant_id"] = filters.get("tenant_id", frozenset((tenant,))) & {tenant}
    return {
        "metrics": tuple(dict.fromkeys(query.metrics)),
        "filters": filters,
        "group_by": tuple(_dimension(each, field="query.group_by", metrics=query.metrics) for each in query.group_by),
        "window": (window := _window(query)),
        "hop": _hop(query, window),
    }


def _check_metric(name: str) -> None:
    try:
        metric(name)
    except UnknownMetric as error:
        known = ", ".join(error.known)
        raise InvalidInput(
            f"unknown metric; known are: {known}", reason="UNKNOWN_METRIC", field="query.metrics"
        ) from None


def _dimension(value: int, *, field: str, metrics: Sequence[str]) -> str:
    without = [name for name in metrics if not name.startswith(OF_REDACTION_POLICIES)]
    if value == pb.DIMENSION_REDACTION_POLICY and without:
        raise InvalidInput(
            f"DIMENSION_REDACTION_POLICY is of {OF_REDACTION_POLICIES}* alone: ask for {without[0]} by itself, without it",
            field=field,
        )
    try:
        return _DIMENSIONS[value]  # type: ignore[index]
    except KeyError:
        known = ", ".join(pb.Dimension.Name(each) for each in _DIMENSIONS)
        raise InvalidInput(f"unknown dimension; known are: {known}", reason="UNKNOWN_DIMENSION", field=field) from None


def _window(query: pb.MetricQuery) -> int:
    window = query.window.ToMicroseconds() if query.HasField("window") else MINUTE
    if window <= 0 or window % MINUTE or window > LONGEST_WINDOW:
        raise InvalidInput("window must be a whole number of minutes, at most a day", field="query.window")
    return window


def _hop(query: pb.MetricQuery, window: int) -> int:
    hop = query.hop.ToMicroseconds() if query.HasField("hop") else window
    if hop <= 0 or hop % MINUTE or window % hop or window > MOST_OVERLAPPING * hop:
        raise InvalidInput(
            f"hop must be a whole number of minutes that divides the window, at least a {MOST_OVERLAPPING}th of it",
            field="query.hop",
        )
    return hop


def _first_window(moment: int, selection: dict) -> int:
    """Start of the first window that ends after a moment."""
    hop = int(selection["hop"])
    return int(moment - moment % hop - selection["window"] + hop)


def _point(point: Point) -> metric_pb2.MetricPoint:
    value = point.value
    return metric_pb2.MetricPoint(
        metric=point.metric,
        unit=point.unit,
        series=_series(point.series),
        window=metric_pb2.MetricWindow(start=_timestamp(point.start), length=_duration(point.length)),
        value=value.value,
        sample_count=value.sample_count,
        lower=value.lower,
        upper=value.upper,
        revision=point.revision,
        closed=point.closed,
        verdict=point.verdict,
    )


def _source(source: Source) -> pb.Source:
    return pb.Source(
        topic=source.topic,
        producer=source.producer,
        begins_at_sequence=source.begins_at,
        last_sequence=source.last_sequence,
        complete_up_to_sequence=source.complete_up_to_sequence,
        complete_up_to=_timestamp(source.complete_up_to) if source.complete_up_to else None,
        missing_count=sum(last - first + 1 for first, last in source.missing),
        missing=[pb.SequenceRange(first=first, last=last) for first, last in source.missing[:SHOWN_RANGES]],
        repeated_count=source.repeated,
        lost_count=source.lost,
    )


def _series(series: Series) -> metric_pb2.MetricSeries:
    return metric_pb2.MetricSeries(**{name: getattr(series, name) for name in DIMENSIONS})


def _timestamp(microseconds: int) -> Timestamp:
    moment = Timestamp()
    moment.FromMicroseconds(microseconds)
    return moment


def _duration(microseconds: int) -> Duration:
    span = Duration()
    span.FromMicroseconds(microseconds)
    return span
