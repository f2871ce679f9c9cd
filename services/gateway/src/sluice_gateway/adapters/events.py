"""Tells the mesh, and Prometheus, how each request ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from prometheus_client import Counter, Histogram
from sluice.events.v1 import gateway_pb2, metadata_pb2
from sluice.types.v1 import finish_reason_pb2, personal_data_pb2, usage_pb2, verdict_pb2
from sluice_kit.errors import SluiceError
from sluice_kit.sealing.text import TextSealer

from sluice_gateway.adapters.captured_texts import CapturedTexts
from sluice_gateway.domain.chat import Usage
from sluice_gateway.domain.completion import Completion, KindCount, Operation, Outcome
from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.configuration import ContentCapture
from sluice_gateway.domain.rejection import Kind, Rejection
from sluice_gateway.domain.verdict import Decision

REQUESTS = Counter("sluice_gateway_requests_total", "Requests that ended.", ["operation", "protocol", "outcome"])
LATENCY = Histogram(
    "sluice_gateway_request_seconds",
    "From arrival to the last byte.",
    ["operation", "protocol"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
FIRST_TEXT = Histogram(
    "sluice_gateway_time_to_first_token_seconds",
    "From arrival to the first text given to the caller.",
    ["protocol"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
FILTERS = Histogram(
    "sluice_gateway_input_filter_seconds",
    "Time the input filters took.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
UNPUBLISHED = Counter("sluice_gateway_unpublished_completions_total", "Completions that could not be made durable.")

_OUTCOMES: Mapping[Outcome, gateway_pb2.RequestOutcome.ValueType] = {
    Outcome.COMPLETED: gateway_pb2.REQUEST_OUTCOME_COMPLETED,
    Outcome.BLOCKED_INPUT: gateway_pb2.REQUEST_OUTCOME_BLOCKED_INPUT,
    Outcome.BLOCKED_OUTPUT: gateway_pb2.REQUEST_OUTCOME_BLOCKED_OUTPUT,
    Outcome.FAILED: gateway_pb2.REQUEST_OUTCOME_FAILED,
    Outcome.CANCELLED: gateway_pb2.REQUEST_OUTCOME_CANCELLED,
    Outcome.DEADLINE: gateway_pb2.REQUEST_OUTCOME_DEADLINE_EXCEEDED,
    Outcome.INVALID: gateway_pb2.REQUEST_OUTCOME_INVALID,
    Outcome.SHED: gateway_pb2.REQUEST_OUTCOME_SHED,
}
_DOORS: Mapping[Door, gateway_pb2.RequestProtocol.ValueType] = {
    Door.GRPC: gateway_pb2.REQUEST_PROTOCOL_GRPC,
    Door.HTTP: gateway_pb2.REQUEST_PROTOCOL_HTTP,
}
_OPERATIONS: Mapping[Operation, gateway_pb2.RequestOperation.ValueType] = {
    Operation.CHAT: gateway_pb2.REQUEST_OPERATION_CHAT,
    Operation.EMBED: gateway_pb2.REQUEST_OPERATION_EMBED,
}
_ACTIONS: Mapping[Decision | None, verdict_pb2.Action.ValueType] = {
    Decision.ALLOW: verdict_pb2.ACTION_ALLOW,
    Decision.FLAG: verdict_pb2.ACTION_FLAG,
    Decision.REDACT: verdict_pb2.ACTION_REDACT,
    Decision.HOLD: verdict_pb2.ACTION_HOLD,
    Decision.BLOCK: verdict_pb2.ACTION_BLOCK,
    Decision.SKIPPED: verdict_pb2.ACTION_SKIPPED,
}
_CAPTURES: Mapping[ContentCapture, gateway_pb2.ContentCapture.ValueType] = {
    ContentCapture.NONE: gateway_pb2.CONTENT_CAPTURE_NONE,
    ContentCapture.REDACTED: gateway_pb2.CONTENT_CAPTURE_REDACTED,
}
# google.rpc.Code numbers, as in the README's table.
_STATUS: Mapping[Kind | None, int] = {
    None: 0,
    Kind.CANCELLED: 1,
    Kind.INVALID: 3,
    Kind.TOO_LARGE: 3,
    Kind.DEADLINE: 4,
    Kind.NOT_FOUND: 5,
    Kind.EXHAUSTED: 8,
    Kind.BLOCKED: 9,
    Kind.UNSUPPORTED: 3,
    Kind.INTERNAL: 13,
    Kind.UNAVAILABLE: 14,
    Kind.UNAUTHENTICATED: 16,
}


class Publisher(Protocol):
    """The part of the kit's EventPublisher that is used here."""

    @property
    def has_room(self) -> bool:
        """Whether the outbox is well below its limit."""

    async def publish(self, *events: Message) -> None:
        """Append to the durable outbox."""


