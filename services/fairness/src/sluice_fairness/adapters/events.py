"""Protobuf events to facts."""

from __future__ import annotations

from google.protobuf.message import Message
from sluice.events.v1.fairness_pb2 import FairnessCounted, FairnessGroupCounts
from sluice.events.v1.feedback_pb2 import ReviewResolved
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.types.v1 import verdict_pb2
from sluice_kit.events import UndecodableEvent
from sluice_kit.streams.times import duration_microseconds, event_time, timestamp_microseconds

from sluice_fairness.domain.board import Tally
from sluice_fairness.domain.counts import GroupCounts
from sluice_fairness.domain.facts import SCORE_SCALE, Completion, Decision, Review, Series, StoryFact

_ANSWERED = {RequestOutcome.REQUEST_OUTCOME_COMPLETED, RequestOutcome.REQUEST_OUTCOME_BLOCKED_OUTPUT}
_BLOCKED = {verdict_pb2.ACTION_BLOCK, verdict_pb2.ACTION_HOLD}
_OVERTURNED = {"overturned": True, "upheld": False}
MOST_COHORTS = 16
"""A producer that sends more of one request is broken: each is a group in every window."""
COUNTS = tuple(GroupCounts.__dataclass_fields__)


def fact_of(message: Message, *, owner: int, record_time: int) -> StoryFact | Tally | None:
    """The fact in an event; None for synthetic requests, shadow verdicts and reviews that came to no judgement.

    owner is the partition the event came in; record_time the Kafka record's timestamp in microseconds. Raises UndecodableEvent
    for times and scores that cannot be.
    """
    if isinstance(message, FairnessCounted):
        return _tally(message, owner)
    if message.metadata.synthetic:  # type: ignore[attr-defined]
        return None
    at = event_time(message.metadata, record_time)  # type: ignore[attr-defined]
    if isinstance(message, RequestCompleted):
        return _completion(message, at)
    if isinstance(message, ContentModerated) and not message.shadow:
        return _decision(message, at)
    if isinstance(message, ReviewResolved) and message.outcome in _OVERTURNED:
        return _review(message, at)
    return None


def _completion(event: RequestCompleted, at: int) -> Completion:
    return Completion(
        at=at,
        request_id=event.metadata.request_id,
        tenant_id=event.metadata.tenant_id,
        model=event.model,
        input_decision_id=event.decision_ids[0] if event.decision_ids else "",
        answered=event.outcome in _ANSWERED,
        answer_characters=event.output_characters,
        refusal=event.refusal if event.HasField("refusal") else None,
        cohorts=_cohorts(event),
    )


def _cohorts(event: RequestCompleted) -> tuple[tuple[str, str], ...]:
    found = {each.attribute: each.value for each in event.cohorts}
    if any(not name or not value or "/" in name for name, value in found.items()) or len(found) > MOST_COHORTS:
        raise UndecodableEvent("invalid_cohort")
    return tuple(sorted(found.items()))


def _decision(event: ContentModerated, at: int) -> Decision:
    verdict = event.verdict
    return Decision(
        at=at,
        request_id=event.metadata.request_id,
        decision_id=verdict.decision_id or event.metadata.event_id,
        tenant_id=event.metadata.tenant_id,
        project_id=event.metadata.project_id,
        policy=f"{verdict.policy_id}@{verdict.policy_version}" if verdict.policy_id else "",
        output=event.direction == verdict_pb2.DIRECTION_OUTPUT,
        groups=tuple(sorted(set(event.identity_groups))),
        blocked=verdict.action in _BLOCKED,
        flagged=verdict.action == verdict_pb2.ACTION_FLAG,
        skipped=verdict.action == verdict_pb2.ACTION_SKIPPED,
        score=_score(max((each.score for each in verdict.scores), default=0.0)),
    )


def _score(value: float) -> int:
    scaled = value * SCORE_SCALE
    if not -0.5 <= scaled <= 2 * SCORE_SCALE:  # 0 to 1, but for rounding; "not a number" is neither
        raise UndecodableEvent("invalid_score")
    return round(scaled)


def _review(event: ReviewResolved, at: int) -> Review:
    return Review(
        at=at,
        request_id=event.metadata.request_id,
        review_id=event.review_id,
        decision_id=event.decision_id,
        tenant_id=event.metadata.tenant_id,
        overturned=_OVERTURNED[event.outcome],
    )


def _tally(event: FairnessCounted, owner: int) -> Tally:
    series = event.series
    return Tally(
        series=Series(series.tenant_id, series.project_id, series.model, event.policy),
        start=timestamp_microseconds(event.window.start),
        length=duration_microseconds(event.window.length),
        source=event.part.source_partition,
        revision=event.part.revision,
        closed=event.part.closed,
        owner=owner,
        part_key=event.part.part_key,
        groups={f"{each.attribute}/{each.group}": _counts(each) for each in event.groups},
    )


def _counts(event: FairnessGroupCounts) -> GroupCounts:
    return GroupCounts(**{name: getattr(event, name) for name in COUNTS})
