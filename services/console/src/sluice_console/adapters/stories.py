"""Asks insight for requests and their stories."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sluice.events.v1 import gateway_pb2, moderation_pb2
from sluice.insight.v1 import request_service_pb2 as pb
from sluice.insight.v1 import request_service_pb2_grpc as rpc
from sluice.types.v1 import feedback_pb2, verdict_pb2

from sluice_console.adapters.asking import Neighbour
from sluice_console.adapters.messages import amount, moment, timestamp
from sluice_console.domain.stories import (
    CostRow,
    Decision,
    Finding,
    Remark,
    RequestLine,
    RequestPage,
    Score,
    Step,
    Story,
)

OUTCOMES: Mapping[str, int] = {
    name.removeprefix("REQUEST_OUTCOME_").lower().replace("_", " "): number
    for name, number in gateway_pb2.RequestOutcome.items()
    if number
}
VERDICTS: Mapping[str, int] = {
    "allowed": verdict_pb2.ACTION_ALLOW,
    "flagged": verdict_pb2.ACTION_FLAG,
    "redacted": verdict_pb2.ACTION_REDACT,
    "held": verdict_pb2.ACTION_HOLD,
    "blocked": verdict_pb2.ACTION_BLOCK,
    "not checked": verdict_pb2.ACTION_SKIPPED,
}
_DECIDED = {number: word for word, number in VERDICTS.items()}
_PAGE = 50
_NOT_ASKED = "not_in_policy"
_TONES = {"block": "bad", "hold": "bad", "flag": "warn", "redact": "warn", "skipped": "warn"}


class StoryReader:
    """Every method raises Away when insight does not answer in time, or refuses."""

    def __init__(self, channel: Any, *, seconds: float) -> None:
        self._stub = rpc.RequestServiceStub(channel)
        self._insight = Neighbour("insight", "the stories of requests", seconds)

    async def find(self, *, tenant: str, conditions: Mapping[str, Any], token: str) -> RequestPage:
        """One page, newest first. `conditions` are fields of ListRequestsRequest; times are datetimes, durations timedeltas."""
        request = pb.ListRequestsRequest(tenant_id=tenant, page_size=_PAGE, page_token=token)
        for name, value in conditions.items():
            if isinstance(value, datetime):
                getattr(request, name).CopyFrom(timestamp(value))
            elif isinstance(value, timedelta):
                getattr(request, name).FromTimedelta(value)
            elif name == "outcomes":
                request.outcomes.extend(value)
            else:
                setattr(request, name, value)
        answer = await self._insight.ask(self._stub.ListRequests, request, tenant=tenant)
        return RequestPage([_line(one) for one in answer.requests], answer.next_page_token, moment(answer, "newest_at"))

    async def story(self, request_id: str, *, tenant: str) -> Story:
        """One story. Raises NotThere."""
        answer = await self._insight.ask(
            self._stub.GetRequest, pb.GetRequestRequest(request_id=request_id), tenant=tenant
        )
        return _story(request_id, answer)


def _story(request_id: str, answer: pb.GetRequestResponse) -> Story:
    completed = answer.completed if answer.HasField("completed") else None
    return Story(
        id=request_id,
        line=_line(answer.summary) if answer.HasField("summary") else None,
        facts=list(_facts(completed)) if completed else [],
        trace_id=_trace_id(answer),
        steps=list(_steps(answer)),
        first_text_at=_first_text_at(completed) if completed else None,
        decisions=[_decision(one) for one in answer.decisions],
        findings=_findings(completed) if completed else [],
        costs=[_cost(one) for one in answer.costs],
        remarks=sorted(_remarks(answer), key=lambda one: one.at),
        skipped_filters=list(completed.skipped_filters) if completed else [],
    )


def _facts(completed: gateway_pb2.RequestCompleted) -> Iterator[tuple[str, str]]:
    usage = completed.usage
    told = {
        "operation": _word(gateway_pb2.RequestOperation, completed.operation, "REQUEST_OPERATION_"),
        "door": _word(gateway_pb2.RequestProtocol, completed.protocol, "REQUEST_PROTOCOL_")
        + (", streamed" if completed.streamed else ""),
        "model": completed.model + (f" (answered by {completed.served_model})" if completed.served_model else ""),
        "route": completed.route,
        "prompt": completed.prompt_version,
        "experiment": completed.experiment_arm,
        "API key": completed.api_key_id,
        "messages": str(completed.message_count or ""),
        "input tokens": str(usage.uncached_input_tokens + usage.cached_input_tokens + usage.cache_write_tokens or ""),
        "output tokens": str(usage.output_tokens + usage.reasoning_tokens or ""),
        "tokens are": "estimated" if usage.estimated else "",
        "budget": " ".join(
            word for word, holds in (("cut the answer", completed.budget_limited), ("was not checked", completed.budget_unchecked)) if holds
        ),
        "refusal": "yes" if completed.refusal else "",
    }  # fmt: skip
    yield from ((name, value) for name, value in told.items() if value)


def _steps(answer: pb.GetRequestResponse) -> Iterator[Step]:
    if answer.HasField("completed"):
        completed = answer.completed
        outcome = _outcome(completed.outcome)
        tone = "good" if outcome == "completed" else "bad"
        yield Step("the whole request", _at(completed), _span(completed, "latency"), outcome, completed.reason, tone)
    for redaction in answer.redactions:
        note = ", ".join(f"{one.kind} {one.count}" for one in redaction.counts)
        result = (
            "replaced"
            if redaction.counts
            else f"put back {redaction.restored_count}"
            if redaction.restored_count
            else "nothing found"
        )
        name = f"redaction, {_direction(redaction.direction)}"
        yield Step(name, _at(redaction), _span(redaction, "latency"), result, note, "main")
    for decision in answer.decisions:
        action = _action(decision.verdict.action)
        name = f"moderation, {_direction(decision.direction)}" + (" (shadow)" if decision.shadow else "")
        policy = f"{decision.verdict.policy_id}@{decision.verdict.policy_version}"
        yield Step(name, _at(decision), _span(decision, "latency"), action, policy, _TONES.get(action, "main"))
    for generation in answer.generations:
        result = "aborted" if generation.aborted else "generated"
        tokens = generation.usage.output_tokens + generation.usage.reasoning_tokens
        note = f"{generation.model} on {generation.backend}, {tokens} tokens"
        yield Step("inference", _at(generation), _span(generation, "total_time"), result, note, "other")


def _decision(event: moderation_pb2.ContentModerated) -> Decision:
    verdict = event.verdict
    return Decision(
        id=verdict.decision_id,
        direction=_direction(event.direction),
        action=_action(verdict.action),
        policy=f"{verdict.policy_id}@{verdict.policy_version}",
        scores=sorted(
            (
                Score(one.category, one.score, one.threshold, _action(one.action), one.detector)
                for one in verdict.scores
            ),
            key=lambda one: one.threshold - one.score if one.threshold else 2 - one.score,
        ),
        skipped=[f"{one.check} ({one.reason})" for one in verdict.skipped if one.reason != _NOT_ASKED],
        not_asked=[one.check for one in verdict.skipped if one.reason == _NOT_ASKED],
        models=dict(verdict.model_digests),
        groups=list(event.identity_groups),
        language=event.language,
        is_shadow=event.shadow,
        awaits_review=event.awaits_review,
        took=_span(event, "latency"),
    )


def _findings(completed: gateway_pb2.RequestCompleted) -> list[Finding]:
    return [
        Finding(one.kind, direction, one.count)
        for direction, counts in (("input", completed.redacted_input), ("output", completed.redacted_output))
        for one in sorted(counts, key=lambda one: (-one.count, one.kind))
    ]


def _cost(event: Any) -> CostRow:
    lines = [(one.bucket.replace("_", " "), one.quantity, one.unit_price, amount(one.amount)) for one in event.lines]
    price = f"{event.price_book}, version {event.price_version}" if event.price_book else ""
    kind = event.charge_kind.replace("_", " ")
    return CostRow(_at(event), kind, amount(event.amount), event.unpriced, bool(event.corrects_event_id), price, lines)


def _remarks(answer: pb.GetRequestResponse) -> Iterator[Remark]:
    for event in answer.feedback:
        source = _word(feedback_pb2.FeedbackSource, event.source, "FEEDBACK_SOURCE_") if event.source else ""
        yield Remark(_at(event), "feedback taken back" if event.retracted else "feedback", _feedback(event), source)
    for asked in answer.reviews_requested:
        due = f"due {asked.due_at.ToDatetime(tzinfo=UTC):%Y-%m-%d %H:%M} UTC" if asked.HasField("due_at") else ""
        yield Remark(_at(asked), "review asked for", asked.cause, due)
    for resolved in answer.reviews_resolved:
        yield Remark(_at(resolved), "review decided", resolved.outcome, resolved.reviewer_id)


def _feedback(event: Any) -> str:
    match event.WhichOneof("value"):
        case "thumb":
            return _word(feedback_pb2.Thumb, event.thumb, "THUMB_")
        case "rating":
            return f"{event.rating} of 5"
        case "comparison":
            return f"compared: {_word(feedback_pb2.Preference, event.comparison.preference, 'PREFERENCE_')}"
    return "a text (not kept here)"


def _line(one: pb.RequestSummary) -> RequestLine:
    return RequestLine(
        id=one.request_id,
        tenant=one.tenant_id,
        project=one.project_id,
        ended_at=one.ended_at.ToDatetime(tzinfo=UTC),
        outcome=_outcome(one.outcome),
        reason=one.reason,
        model=one.model,
        route=one.route,
        prompt_version=one.prompt_version,
        latency=one.latency.ToTimedelta().total_seconds() if one.HasField("latency") else None,
        tokens=one.tokens,
        costs=[amount(money) for money in one.costs],
        kinds=list(one.kinds),
        blocked_categories=list(one.blocked_categories),
        verdicts=[_DECIDED.get(action, str(action)) for action in one.verdicts],
        categories=sorted({*one.categories, *one.blocked_categories}),
        feedback_count=one.feedback_count,
        thumbs=one.thumbs,
        synthetic=one.synthetic,
        awaiting=list(one.decisions_awaiting_review),
    )


def _first_text_at(completed: gateway_pb2.RequestCompleted) -> datetime | None:
    if not completed.HasField("time_to_first_token") or not completed.HasField("latency"):
        return None
    return _at(completed) - completed.latency.ToTimedelta() + completed.time_to_first_token.ToTimedelta()


def _trace_id(answer: pb.GetRequestResponse) -> str:
    events: tuple[Any, ...] = (answer.completed, *answer.decisions, *answer.redactions, *answer.generations)
    for event in events:
        parts = event.metadata.traceparent.split("-")
        if len(parts) == 4:
            return str(parts[1])
    return ""


def _outcome(value: int) -> str:
    return _word(gateway_pb2.RequestOutcome, value, "REQUEST_OUTCOME_")


def _action(value: int) -> str:
    return _word(verdict_pb2.Action, value, "ACTION_")


def _direction(value: int) -> str:
    return _word(verdict_pb2.Direction, value, "DIRECTION_")


def _word(kind: Any, value: int, prefix: str) -> str:
    """In words; the number for a value that this page is too old for."""
    names: Iterable[tuple[str, int]] = kind.items()
    return next(
        (name.removeprefix(prefix).lower().replace("_", " ") for name, known in names if known == value), str(value)
    )


def _at(event: Any) -> datetime:
    at: datetime = event.metadata.occurred_at.ToDatetime(tzinfo=UTC)
    return at


def _span(event: Any, name: str) -> timedelta | None:
    return getattr(event, name).ToTimedelta() if event.HasField(name) else None
