"""Compared windows to DriftMeasured."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1 import drift_pb2

from sluice_drift.domain.causes import Cause
from sluice_drift.domain.comparison import Comparison, Feature, Verdict
from sluice_drift.domain.partition import Due
from sluice_drift.domain.reference import Reference

_VERDICTS = {
    Verdict.INSUFFICIENT: drift_pb2.DRIFT_VERDICT_INSUFFICIENT,
    Verdict.STABLE: drift_pb2.DRIFT_VERDICT_STABLE,
    Verdict.DRIFTED: drift_pb2.DRIFT_VERDICT_DRIFTED,
}


def measured(
    due: Due, comparison: Comparison, causes: Iterable[Cause], *, false_alarm_rate: float
) -> drift_pb2.DriftMeasured:
    """The event that publishes a window; the publisher fills in its metadata."""
    window = due.window
    event = drift_pb2.DriftMeasured(
        observations=window.observations,
        verdict=_VERDICTS[comparison.verdict],
        false_alarm_rate=false_alarm_rate,
        reference=_reference(due.reference),
        features=[_feature(feature) for feature in comparison.features],
        causes=[_cause(cause) for cause in causes],
    )
    event.metadata.tenant_id = event.series.tenant_id = window.series.tenant_id
    event.series.model = window.series.model
    event.window.start.CopyFrom(_timestamp(window.start))
    event.window.length.CopyFrom(_duration(window.length))
    event.part.part_key = window.key
    event.part.source_partition = window.partition
    event.part.revision = due.revision
    event.part.closed = due.closed
    if due.complete_up_to:
        event.part.complete_up_to.CopyFrom(_timestamp(due.complete_up_to))
    return event


def _reference(reference: Reference) -> drift_pb2.DriftReference:
    return drift_pb2.DriftReference(
        version=reference.version,
        observations=reference.observations,
        pinned=reference.pinned,
        first_observed_at=_timestamp(reference.first_at),
        last_observed_at=_timestamp(reference.last_at),
        embedding_model=reference.embedding_model,
        requests=reference.request.observations,
        requests_pinned=reference.requests_pinned,
        command_id=reference.command,
    )


def _feature(feature: Feature) -> drift_pb2.FeatureDrift:
    return drift_pb2.FeatureDrift(
        feature=feature.name,
        statistic=feature.statistic,
        value=feature.value,
        p_value=feature.p_value,
        verdict=_VERDICTS[feature.verdict],
        population_stability_index=feature.stability_index,
        jensen_shannon_divergence=feature.divergence,
        observations=feature.observations,
        reference_observations=feature.reference_observations,
        bins=[name for name, _, _ in feature.bins],
        bin_counts=[count for _, count, _ in feature.bins],
        reference_bin_counts=[count for _, _, count in feature.bins],
        largest_change=feature.largest_change,
        trailing_windows=feature.trailing,
        trailing_gap=feature.gap,
    )


def _cause(cause: Cause) -> drift_pb2.DriftCause:
    return drift_pb2.DriftCause(
        feature=cause.feature,
        dimension=cause.dimension,
        slice=cause.slice,
        share=cause.share,
        mix_share=cause.mix,
        within_share=cause.within,
        window_share=cause.window_share,
        reference_share=cause.reference_share,
        explained=cause.explained,
    )


def _timestamp(microseconds: int) -> Timestamp:
    moment = Timestamp()
    moment.FromMicroseconds(microseconds)
    return moment


def _duration(microseconds: int) -> Duration:
    span = Duration()
    span.FromMicroseconds(microseconds)
    return span
