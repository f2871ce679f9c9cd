"""Recall by name origin, from the self-test probes, in the form of fairness' measurements."""

from __future__ import annotations

from sluice.events.v1.fairness_pb2 import (
    FAIRNESS_VERDICT_COMPARABLE,
    FAIRNESS_VERDICT_DISPARATE,
    FAIRNESS_VERDICT_INSUFFICIENT,
    FairnessMeasured,
)
from sluice.events.v1.probe_pb2 import ProbeMeasured

from sluice_insight.domain.name_origins import FALSE_ALARM_RATE, Difference, NameOrigins, OriginRecall, compared

METRIC, ATTRIBUTE = "pii_recall_by_name_origin", "name_origin"
LONG_MINUTES, SHORT_MINUTES = 60, 1


def take(origins: NameOrigins, event: ProbeMeasured) -> None:
    """Adds a round's seeded names. To be called once for each event."""
    counts: dict[str, tuple[int, int]] = {}
    for each in event.detections:
        if each.name_origin:  # once for each redaction policy
            found, sought = counts.get(each.name_origin, (0, 0))
            counts[each.name_origin] = (found + int(each.found), sought + int(each.sought))
    if counts:
        origins.add(event.window.start.ToMicroseconds(), counts)


def measurements(origins: NameOrigins, *, long_windows: bool) -> list[FairnessMeasured]:
    """The hour, or the minute, up to the newest round; computed when it is asked for, and published by nobody."""
    minutes = LONG_MINUTES if long_windows else SHORT_MINUTES
    start, counts = origins.window(minutes)
    return [_measured(each, start, minutes, origins.rounds) for each in compared(counts)]


def _measured(each: OriginRecall, start: int, minutes: int, revision: int) -> FairnessMeasured:
    event = FairnessMeasured(metric=METRIC, attribute=ATTRIBUTE, group=each.origin, sample_count=each.sought)
    event.window.start.FromMicroseconds(start)
    event.window.length.FromSeconds(60 * minutes)
    event.revision = revision
    if not each.is_enough:
        event.verdict = FAIRNESS_VERDICT_INSUFFICIENT
        return event
    event.value = each.value
    event.lower, event.upper = each.interval
    if each.difference is not None:
        _compare(event, each.difference)
    return event


def _compare(event: FairnessMeasured, difference: Difference) -> None:
    event.verdict = FAIRNESS_VERDICT_DISPARATE if difference.is_disparate else FAIRNESS_VERDICT_COMPARABLE
    event.reference_group, event.difference = difference.reference, difference.value
    event.difference_lower, event.difference_upper = difference.interval
    if difference.ratio is not None:
        event.ratio = difference.ratio
    event.p_value, event.adjusted_p_value = difference.p_value, difference.adjusted_p_value
    event.false_alarm_rate = FALSE_ALARM_RATE
