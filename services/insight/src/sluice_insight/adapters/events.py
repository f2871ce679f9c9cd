"""Measured events to parts."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.drift_pb2 import (
    DRIFT_VERDICT_DRIFTED,
    DRIFT_VERDICT_INSUFFICIENT,
    DRIFT_VERDICT_STABLE,
    DriftMeasured,
    FeatureDrift,
)
from sluice.events.v1.fairness_pb2 import FairnessCounted
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.types.v1 import metric_pb2, sketch_pb2

from sluice_insight.domain.costs import Charge
from sluice_insight.domain.part import DIMENSIONS, Part, Reading, Series, Totals
from sluice_insight.domain.sketch import Sketch

MOST_CAUSES = 10
_VERDICTS = {
    DRIFT_VERDICT_INSUFFICIENT: "insufficient",
    DRIFT_VERDICT_STABLE: "stable",
    DRIFT_VERDICT_DRIFTED: "drifted",
}


def quality_part(event: QualityMeasured) -> Part:
    """The part that a quality event publishes."""
    totals = Totals()
    for name in ("requests", "feedback", "moderation", "judgements"):
        if event.HasField(name):  # type: ignore[arg-type]
            _collect(totals, name, getattr(event, name))
    return _part("quality", event, totals=totals, readings={})


def _collect(totals: Totals, prefix: str, message: Message) -> None:
    for field, value in message.ListFields():
        if isinstance(value, sketch_pb2.QuantileSketch):
            totals.sketches[f"{prefix}.{field.name}"] = Sketch(
                relative_accuracy=value.relative_accuracy,
                zero_count=value.zero_count,
                buckets=dict(zip(value.bucket_indexes, value.bucket_counts, strict=True)),
                sum=value.sum,
            )
        else:
            totals.counts[f"{prefix}.{field.name}"] = value


def drift_part(event: DriftMeasured) -> Part:
    """The part that a drift event publishes."""
    verdict = _VERDICTS.get(event.verdict, "")
    drifted = {"drifted": 1.0, "stable": 0.0}.get(verdict)
    readings = {
        "drift.observations": Reading(float(event.observations), event.observations, verdict),
        "drift.reference_observations": Reading(
            float(event.reference.observations), event.reference.observations, verdict
        ),
        "drift.drifted": Reading(drifted, event.observations, verdict),
    }
    for feature in event.features:
        readings |= _feature(feature)
    return _part("drift", event, totals=Totals(), readings=readings, causes=_causes(event))


def _causes(event: DriftMeasured) -> dict[str, float]:
    """Of the feature that moved most, the dimension that explains it best: other dimensions tell the same change in other words."""
    if not event.causes:
        return {}
    first = event.causes[0]
    found = [one for one in event.causes if (one.feature, one.dimension) == (first.feature, first.dimension)]
    found.sort(key=lambda one: -abs(one.share))
    return {f"{one.dimension}={one.slice}": one.share for one in found[:MOST_CAUSES]}


def _feature(feature: FeatureDrift) -> dict[str, Reading]:
    verdict = _VERDICTS.get(feature.verdict, "")
    measured = feature.HasField("p_value")
    values = {
        "p_value": feature.p_value if measured else None,
        "statistic": feature.value if measured else None,
        "psi": feature.population_stability_index if feature.HasField("population_stability_index") else None,
        "js": feature.jensen_shannon_divergence if feature.HasField("jensen_shannon_divergence") else None,
    }
    if feature.statistic == "mean_shift":
        values = {name: values[name] for name in ("p_value", "statistic")}
    return {
        f"drift.{feature.feature}.{name}": Reading(value, feature.observations, verdict)
        for name, value in values.items()
    }


def fairness_part(event: FairnessCounted) -> Part:
    """The part that a fairness event publishes: counts by `fairness.<attribute>.<group>.<count>`."""
    totals = Totals()
    for group in event.groups:
        for field, value in group.ListFields():
            if not isinstance(value, str):
                totals.counts[f"fairness.{group.attribute}.{group.group}.{field.name}"] = value
    return _part("fairness", event, totals=totals, readings={})


def _part(
    family: str,
    event: QualityMeasured | DriftMeasured | FairnessCounted,
    *,
    totals: Totals,
    readings: Mapping[str, Reading],
    causes: Mapping[str, float] | None = None,
) -> Part:
    part = event.part
    return Part(
        key=part.part_key,
        family=family,
        series=series_of(event.series),
        start=event.window.start.ToMicroseconds(),
        length=event.window.length.ToMicroseconds(),
        partition=part.source_partition,
        revision=part.revision,
        closed=part.closed,
        complete_up_to=part.complete_up_to.ToMicroseconds() if part.HasField("complete_up_to") else 0,
        totals=totals,
        readings=readings,
        causes=causes or {},
    )


def series_of(series: metric_pb2.MetricSeries) -> Series:
    """Whose numbers an event's are."""
    return Series(**{name: getattr(series, name) for name in DIMENSIONS})


def charge_of(event: CostRecorded, *, partition: int) -> Charge:
    """The ledger row that an event tells of."""
    return Charge(
        partition=partition,
        at=event.metadata.occurred_at.ToMicroseconds(),
        series=Series(event.metadata.tenant_id, event.metadata.project_id, event.model, event.route),
        currency=event.amount.currency_code,
        nano_units=event.amount.nano_units,
        unpriced=event.unpriced,
    )