class PublishedCompletions:
    """Fits `EventSink`: counts, then appends to the outbox. Request id and trace come from the request's context."""

    def __init__(self, publisher: Publisher, sealer: TextSealer | None = None) -> None:
        """Without a sealer texts are published in clear."""
        self._publisher = publisher
        self._texts = CapturedTexts(sealer)

    def check_room(self) -> None:
        if not self._publisher.has_room:
            raise _unrecordable("OUTBOX_FULL")

    async def completed(self, completion: Completion) -> None:
        try:
            event = event_of(completion)
            await self._texts.put_into(event, completion)
            await self._publisher.publish(event)
        except SluiceError as error:
            UNPUBLISHED.inc()
            completion.outcome = Outcome.FAILED
            _count(completion)
            raise _unrecordable(error.reason or "OUTBOX_FULL") from None
        _count(completion)


def _unrecordable(reason: str) -> Rejection:
    message = "The gateway cannot record requests now, so it does not answer them; try again later."
    return Rejection(Kind.UNAVAILABLE, message, reason=reason, retry_after_seconds=5)


def _count(completion: Completion) -> None:
    operation, door = completion.operation.value, completion.protocol.value
    REQUESTS.labels(operation, door, completion.outcome.value).inc()
    LATENCY.labels(operation, door).observe(completion.ended_at - completion.arrived_at)
    if completion.first_text_at is not None:
        FIRST_TEXT.labels(door).observe(completion.first_text_at - completion.arrived_at)
    if completion.input_filter_seconds is not None:
        FILTERS.observe(completion.input_filter_seconds)


def event_of(completion: Completion) -> gateway_pb2.RequestCompleted:
    """The event of a completion; the publisher fills in the rest of its metadata."""
    event = gateway_pb2.RequestCompleted(
        metadata=metadata_pb2.EventMetadata(
            tenant_id=completion.tenant_id, project_id=completion.project_id, subject_id=completion.subject_id
        ),
        outcome=_OUTCOMES[completion.outcome],
        reason=completion.reason,
        status_code=_STATUS[completion.rejection],
        protocol=_DOORS[completion.protocol],
        operation=_OPERATIONS[completion.operation],
        streamed=completion.streamed,
        model=completion.model,
        route=completion.route,
        prompt_version=completion.variant.prompt_version,
        experiment_arm=completion.variant.experiment_arm,
        served_model=completion.served_model,
        api_key_id=completion.api_key_id,
        finish_reason=getattr(finish_reason_pb2, f"FINISH_REASON_{completion.finish_reason.name}"),
        usage=_usage(completion.usage),
        latency=_duration(completion.ended_at - completion.arrived_at),
        decision_ids=completion.decision_ids,
        input_action=_ACTIONS.get(completion.input_decision),
        output_action=_ACTIONS.get(completion.output_decision),
        moderation_policies=completion.moderation_policies,
        blocked_categories=completion.blocked_categories,
        redacted_input=_counts(completion.redacted_input),
        redacted_output=_counts(completion.redacted_output),
        skipped_filters=completion.skipped_filters,
        message_count=completion.message_count,
        input_characters=completion.input_characters,
        output_characters=completion.output_characters,
        refusal=completion.refusal,
        empty_answer=completion.empty_answer,
        input_language=completion.input_language,
        output_language=completion.output_language,
        language_mismatch=completion.language_mismatch,
        repetition_permille=completion.repetition_permille,
        context_sentences=completion.context_sentences,
        grounded_sentences=completion.grounded_sentences,
        cost_hold_id=completion.cost_hold_id,
        budget_limited=completion.budget_limited,
        budget_unchecked=completion.budget_unchecked,
        text_left_out=completion.text_left_out,
        content_capture=_CAPTURES[completion.content_capture],
        cohorts=[gateway_pb2.Cohort(attribute=a, value=v) for a, v in sorted(completion.cohorts.items())],
    )
    _add_times(event, completion)
    return event


def _add_times(event: gateway_pb2.RequestCompleted, completion: Completion) -> None:
    if completion.first_text_at is not None:
        event.time_to_first_token.CopyFrom(_duration(completion.first_text_at - completion.arrived_at))
    if completion.input_filter_seconds is not None:
        event.input_filter_time.CopyFrom(_duration(completion.input_filter_seconds))
    if completion.generation_began_at is not None:
        ended_at = completion.generation_ended_at or completion.ended_at
        event.generation_time.CopyFrom(_duration(ended_at - completion.generation_began_at))


def _usage(usage: Usage | None) -> usage_pb2.TokenUsage | None:
    if usage is None:
        return None
    return usage_pb2.TokenUsage(
        uncached_input_tokens=usage.uncached_input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
    )


def _counts(counts: tuple[KindCount, ...]) -> list[personal_data_pb2.KindCount]:
    return [personal_data_pb2.KindCount(kind=found.kind, count=found.count) for found in counts]


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
