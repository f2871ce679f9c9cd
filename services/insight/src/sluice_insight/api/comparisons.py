"""ComparisonService over the newest measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1.drift_pb2 import DRIFT_VERDICT_DRIFTED
from sluice.insight.v1 import comparison_service_pb2 as pb
from sluice.insight.v1 import comparison_service_pb2_grpc as pb_grpc
from sluice_kit import context

from sluice_insight.adapters.comparisons import Comparisons, DriftComparison, FairnessMeasurement
from sluice_insight.api.paging import page

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ComparisonService"].full_name
_DRIFT_PAGE, _LARGEST_DRIFT_PAGE = 100, 1_000
_FAIRNESS_PAGE, _LARGEST_FAIRNESS_PAGE = 500, 5_000


class ComparisonService(pb_grpc.ComparisonServiceServicer):
    """Answers what drift and fairness last found."""

    def __init__(self, comparisons: Comparisons) -> None:
        self._comparisons = comparisons

    async def ListDrift(self, request: pb.ListDriftRequest, _: grpc.aio.ServicerContext) -> pb.ListDriftResponse:
        """The newest window of every series; a tenant's callers get their tenant's."""
        tenant = context.current().tenant_id or request.tenant_id

        def matches(one: DriftComparison) -> bool:
            series = one.event.series
            return (not tenant or series.tenant_id == tenant) and (not request.model or series.model == request.model)

        found = _newest_that_says(self._comparisons.drift.find(matches))
        found.sort(key=lambda one: one.event.verdict != DRIFT_VERDICT_DRIFTED)
        shown = page(
            found, size=request.page_size, default=_DRIFT_PAGE, largest=_LARGEST_DRIFT_PAGE, token=request.page_token
        )
        return pb.ListDriftResponse(
            comparisons=[one.event for one in shown.items],
            left_out=shown.left_out,
            newest_at=_newest(found),
            next_page_token=shown.next_token,
        )

    async def ListFairness(
        self, request: pb.ListFairnessRequest, _: grpc.aio.ServicerContext
    ) -> pb.ListFairnessResponse:
        """The newest window of every metric and group; a tenant's callers get their tenant's."""
        tenant = context.current().tenant_id or request.tenant_id

        def matches(one: FairnessMeasurement) -> bool:
            event = one.event
            return (
                one.is_long is request.long_windows
                and (not tenant or event.series.tenant_id == tenant)
                and (not request.metric or event.metric == request.metric)
                and (not request.attribute or event.attribute == request.attribute)
                and (not request.model or event.series.model == request.model)
            )

        of_origins = filter(matches, self._comparisons.of_name_origins(long_windows=request.long_windows))
        found = sorted((*self._comparisons.fairness.find(matches), *of_origins), key=lambda one: one.key)
        shown = page(
            found,
            size=request.page_size,
            default=_FAIRNESS_PAGE,
            largest=_LARGEST_FAIRNESS_PAGE,
            token=request.page_token,
        )
        return pb.ListFairnessResponse(
            measurements=[one.event for one in shown.items],
            left_out=shown.left_out,
            newest_at=_newest(found),
            next_page_token=shown.next_token,
        )


def _newest_that_says(found: Sequence[DriftComparison]) -> list[DriftComparison]:
    """One of a series: the newest window with a verdict, or, where there never was one, the newest of all."""
    by_series: dict[tuple[str, ...], DriftComparison] = {}
    for one in found:  # "insufficient" sorts before "says"
        by_series[one.key[:-1]] = one
    return list(by_series.values())


def _newest(found: Sequence[Any]) -> Timestamp | None:
    newest = max((one.rank[0] for one in found), default=0)
    if not newest:
        return None
    stamp = Timestamp()
    stamp.FromMicroseconds(newest)
    return stamp
