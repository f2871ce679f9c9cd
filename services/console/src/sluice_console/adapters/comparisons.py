"""Asks insight for the comparisons of drift and fairness."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sluice.events.v1 import drift_pb2, fairness_pb2
from sluice.insight.v1 import comparison_service_pb2 as pb
from sluice.insight.v1 import comparison_service_pb2_grpc as rpc

from sluice_console.adapters.asking import Neighbour
from sluice_console.adapters.messages import moment, optional, timestamp
from sluice_console.domain.comparisons import Cause, DriftedSeries, Feature, Found, GroupMeasurement, feature_title
from sluice_console.domain.looking_back import KeptWindow

_DRIFT = {
    drift_pb2.DRIFT_VERDICT_INSUFFICIENT: "insufficient",
    drift_pb2.DRIFT_VERDICT_STABLE: "stable",
    drift_pb2.DRIFT_VERDICT_DRIFTED: "drifted",
}
_FAIRNESS = {
    fairness_pb2.FAIRNESS_VERDICT_UNSPECIFIED: "",  # the reference itself, or told without a test
    fairness_pb2.FAIRNESS_VERDICT_INSUFFICIENT: "insufficient",
    fairness_pb2.FAIRNESS_VERDICT_COMPARABLE: "no difference shown",
    fairness_pb2.FAIRNESS_VERDICT_DISPARATE: "disparate",
}
_MOST_SERIES = 200
_MEASUREMENTS_A_PAGE, _MOST_PAGES = 4_000, 5


class ComparisonReader:
    """What was compared. Every method raises Away when insight does not answer in time, or refuses."""

    def __init__(self, channel: Any, *, seconds: float) -> None:
        self._stub = rpc.ComparisonServiceStub(channel)
        self._insight = Neighbour("insight", "the comparisons", seconds)

    async def drift(
        self,
        *,
        tenant: str,
        model: str = "",
        token: str = "",
        since: datetime | None = None,
        window: datetime | None = None,
    ) -> Found[DriftedSeries]:
        """The newest comparison of every series that was seen since, or those of a window, drifted ones first; `model` empty means every one."""
        request = pb.ListDriftRequest(
            tenant_id=tenant,
            model=model,
            page_size=_MOST_SERIES,
            page_token=token,
            start_time=None if since is None else timestamp(since),
            window_start=None if window is None else timestamp(window),
        )
        answer = await self._insight.ask(self._stub.ListDrift, request, tenant=tenant)
        return Found(
            [_series(one) for one in answer.comparisons],
            answer.left_out,
            moment(answer, "newest_at"),
            answer.next_page_token,
            answer.older_count,
            moment(answer, "complete_up_to"),
            [KeptWindow(one.start.ToDatetime(tzinfo=UTC), one.drifted_count) for one in answer.windows],
        )

    async def fairness(
        self, *, tenant: str, metric: str, long_windows: bool, window: datetime | None = None
    ) -> Found[GroupMeasurement]:
        """The measurements of every group of every attribute, of one window or the newest; at most 20,000, and told how many more there were."""
        request = pb.ListFairnessRequest(
            tenant_id=tenant,
            metric=metric,
            long_windows=long_windows,
            page_size=_MEASUREMENTS_A_PAGE,
            window_start=None if window is None else timestamp(window),
        )
        found: dict[tuple[str, ...], GroupMeasurement] = {}  # what changes between two pages may be told twice
        windows: list[KeptWindow] = []  # the first page has them
        complete_up_to = None
        for _ in range(_MOST_PAGES):
            answer = await self._insight.ask(self._stub.ListFairness, request, tenant=tenant)
            windows += map(_kept_window, answer.windows)
            found |= {
                (*one.series, one.attribute, one.metric, one.group): one
                for one in map(_measurement, answer.measurements)
            }
            complete_up_to = complete_up_to or moment(answer, "complete_up_to")
            request.page_token = answer.next_page_token
            if not request.page_token:
                break
        newest_at = moment(answer, "newest_at")
        return Found(list(found.values()), answer.left_out, newest_at, windows=windows, complete_up_to=complete_up_to)


def _kept_window(window: pb.FairnessWindow) -> KeptWindow:
    return KeptWindow(window.start.ToDatetime(tzinfo=UTC), window.disparate_count)


def _series(event: drift_pb2.DriftMeasured) -> DriftedSeries:
    return DriftedSeries(
        tenant=event.series.tenant_id,
        model=event.series.model,
        start=event.window.start.ToDatetime(tzinfo=UTC),
        length=event.window.length.ToTimedelta(),
        closed=event.part.closed,
        verdict=_DRIFT.get(event.verdict, "unknown"),
        observations=event.observations,
        reference_version=event.reference.version,
        reference_observations=event.reference.observations,
        reference_requests=event.reference.requests,
        reference_from=moment(event.reference, "first_observed_at"),
        reference_until=moment(event.reference, "last_observed_at"),
        false_alarm_rate=event.false_alarm_rate,
        features=[_feature(one) for one in event.features],
        causes=[_cause(one) for one in event.causes],
    )


def _cause(cause: drift_pb2.DriftCause) -> Cause:
    return Cause(
        feature=feature_title(cause.feature),
        dimension=cause.dimension.replace("_", " "),
        slice=cause.slice,
        share=cause.share,
        mix_share=cause.mix_share,
        within_share=cause.within_share,
        window_share=cause.window_share,
        reference_share=cause.reference_share,
        explained=cause.explained,
    )


def _feature(feature: drift_pb2.FeatureDrift) -> Feature:
    return Feature(
        name=feature.feature,
        statistic=feature.statistic.replace("_", " "),
        value=feature.value,
        p_value=optional(feature, "p_value"),
        psi=optional(feature, "population_stability_index"),
        js=optional(feature, "jensen_shannon_divergence"),
        verdict=_DRIFT.get(feature.verdict, "unknown"),
        bins=list(feature.bins),
        counts=list(feature.bin_counts),
        reference_counts=list(feature.reference_bin_counts),
        largest_change=feature.largest_change,
        trailing_windows=feature.trailing_windows,
        trailing_gap=feature.trailing_gap,
    )


def _measurement(event: fairness_pb2.FairnessMeasured) -> GroupMeasurement:
    return GroupMeasurement(
        tenant=event.series.tenant_id,
        project=event.series.project_id,
        model=event.series.model,
        policy=event.policy,
        attribute=event.attribute,
        metric=event.metric,
        group=event.group,
        start=event.window.start.ToDatetime(tzinfo=UTC),
        length=event.window.length.ToTimedelta() or timedelta(minutes=1),
        verdict=_FAIRNESS.get(event.verdict, "unknown"),
        samples=event.sample_count,
        value=event.value,
        lower=event.lower,
        upper=event.upper,
        reference=event.reference_group,
        difference=optional(event, "difference"),
        difference_lower=optional(event, "difference_lower"),
        difference_upper=optional(event, "difference_upper"),
        ratio=optional(event, "ratio"),
        adjusted_p_value=optional(event, "adjusted_p_value"),
        below_four_fifths=event.below_four_fifths,
        trend=optional(event, "trend_per_hour"),
        trend_lower=optional(event, "trend_lower"),
        trend_upper=optional(event, "trend_upper"),
    )
