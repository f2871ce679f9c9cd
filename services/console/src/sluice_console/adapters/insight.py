"""Asks insight for metrics, alerts and sources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice.insight.v1 import insight_service_pb2_grpc as rpc
from sluice.types.v1 import metric_pb2

from sluice_console.adapters.asking import Neighbour, on_behalf_of
from sluice_console.adapters.messages import moment, optional, timestamp
from sluice_console.domain.answers import Alert, Alerts, Away, Point, Points, Source

DIMENSIONS = {
    "tenant": (pb.DIMENSION_TENANT, "tenant_id"),
    "project": (pb.DIMENSION_PROJECT, "project_id"),
    "model": (pb.DIMENSION_MODEL, "model"),
    "route": (pb.DIMENSION_ROUTE, "route"),
    "prompt_version": (pb.DIMENSION_PROMPT_VERSION, "prompt_version"),
    "experiment_arm": (pb.DIMENSION_EXPERIMENT_ARM, "experiment_arm"),
    "redaction_policy": (pb.DIMENSION_REDACTION_POLICY, "redaction_policy"),
}
_POINTS_A_PAGE, _MOST_PAGES = 10_000, 5
_MOST_CAUSES = 5
_SILENT_SECONDS = 20.0
"""A watch is given up after so long: insight sends a heartbeat after 15 seconds of silence."""
_STATES = {
    pb.ALERT_STATE_PENDING: "pending",
    pb.ALERT_STATE_FIRING: "firing",
    pb.ALERT_STATE_RESOLVED: "resolved",
}


class Insight:
    """The read model. Every method raises Away when it does not answer in time, or refuses; `tenant` is whose questions these are, empty for all."""

    def __init__(self, channel: Any, *, seconds: float, silent_seconds: float = _SILENT_SECONDS) -> None:
        self._stub = rpc.InsightServiceStub(channel)
        self._insight = Neighbour("insight", "the live metrics", seconds)
        self._silent_seconds = silent_seconds

    async def points(
        self,
        metrics: Sequence[str],
        *,
        tenant: str,
        start: datetime,
        end: datetime,
        window: timedelta,
        filters: Mapping[str, str],
        group_by: Sequence[str] = (),
    ) -> Points:
        """Values by metric, series and window; at most 50,000, and told where that was not all."""
        request = pb.QueryMetricsRequest(
            query=_query(metrics, filters=filters, group_by=group_by, window=window),
            start_time=timestamp(start),
            end_time=timestamp(end),
            page_size=_POINTS_A_PAGE,
        )
        points: list[Point] = []
        complete_up_to = None
        for _ in range(_MOST_PAGES):
            answer = await self._insight.ask(self._stub.QueryMetrics, request, tenant=tenant)
            points += map(_point, answer.points)
            complete_up_to = complete_up_to or moment(answer, "complete_up_to")
            request.page_token = answer.next_page_token
            if not request.page_token:
                break
        return Points(points, complete_up_to, is_cut=bool(request.page_token))

    async def changes(
        self, metrics: Sequence[str], *, tenant: str, filters: Mapping[str, str]
    ) -> AsyncGenerator[None, None]:
        """Yields whenever a value changed, and at every heartbeat; raises Away when insight goes away or falls silent."""
        request = pb.WatchMetricsRequest(
            query=_query(metrics, filters=filters, group_by=(), window=timedelta(minutes=1))
        )
        call = self._stub.WatchMetrics(request, metadata=on_behalf_of(tenant))
        try:
            messages = aiter(call)
            while True:
                async with asyncio.timeout(self._silent_seconds):
                    if await anext(messages, None) is None:
                        return
                yield
        except grpc.aio.AioRpcError as error:
            raise self._insight.away(error) from None
        except TimeoutError:
            raise Away("insight", "insight, which keeps the live metrics, has fallen silent.") from None
        finally:
            call.cancel()

    async def alerts(self, *, tenant: str, page_size: int = 200) -> Alerts:
        """Newest first; of one tenant, where one is named."""
        request = pb.ListAlertsRequest(page_size=page_size, tenant_id=tenant)
        answer = await self._insight.ask(self._stub.ListAlerts, request, tenant=tenant)
        return Alerts([_alert(one) for one in answer.alerts], moment(answer, "complete_up_to"))

    async def sources(self, *, tenant: str) -> list[Source]:
        """Every producer whose events insight reads."""
        answer = await self._insight.ask(self._stub.ListSources, pb.ListSourcesRequest(), tenant=tenant)
        return [
            Source(one.topic, one.producer, one.missing_count, one.lost_count, moment(one, "complete_up_to"))
            for one in answer.sources
        ]


def _query(
    metrics: Sequence[str], *, filters: Mapping[str, str], group_by: Sequence[str], window: timedelta
) -> pb.MetricQuery:
    length = Duration()
    length.FromTimedelta(window)
    return pb.MetricQuery(
        metrics=metrics,
        filters=[pb.DimensionFilter(dimension=DIMENSIONS[name][0], values=[value]) for name, value in filters.items()],
        group_by=[DIMENSIONS[name][0] for name in group_by],
        window=length,
    )


def _point(point: metric_pb2.MetricPoint) -> Point:
    return Point(
        metric=point.metric,
        unit=point.unit,
        series={name: getattr(point.series, field) for name, (_, field) in DIMENSIONS.items()},
        start=point.window.start.ToDatetime(tzinfo=UTC),
        length=point.window.length.ToTimedelta(),
        samples=point.sample_count,
        closed=point.closed,
        verdict=point.verdict,
        value=optional(point, "value"),
        lower=optional(point, "lower"),
        upper=optional(point, "upper"),
    )


def _alert(alert: pb.Alert) -> Alert:
    # By the metric: an insight of an older version sends an empty measurement where there is none.
    evidence = _point(alert.evidence) if alert.evidence.metric else None
    return Alert(
        id=alert.alert_id,
        rule=alert.rule,
        state=_STATES.get(alert.state, "unknown"),
        since=moment(alert, "since"),
        evidence=evidence,
        severity=alert.severity,
        summary=alert.summary,
        runbook=alert.runbook,
        causes=dict(sorted(alert.causes.items(), key=lambda cause: -cause[1])[:_MOST_CAUSES]),
        labels=dict(sorted(alert.labels.items())),
        silenced_by=tuple(alert.silenced_by),
        taken_by=alert.acknowledgement.by,
        taken_for=alert.acknowledgement.reason,
        taken_at=moment(alert.acknowledgement, "at"),
    )
