"""What fairness found unequal, for alerts."""

from __future__ import annotations

from sluice.events.v1.fairness_pb2 import FAIRNESS_VERDICT_DISPARATE, FairnessMeasured

from sluice_insight.adapters.comparisons import Comparisons, FairnessMeasurement
from sluice_insight.adapters.events import series_of
from sluice_insight.domain.alerting.disparities import Measured


def disparate(comparisons: Comparisons) -> list[Measured]:
    """The newest long window of every group, where it says that there is a difference. Minutes are too small to alarm by."""
    return [_measured(one.event) for one in comparisons.fairness.find(_says_so)]


def _says_so(one: FairnessMeasurement) -> bool:
    event = one.event
    return one.is_long and event.verdict == FAIRNESS_VERDICT_DISPARATE and event.HasField("ratio")


def _measured(event: FairnessMeasured) -> Measured:
    return Measured(
        series=series_of(event.series), rate=event.metric, attribute=event.attribute, group=event.group,
        policy=event.policy, reference=event.reference_group, ratio=event.ratio, value=event.value, lower=event.lower,
        upper=event.upper, samples=event.sample_count, start=event.window.start.ToMicroseconds(),
        length=event.window.length.ToMicroseconds(), revision=event.revision,
    )  # fmt: skip
