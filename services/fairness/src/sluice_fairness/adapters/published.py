"""Windows and measurements to protobuf events; the publisher fills in the rest of their metadata."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1 import fairness_pb2
from sluice.types.v1 import metric_pb2

from sluice_fairness.adapters.events import COUNTS
from sluice_fairness.domain.board import Frame
from sluice_fairness.domain.facts import Series
from sluice_fairness.domain.measuring import Judging, Measurement, Verdict
from sluice_fairness.domain.partition import Part

_VERDICTS = {
    Verdict.NONE: fairness_pb2.FAIRNESS_VERDICT_UNSPECIFIED,
    Verdict.INSUFFICIENT: fairness_pb2.FAIRNESS_VERDICT_INSUFFICIENT,
    Verdict.COMPARABLE: fairness_pb2.FAIRNESS_VERDICT_COMPARABLE,
    Verdict.DISPARATE: fairness_pb2.FAIRNESS_VERDICT_DISPARATE,
}


def counted(part: Part) -> fairness_pb2.FairnessCounted:
    """The event that publishes a part."""
    state = part.state
    event = fairness_pb2.FairnessCounted(policy=state.series.policy)
    _name(event, state.series, state.start, state.length)
    event.part.part_key = state.key
    event.part.source_partition = state.partition
    event.part.revision = part.revision
    event.part.closed = part.closed
    if part.complete_up_to:
        event.part.complete_up_to.CopyFrom(_timestamp(part.complete_up_to))
    for key, counts in sorted(state.groups.items()):
        attribute, group = key.split("/", 1)
        event.groups.add(attribute=attribute, group=group, **{name: getattr(counts, name) for name in COUNTS})
    return event


def measured(measurement: Measurement, frame: Frame, judging: Judging) -> fairness_pb2.FairnessMeasured:
    """The event that tells one metric of one group."""
    event = fairness_pb2.FairnessMeasured(
        policy=frame.series.policy,
        metric=measurement.metric,
        attribute=measurement.attribute,
        group=measurement.group,
        value=measurement.value,
        lower=measurement.interval[0],
        upper=measurement.interval[1],
        sample_count=measurement.sample_count,
        revision=frame.revision,
        verdict=_VERDICTS[measurement.verdict],
        below_four_fifths=measurement.is_below_four_fifths,
    )
    _name(event, frame.series, frame.start, frame.length)
    if measurement.compared is not None:
        _compare(event, measurement, judging)
    if measurement.trend is not None:
        event.trend_per_hour, event.trend_lower, event.trend_upper = measurement.trend
    return event


def _compare(event: fairness_pb2.FairnessMeasured, measurement: Measurement, judging: Judging) -> None:
    compared = measurement.compared
    assert compared is not None
    event.reference_group = measurement.reference
    event.difference = compared.difference
    event.difference_lower, event.difference_upper = compared.interval
    if compared.ratio is not None:
        event.ratio = compared.ratio
    event.p_value = compared.p_value
    if measurement.adjusted_p_value is not None:
        event.adjusted_p_value = measurement.adjusted_p_value
    event.false_alarm_rate = judging.false_alarm_rate


def _name(
    event: fairness_pb2.FairnessCounted | fairness_pb2.FairnessMeasured, series: Series, start: int, length: int
) -> None:
    event.metadata.tenant_id = series.tenant_id
    event.metadata.project_id = series.project_id
    named = metric_pb2.MetricSeries(tenant_id=series.tenant_id, project_id=series.project_id, model=series.model)
    event.series.CopyFrom(named)
    span = Duration()
    span.FromMicroseconds(length)
    event.window.start.CopyFrom(_timestamp(start))
    event.window.length.CopyFrom(span)


def _timestamp(microseconds: int) -> Timestamp:
    moment = Timestamp()
    moment.FromMicroseconds(microseconds)
    return moment
