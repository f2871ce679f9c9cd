"""ComparisonService over what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1.drift_pb2 import DRIFT_VERDICT_DRIFTED, DRIFT_VERDICT_INSUFFICIENT
from sluice.insight.v1 import comparison_service_pb2 as pb
from sluice.insight.v1 import comparison_service_pb2_grpc as pb_grpc
from sluice_kit import context
from sluice_kit.errors import InvalidInput

from sluice_insight.adapters.comparisons import (
    MODEL,
    TENANT,
    Comparisons,
    DriftComparison,
    FairnessMeasurement,
    KeptComparison,
    KeptMeasurement,
)
from sluice_insight.adapters.watermark import Watermark, stamp
from sluice_insight.api.paging import page

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["ComparisonService"].full_name
_DRIFT_PAGE, _LARGEST_DRIFT_PAGE = 100, 1_000
_FAIRNESS_PAGE, _LARGEST_FAIRNESS_PAGE = 500, 5_000

_Compared = DriftComparison | KeptComparison
_Measured = FairnessMeasurement | KeptMeasurement


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which measurements are asked for; empty means every one."""

    tenant_id: str
    metric: str
    attribute: str
    model: str

    def has(self, one: _Measured) -> bool:
        key = one.key
        return (
            (not self.tenant_id or key.tenant_id == self.tenant_id)
            and (not self.metric or key.metric == self.metric)
            and (not self.attribute or key.attribute == self.attribute)
            and (not self.model or key.model == self.model)
        )


class ComparisonService(pb_grpc.ComparisonServiceServicer):
    """Answers what drift and fairness last found."""

    def __init__(self, comparisons: Comparisons, watermark: Watermark) -> None:
        self._comparisons, self._watermark = comparisons, watermark

    async def ListDrift(self, request: pb.ListDriftRequest, _: grpc.aio.ServicerContext) -> pb.ListDriftResponse:
        """The newest window of every series, or one window; a tenant's callers get their tenant's."""
        tenant = context.current().tenant_id or request.tenant_id

        def matches(one: _Compared) -> bool:
            return (not tenant or one.key[TENANT] == tenant) and (not request.model or one.key[MODEL] == request.model)

        known = self._comparisons.drift.find(matches)
        since = _microseconds(request, "start_time") if request.HasField("start_time") else 0
        found: list[_Compared] = [*_newest_that_says([one for one in known if one.rank[0] >= since])]
        older = len({one.key[:-1] for one in known}) - len(found)
        windows = self._comparisons.drift_windows
        if request.HasField("window_start"):
            found, older = [*windows.find(_microseconds(request, "window_start"), matches)], 0
        found.sort(key=_order)
        shown = page(
            found, size=request.page_size, default=_DRIFT_PAGE, largest=_LARGEST_DRIFT_PAGE, token=request.page_token
        )
        return pb.ListDriftResponse(
            comparisons=[one.event for one in shown.items],
            left_out=shown.left_out,
            newest_at=_newest(found),
            next_page_token=shown.next_token,
            older_count=older,
            complete_up_to=stamp(self._watermark.of_drift()),
            windows=[] if request.page_token else map(_drift_window, windows.each(matches)),
        )

    async def ListFairness(
        self, request: pb.ListFairnessRequest, _: grpc.aio.ServicerContext
    ) -> pb.ListFairnessResponse:
        """The newest window of every metric and group, or one window; a tenant's callers get their tenant's."""
        wanted = _Wanted(
            context.current().tenant_id or request.tenant_id, request.metric, request.attribute, request.model
        )
        found = self._fairness(request, wanted)
        shown = page(
            found,
            size=request.page_size,
            default=_FAIRNESS_PAGE,
            largest=_LARGEST_FAIRNESS_PAGE,
            token=request.page_token,
        )
        windows = self._comparisons.fairness_windows(are_long=request.long_windows)
        return pb.ListFairnessResponse(
            measurements=[one.event for one in shown.items],
            left_out=shown.left_out,
            newest_at=_newest(found),
            next_page_token=shown.next_token,
            windows=[] if request.page_token else map(_window, windows.each(wanted.has)),
            complete_up_to=stamp(self._watermark.of_fairness()),
        )

    def _fairness(self, request: pb.ListFairnessRequest, wanted: _Wanted) -> Sequence[_Measured]:
        if request.HasField("window_start"):
            windows = self._comparisons.fairness_windows(are_long=request.long_windows)
            return windows.find(_microseconds(request, "window_start"), wanted.has)
        length = "long" if request.long_windows else "short"
        newest = self._comparisons.fairness.find(lambda one: one.key.length == length and wanted.has(one))
        of_origins = filter(wanted.has, self._comparisons.of_name_origins(long_windows=request.long_windows))
        return sorted((*newest, *of_origins), key=lambda one: one.key)


def _newest_that_says(found: Sequence[DriftComparison]) -> list[DriftComparison]:
    """One of a series: the newest window with a verdict, or, where there never was one, the newest of all."""
    by_series: dict[tuple[str, ...], DriftComparison] = {}
    for one in found:  # "insufficient" sorts before "says"
        by_series[one.key[:-1]] = one
    return list(by_series.values())


def _order(one: _Compared) -> int:
    event = one.event
    if event.verdict != DRIFT_VERDICT_INSUFFICIENT:
        return 0 if event.verdict == DRIFT_VERDICT_DRIFTED else 1
    return 2 if event.observations or event.reference.observations else 3


def _newest(found: Sequence[Any]) -> Timestamp | None:
    return stamp(max((one.rank[0] for one in found), default=0))


def _microseconds(request: pb.ListDriftRequest | pb.ListFairnessRequest, name: str) -> int:
    try:
        found: int = getattr(request, name).ToMicroseconds()
    except ValueError:  # beyond what protobuf calls a time
        raise InvalidInput("must be a time of the years 1 to 9999", field=name) from None
    return found


def _drift_window(window: tuple[int, Sequence[KeptComparison]]) -> pb.DriftWindow:
    start, found = window
    return pb.DriftWindow(start=stamp(start), drifted_count=sum(one.has_drifted for one in found))


def _window(window: tuple[int, Sequence[KeptMeasurement]]) -> pb.FairnessWindow:
    start, found = window
    return pb.FairnessWindow(start=stamp(start), disparate_count=sum(one.is_disparate for one in found))
