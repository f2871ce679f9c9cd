"""The live windows for Prometheus, with a bounded number of series."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from sluice_insight.domain.board import MINUTE, Board, Point, Query
from sluice_insight.domain.catalogue import METRICS
from sluice_insight.domain.part import Series

SPAN = 5 * MINUTE
"""What is exposed is merged over the last five minutes: enough requests for a quantile, short enough to be live."""

EXPOSED = (
    "quality.requests",
    "quality.success_ratio",
    "quality.failed_ratio",
    "quality.blocked_ratio",
    "quality.redacted_ratio",
    "quality.refusal_ratio",
    "quality.empty_answer_ratio",
    "quality.truncated_ratio",
    "quality.language_mismatch_ratio",
    "quality.repetitive_ratio",
    "quality.grounded_sentence_ratio",
    "quality.feedback_score",
    "quality.latency_seconds.p50",
    "quality.latency_seconds.p95",
    "quality.latency_seconds.p99",
    "quality.time_to_first_token_seconds.p50",
    "quality.time_to_first_token_seconds.p95",
    "quality.tokens_per_second.p50",
    "cost.nano_units",
    "cost.unpriced",
)
DRIFT = ("drift.drifted", "drift.observations")
OTHER = "other"


class LiveWindows(Collector):
    """Gauges `sluice_insight_<metric>{tenant,model}` over the last five minutes.

    Only the `limit` series with the most requests keep their names; the rest are added up as `other`, so that a tenant
    who invents model names cannot grow Prometheus.
    """

    def __init__(self, *, board: Board, limit: int, now: Callable[[], float] = time.time) -> None:
        self._board = board
        self._limit = limit
        self._now = now

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing to check at registration: the families depend on what was measured."""
        return []

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Called at every scrape."""
        end = int(self._now() * 1_000_000)
        start = end - end % MINUTE - SPAN
        kept = self._largest(start, end)
        families: dict[str, GaugeMetricFamily] = {}
        quality = self._board.merged(_query(EXPOSED, start, end), name=lambda series: _named(series, kept))
        for point in [*quality, *self._drift(end, kept)]:
            if point.value.value is not None:
                labels = [point.series.tenant_id, point.series.model, point.unit]
                self._family(families, point).add_metric(labels, point.value.value)
        return families.values()

    def _family(self, families: dict[str, GaugeMetricFamily], point: Point) -> GaugeMetricFamily:
        name = "sluice_insight_" + point.metric.replace(".", "_")
        if name not in families:
            span = "Newest closed window of the last hour." if point.metric in DRIFT else "Last five minutes."
            text = f"{METRICS[point.metric].description} {span}"
            families[name] = GaugeMetricFamily(name, text, labels=["tenant", "model", "unit"])
        return families[name]

    def _largest(self, start: int, end: int) -> set[Series]:
        query = _query(("quality.requests", "cost.records", "drift.observations"), start - SPAN, end)
        counts: Counter[Series] = Counter()
        for point in self._board.points(replace(query, group_by=("tenant_id", "model"))):
            counts[Series(tenant_id=point.series.tenant_id, model=point.series.model)] += point.value.sample_count
        ranked = sorted(counts, key=lambda series: (-counts[series], series.tenant_id, series.model))
        return set(ranked[: self._limit])

    def _drift(self, end: int, kept: set[Series]) -> Iterable[Point]:
        newest: dict[tuple[str, Series], Point] = {}
        # A drift window is longer than the span: the newest one of the last hour stands for now. An open one does not: it is looked at
        # again and again as it grows, and the stated rate of false alarms is not of it.
        for point in self._board.points(_query(DRIFT, end - 60 * MINUTE, end)):
            known = newest.get((point.metric, point.series))
            if point.closed and point.series in kept and (known is None or point.start > known.start):
                newest[point.metric, point.series] = point
        return newest.values()


def _named(series: Series, kept: set[Series]) -> Series:
    short = Series(tenant_id=series.tenant_id, model=series.model)
    return short if short in kept else Series(tenant_id=OTHER, model=OTHER)


def _query(metrics: tuple[str, ...], start: int, end: int) -> Query:
    return Query(metrics=metrics, filters={}, start=start, end=end)
