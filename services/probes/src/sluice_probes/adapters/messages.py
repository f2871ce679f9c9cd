"""Rounds as messages: the event and the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sluice.events.v1.probe_pb2 import ProbeMeasured
from sluice.probe.v1 import probe_service_pb2 as pb
from sluice.types.v1 import probe_pb2

from sluice_probes.domain.findings import Detection, Finding, State
from sluice_probes.domain.recall import Recall
from sluice_probes.domain.round import Round
from sluice_probes.domain.standing import Known

WINDOW = timedelta(minutes=1)
_STATES = {
    State.GUARDED: probe_pb2.GUARD_STATE_GUARDED,
    State.UNGUARDED: probe_pb2.GUARD_STATE_UNGUARDED,
    State.UNAVAILABLE: probe_pb2.GUARD_STATE_UNAVAILABLE,
    State.UNTESTED: probe_pb2.GUARD_STATE_UNTESTED,
}


def measured(result: Round, *, ended_at: datetime, round_id: str) -> ProbeMeasured:
    """The event of a round."""
    start = ended_at.astimezone(UTC).replace(second=0, microsecond=0)
    event = ProbeMeasured(
        key_id=result.key_id,
        moderation_policy=result.policy,
        guards=[guard_check(finding) for finding in result.findings],
        detections=_counts(result.detections),
    )
    event.metadata.occurred_at.FromDatetime(ended_at)
    event.window.start.FromDatetime(start)
    event.window.length.FromTimedelta(WINDOW)
    event.part.part_key = f"probe|{round_id}"
    event.part.revision, event.part.closed = 1, True
    event.part.complete_up_to.FromDatetime(ended_at)
    return event


def guard_check(finding: Finding, key_id: str = "") -> probe_pb2.GuardCheck:
    """One guard of one route, as the tenant of a key has it."""
    return probe_pb2.GuardCheck(
        route=finding.route,
        guard=finding.guard,
        model=finding.model,
        state=_STATES[finding.state],
        reason=finding.reason,
        decision_ids=finding.decision_ids,
        key_id=key_id,
    )


def _counts(detections: Iterable[Detection]) -> list[probe_pb2.DetectionCount]:
    sought: Counter[tuple[str, str, str]] = Counter()
    found: Counter[tuple[str, str, str]] = Counter()
    for each in detections:
        of = (each.kind, each.origin, each.redaction_policy)
        sought[of] += 1
        found[of] += each.is_found
    return [
        probe_pb2.DetectionCount(
            kind=kind, name_origin=origin, redaction_policy=policy, sought=count, found=found[kind, origin, policy]
        )
        for (kind, origin, policy), count in sorted(sought.items())
    ]


def report(
    result: Round, known: Iterable[Known], recalls: Iterable[Recall], *, started_at: datetime, ended_at: datetime
) -> pb.ProbeReport:
    """The report of a round, with what stands of other keys and the recall of the last hour."""
    told = pb.ProbeReport(
        key_id=result.key_id,
        guards=[guard_check(each.finding, each.key_id) for each in known],
        recalls=[_recall(each) for each in recalls],
        moderation_policy=result.policy,
    )
    told.started_at.FromDatetime(started_at)
    told.ended_at.FromDatetime(ended_at)
    return told


def _recall(each: Recall) -> pb.Recall:
    lower, upper = each.interval
    return pb.Recall(
        kind=each.kind,
        name_origin=each.origin,
        sought=each.sought,
        found=each.found,
        recall=each.value,
        lower=lower,
        upper=upper,
        redaction_policy=each.policy,
    )
