"""Protobuf events to facts, and windows to protobuf events."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1 import quality_pb2
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.types.v1 import feedback_pb2, finish_reason_pb2, sketch_pb2, verdict_pb2
from sluice.types.v1.personal_data_pb2 import KindCount
from sluice_kit.events import UndecodableEvent
from sluice_kit.streams.times import duration_microseconds, event_time, timestamp_microseconds

from sluice_quality.domain.facts import Completion, Fact, Feedback, Judgement, Moderation, Outcome, Series
from sluice_quality.domain.partition import Part
from sluice_quality.domain.sketch import RELATIVE_ACCURACY, QuantileSketch
from sluice_quality.domain.totals import FeedbackTotals, JudgementTotals, ModerationTotals, RequestTotals
from sluice_quality.domain.window import WindowState

series_of = lru_cache(maxsize=50_000)(Series)
"""Series repeat: making one takes longer than finding it, and the same object is found sooner in every dictionary."""
LOWEST_SCORE, HIGHEST_SCORE = 1_000, 5_000
"""Of a judgement, in thousandths."""
LARGEST_TOKEN_COUNT = 10**9
"""The cost service's bound: no request has more, and sums of more would outgrow 64 bits."""

# Why a check was not made that the policy asks for. Every verdict also lists what its policy leaves out (`not_in_policy`).
_UNMADE = frozenset({"detector_error", "detector_unavailable", "deadline", "fail_open"})
OUTCOMES = {
    RequestOutcome.REQUEST_OUTCOME_COMPLETED: Outcome.SUCCEEDED,
    RequestOutcome.REQUEST_OUTCOME_BLOCKED_INPUT: Outcome.BLOCKED_INPUT,
    RequestOutcome.REQUEST_OUTCOME_BLOCKED_OUTPUT: Outcome.BLOCKED_OUTPUT,
    RequestOutcome.REQUEST_OUTCOME_CANCELLED: Outcome.CANCELLED,
    RequestOutcome.REQUEST_OUTCOME_INVALID: Outcome.REJECTED,
    RequestOutcome.REQUEST_OUTCOME_SHED: Outcome.REJECTED,
}
TRUNCATED = {finish_reason_pb2.FINISH_REASON_LENGTH, finish_reason_pb2.FINISH_REASON_BUDGET}
_THUMBS = {feedback_pb2.THUMB_UP: 1, feedback_pb2.THUMB_DOWN: -1}
_COMPARISONS = {
    feedback_pb2.PREFERENCE_THIS: "won",
    feedback_pb2.PREFERENCE_OTHER: "lost",
    feedback_pb2.PREFERENCE_TIE: "tied",
}
_REQUEST_SKETCHES = {
    "latency": "latency_microseconds",
    "time_to_first_token": "time_to_first_token_microseconds",
    "tokens_per_kilosecond": "tokens_per_kilosecond",
    "answer_characters": "answer_characters",
    "repetition_permille": "repetition_permille",
}


def fact_of(message: Message, *, offset: int, record_time: int) -> Fact | None:
    """The fact in an event; None for synthetic requests and for events that quality does not count.

    record_time is the Kafka record's timestamp in microseconds. Raises UndecodableEvent for times and token counts that
    cannot be.
    """
    if message.metadata.synthetic:  # type: ignore[attr-defined]
        return None
    at = event_time(message.metadata, record_time)  # type: ignore[attr-defined]
    if isinstance(message, RequestCompleted):
        return _completion(message, offset, at)
    if isinstance(message, FeedbackReceived):
        return _feedback(message, offset, at)
    if isinstance(message, quality_pb2.AnswerJudged):
        return _judgement(message, offset, at)
    if isinstance(message, ContentModerated) and not message.shadow:
        return _moderation(message, offset, at)
    return None


def _completion(event: RequestCompleted, offset: int, at: int) -> Completion:
    metadata, usage = event.metadata, event.usage
    return Completion(
        offset,
        at,
        metadata.request_id,
        series_of(
            metadata.tenant_id,
            metadata.project_id,
            event.model,
            event.route,
            event.prompt_version,
            event.experiment_arm,
        ),
        OUTCOMES.get(event.outcome, Outcome.FAILED),
        duration_microseconds(event.latency) if event.HasField("latency") else None,
        duration_microseconds(event.time_to_first_token) if event.HasField("time_to_first_token") else None,
        duration_microseconds(event.generation_time) if event.HasField("generation_time") else None,
        _tokens(usage.uncached_input_tokens + usage.cached_input_tokens + usage.cache_write_tokens),
        _tokens(usage.output_tokens + usage.reasoning_tokens),
        event.output_characters,
        _replacements(event.redacted_input) + _replacements(event.redacted_output),
        event.streamed,
        event.finish_reason in TRUNCATED,
        event.refusal if event.HasField("refusal") else None,
        event.empty_answer if event.HasField("empty_answer") else None,
        event.language_mismatch if event.HasField("language_mismatch") else None,
        event.repetition_permille if event.HasField("repetition_permille") else None,
        event.context_sentences,
        min(event.grounded_sentences, event.context_sentences),
    )


