"""InferenceMeasured to observations, and compared windows to DriftMeasured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1 import drift_pb2
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice.types.v1.finish_reason_pb2 import FinishReason
from sluice.types.v1.text_profile_pb2 import TextProfile
from sluice_kit.streams.times import event_time

from sluice_drift.domain.causes import Cause
from sluice_drift.domain.comparison import Comparison, Feature, Verdict
from sluice_drift.domain.observation import Observation, Profile, Series, pack_embedding
from sluice_drift.domain.partition import Due
from sluice_drift.domain.reference import Reference

_VERDICTS = {
    Verdict.INSUFFICIENT: drift_pb2.DRIFT_VERDICT_INSUFFICIENT,
    Verdict.STABLE: drift_pb2.DRIFT_VERDICT_STABLE,
    Verdict.DRIFTED: drift_pb2.DRIFT_VERDICT_DRIFTED,
}


NONE = "(none)"
"""The slice of what has no value."""
_LONGEST_SLICE = 200


def observations_of(event: InferenceMeasured, *, partition: int, offset: int, record_time: int) -> list[Observation]:
    """What is observed of a generation: once in its tenant's series, once in that of all tenants; nothing of self-test probes."""
    found = observation_of(event, partition=partition, offset=offset, record_time=record_time)
    if found is None:
        return []
    everybody = Series("", event.model)
    if found.series == everybody:
        return [found]
    tenant = (("tenant", event.metadata.tenant_id),)
    return [found, replace(found, series=everybody, slices=(*tenant, *found.slices))]


def observation_of(event: InferenceMeasured, *, partition: int, offset: int, record_time: int) -> Observation | None:
    """What is observed of a generation; None for self-test probes. record_time in microseconds. Raises UndecodableEvent for a
    time that cannot be."""
    metadata = event.metadata
    if metadata.synthetic:
        return None
    prompt = event.prompt_profile if event.HasField("prompt_profile") else None
    answer = event.answer_profile if event.HasField("answer_profile") else None
    return Observation(
        source_partition=partition,
        offset=offset,
        at=event_time(metadata, record_time),
        series=Series(metadata.tenant_id, event.model),
        prompt=_profile(prompt),
        answer=_profile(answer),
        embedding_model=next((p.embedding_model_digest for p in (prompt, answer) if p is not None), ""),
        mark=_mark(metadata.event_id),
        slices=_slices(event),
    )


def _slices(event: InferenceMeasured) -> tuple[tuple[str, str], ...]:
    finish = FinishReason.Name(event.finish_reason) if event.finish_reason in FinishReason.values() else ""
    values = (
        ("project", event.metadata.project_id),
        ("model_digest", event.model_digest),
        ("prompt_version", event.prompt_version),
        ("route", event.route),
        ("experiment_arm", event.experiment_arm),
        ("finish_reason", finish.removeprefix("FINISH_REASON_").lower()),
    )
    return tuple((name, value[:_LONGEST_SLICE] or NONE) for name, value in values)


def _mark(event_id: str) -> int:
    """63 bits that stand for an event id (MessagePack and the changelog hold them as a number)."""
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "big") >> 1


def _profile(profile: TextProfile | None) -> Profile | None:
    if profile is None:
        return None
    return Profile(profile.language, profile.words, pack_embedding(list(profile.embedding)))


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
