"""Domain values as the messages of the contract."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1 import moderation_pb2 as events
from sluice.moderation.v1 import moderation_service_pb2 as pb
from sluice.types.v1 import verdict_pb2

from sluice_moderation.domain.policy import Action, Direction, Policy
from sluice_moderation.domain.verdict import Evidence, Offence

DIRECTIONS = {verdict_pb2.DIRECTION_INPUT: Direction.INPUT, verdict_pb2.DIRECTION_OUTPUT: Direction.OUTPUT}
_WIRE_DIRECTIONS = {domain: wire for wire, domain in DIRECTIONS.items()}
_ACTIONS = {
    Action.ALLOW: verdict_pb2.ACTION_ALLOW,
    Action.FLAG: verdict_pb2.ACTION_FLAG,
    Action.REDACT: verdict_pb2.ACTION_REDACT,
    Action.HOLD: verdict_pb2.ACTION_HOLD,
    Action.BLOCK: verdict_pb2.ACTION_BLOCK,
    Action.SKIPPED: verdict_pb2.ACTION_SKIPPED,
}


def verdict_of(evidence: Evidence) -> verdict_pb2.Verdict:
    """The verdict as every answer and event carries it."""
    verdict = evidence.verdict
    return verdict_pb2.Verdict(
        decision_id=verdict.decision_id,
        action=_ACTIONS[verdict.action],
        policy_id=verdict.policy_id,
        policy_version=verdict.policy_version,
        scores=[
            verdict_pb2.CategoryScore(
                category=s.category,
                score=s.score,
                threshold=s.threshold,
                action=_ACTIONS[s.action],
                detector=verdict.detectors.get(s.category, ""),
            )
            for s in verdict.scores
        ],
        skipped=[verdict_pb2.SkippedCheck(check=s.check, reason=s.reason) for s in verdict.skipped],
        model_digests=dict(verdict.model_digests),
    )


def event_of(evidence: Evidence, *, identity_groups: tuple[str, ...]) -> events.ContentModerated:
    """The event of a decision; the publisher fills in its metadata."""
    return events.ContentModerated(
        direction=_WIRE_DIRECTIONS[evidence.direction],
        verdict=verdict_of(evidence),
        offending_segment_ids=evidence.offending_segment_ids,
        segment_count=evidence.segment_count,
        characters=evidence.characters,
        latency=_duration(evidence.latency_us),
        identity_groups=identity_groups,
        language=evidence.language,
        streamed=evidence.streamed,
        shadow=evidence.is_shadow,
        policy_digest=evidence.verdict.policy_digest,
        enforced_decision_id=evidence.enforced_decision_id,
        redacted_sentences=evidence.redacted_sentences,
        awaits_review=evidence.verdict.action is Action.HOLD and not evidence.is_shadow,
    )


def explanation_of(evidence: Evidence) -> pb.ExplainResponse:
    """Everything that is kept of a decision."""
    decided_at = Timestamp()
    decided_at.FromMilliseconds(evidence.decided_at_ms)
    return pb.ExplainResponse(
        verdict=verdict_of(evidence),
        request_id=evidence.request_id,
        direction=_WIRE_DIRECTIONS[evidence.direction],
        decided_at=decided_at,
        latency=_duration(evidence.latency_us),
        offending_segment_ids=evidence.offending_segment_ids,
        contributions=[
            pb.Contribution(category=c.category, feature=c.feature, weight=c.weight) for c in evidence.contributions
        ],
        method=evidence.method,
        summary=evidence.summary,
        policy_digest=evidence.verdict.policy_digest,
        language=evidence.language,
        offending_sentences=[_sentence_of(offence) for offence in evidence.offences],
        shadows=[
            pb.ShadowVerdict(
                decision_id=s.decision_id,
                policy_id=s.policy_id,
                policy_version=s.policy_version,
                action=_ACTIONS[s.action],
            )
            for s in evidence.shadows
        ],
        shadow=evidence.is_shadow,
        enforced_decision_id=evidence.enforced_decision_id,
        streamed=evidence.streamed,
        characters=evidence.characters,
    )


def policy_of(policy: Policy) -> pb.Policy:
    """A policy with all its rules; of its terms only how many there are."""
    return pb.Policy(
        policy_id=policy.policy_id,
        version=policy.version,
        description=policy.description,
        fail_open=not policy.fail_closed,
        rules=[
            pb.PolicyRule(
                category=rule.category,
                direction=_WIRE_DIRECTIONS[rule.direction],
                threshold=rule.threshold,
                action=_ACTIONS[rule.action],
                language=rule.language,
            )
            for rule in policy.rules
        ],
        digest=policy.digest,
        shadow_of=policy.shadow_of,
        sample_share=policy.sample,
        tenant_only=bool(policy.tenants),
        term_count=len(policy.terms.denied) + len(policy.terms.allowed),
    )


def _sentence_of(offence: Offence) -> pb.OffendingSentence:
    return pb.OffendingSentence(
        segment_id=offence.segment_id,
        sentence=offence.sentence,
        start=offence.start,
        end=offence.end,
        category=offence.category,
        score=offence.score,
        action=_ACTIONS[offence.action],
        view=offence.view,
        joined=offence.joined,
    )


def _duration(microseconds: int) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(microseconds)
    return duration