def _tokens(count: int) -> int:
    if count > LARGEST_TOKEN_COUNT:
        raise UndecodableEvent("absurd_usage")
    return count


def _replacements(kinds: Sequence[KindCount]) -> int:
    return sum([kind.count for kind in kinds]) if kinds else 0


def _feedback(event: FeedbackReceived, offset: int, at: int) -> Feedback:
    value = event.WhichOneof("value")
    return Feedback(
        offset=offset,
        at=at,
        event_id=event.metadata.event_id,
        request_id=event.metadata.request_id,
        tenant_id=event.metadata.tenant_id,
        thumb=_THUMBS.get(event.thumb, 0) if value == "thumb" else 0,
        rating=event.rating if value == "rating" else None,
        comment=value == "redacted_comment",
        correction=value == "redacted_correction",
        comparison=_COMPARISONS.get(event.comparison.preference, "") if value == "comparison" else "",
        retracted=event.retracted,
    )


def _moderation(event: ContentModerated, offset: int, at: int) -> Moderation:
    action = event.verdict.action
    return Moderation(
        offset=offset,
        at=at,
        event_id=event.metadata.event_id,
        series=Series(event.metadata.tenant_id, event.metadata.project_id),
        output=event.direction == verdict_pb2.DIRECTION_OUTPUT,
        flagged=action == verdict_pb2.ACTION_FLAG,
        blocked=action in (verdict_pb2.ACTION_BLOCK, verdict_pb2.ACTION_HOLD),
        skipped=action == verdict_pb2.ACTION_SKIPPED or not _UNMADE.isdisjoint(s.reason for s in event.verdict.skipped),
        latency=duration_microseconds(event.latency) if event.HasField("latency") else None,
    )


def _judgement(event: quality_pb2.AnswerJudged, offset: int, judged_at: int) -> Judgement:
    """Raises UndecodableEvent for a score that no grades give."""
    if event.failure:
        score = None
    elif LOWEST_SCORE <= event.score_milli <= HIGHEST_SCORE:
        score = event.score_milli
    else:
        raise UndecodableEvent("bad_score")
    answered_at = timestamp_microseconds(event.answered_at) if event.HasField("answered_at") else judged_at
    return Judgement(
        offset=offset,
        at=max(min(answered_at, judged_at), 0),
        event_id=event.metadata.event_id,
        series=series_of(
            event.series.tenant_id,
            event.series.project_id,
            event.series.model,
            event.series.route,
            event.series.prompt_version,
            event.series.experiment_arm,
        ),
        score_milli=score,
        screened=event.screened,
    )


def measured(part: Part) -> quality_pb2.QualityMeasured:
    """The event that publishes a part; the publisher fills in its metadata."""
    state = part.state
    event = quality_pb2.QualityMeasured()
    event.metadata.tenant_id = state.series.tenant_id
    event.metadata.project_id = state.series.project_id
    for name in ("tenant_id", "project_id", "model", "route", "prompt_version", "experiment_arm"):
        setattr(event.series, name, getattr(state.series, name))
    event.window.start.CopyFrom(_timestamp(state.start))
    event.window.length.CopyFrom(_duration(state.length))
    event.part.part_key = state.key
    event.part.source_partition = state.partition
    event.part.revision = part.revision
    event.part.closed = part.closed
    event.part.source_offsets.update(state.offsets)
    if part.complete_up_to:
        event.part.complete_up_to.CopyFrom(_timestamp(part.complete_up_to))
    _fill_totals(event, state)
    return event


def _fill_totals(event: quality_pb2.QualityMeasured, state: WindowState) -> None:
    if state.requests.requests:
        _fill(event.requests, state.requests, _REQUEST_SKETCHES)
    if state.feedback.received:
        _fill(event.feedback, state.feedback, {})
    if state.moderation.inputs or state.moderation.outputs:
        _fill(event.moderation, state.moderation, {"latency": "latency_microseconds"})
    if state.judgements.judged or state.judgements.unusable:
        _fill(event.judgements, state.judgements, {})


def _fill(
    target: Message,
    totals: RequestTotals | FeedbackTotals | ModerationTotals | JudgementTotals,
    sketches: dict[str, str],
) -> None:
    for name in totals.__dataclass_fields__:
        value = getattr(totals, name)
        if isinstance(value, QuantileSketch):
            if value.count:
                getattr(target, sketches[name]).CopyFrom(_sketch(value))
        elif value:
            setattr(target, name, value)


def _sketch(sketch: QuantileSketch) -> sketch_pb2.QuantileSketch:
    indexes = sorted(sketch.buckets)
    return sketch_pb2.QuantileSketch(
        relative_accuracy=RELATIVE_ACCURACY,
        zero_count=sketch.zero_count,
        bucket_indexes=indexes,
        bucket_counts=[sketch.buckets[index] for index in indexes],
        sum=sketch.sum,
        minimum=sketch.minimum,
        maximum=sketch.maximum,
    )


def _timestamp(microseconds: int) -> Timestamp:
    moment = Timestamp()
    moment.FromMicroseconds(microseconds)
    return moment


def _duration(microseconds: int) -> Duration:
    span = Duration()
    span.FromMicroseconds(microseconds)
    return span
