"""A request in a line, from its events in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.feedback_pb2 import FeedbackReceived, ReviewRequested, ReviewResolved
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.insight.v1 import request_service_pb2 as pb
from sluice.types.v1 import feedback_pb2, money_pb2, verdict_pb2


@dataclass(frozen=True, slots=True)
class Summary:
    """What requests are found by, and the line that is shown."""

    line: pb.RequestSummary
    ended_us: int
    latency_us: int
    marks: frozenset[str]
    """As `RequestQuery.marks` names them."""


def summary(events: Sequence[Message]) -> Summary | None:
    """None until the request has ended. Copies of an event must have been left out before."""
    completed = min(
        (event for event in events if isinstance(event, RequestCompleted)),
        key=lambda one: one.metadata.event_id,
        default=None,
    )
    if completed is None:
        return None
    metadata = completed.metadata
    enforced = [event.verdict for event in events if isinstance(event, ContentModerated) and not event.shadow]
    count, thumbs = _feedback([event for event in events if isinstance(event, FeedbackReceived)])
    line = pb.RequestSummary(
        request_id=metadata.request_id,
        tenant_id=metadata.tenant_id,
        project_id=metadata.project_id,
        ended_at=metadata.occurred_at,
        outcome=completed.outcome,
        reason=completed.reason,
        model=completed.model,
        route=completed.route,
        prompt_version=completed.prompt_version,
        latency=completed.latency if completed.HasField("latency") else None,
        tokens=_tokens(completed.usage),
        costs=_costs([event for event in events if isinstance(event, CostRecorded)]),
        kinds=sorted({one.kind for one in (*completed.redacted_input, *completed.redacted_output)}),
        blocked_categories=sorted(set(completed.blocked_categories)),
        feedback_count=count,
        thumbs=thumbs,
        synthetic=metadata.synthetic,
        decisions_awaiting_review=_awaiting(events),
        verdicts=_verdicts(completed, enforced),
        categories=sorted({*completed.blocked_categories, *(one.category for v in enforced for one in _reached(v))}),
    )
    return Summary(
        line, metadata.occurred_at.ToMicroseconds(), completed.latency.ToMicroseconds(), _marks(line, enforced)
    )


def _verdicts(
    completed: RequestCompleted, enforced: Sequence[verdict_pb2.Verdict]
) -> list[verdict_pb2.Action.ValueType]:
    found = {verdict.action for verdict in enforced} - {verdict_pb2.ACTION_UNSPECIFIED}
    if "moderation" in completed.skipped_filters:  # it was away, so there is no event that says so
        found.add(verdict_pb2.ACTION_SKIPPED)
    return sorted(found - {verdict_pb2.ACTION_ALLOW} or found)


def _reached(verdict: verdict_pb2.Verdict) -> list[verdict_pb2.CategoryScore]:
    return [one for one in verdict.scores if one.threshold and one.score >= one.threshold]


def _marks(line: pb.RequestSummary, enforced: Sequence[verdict_pb2.Verdict]) -> frozenset[str]:
    return frozenset(
        (
            *(f"kind:{kind}" for kind in line.kinds),
            *(f"blocked:{category}" for category in line.blocked_categories),
            *(f"category:{category}" for category in line.categories),
            *(f"verdict:{action}" for action in line.verdicts),
            *(
                f"verdict:{verdict.action}:{one.category}"
                for verdict in enforced
                for one in _reached(verdict)
                if one.action == verdict.action
            ),
        )
    )


def _awaiting(events: Sequence[Message]) -> list[str]:
    waiting = {
        event.verdict.decision_id
        for event in events
        if isinstance(event, ContentModerated) and event.awaits_review and not event.shadow
    }
    waiting |= {event.decision_id for event in events if isinstance(event, ReviewRequested)}
    return sorted(waiting - {event.decision_id for event in events if isinstance(event, ReviewResolved)} - {""})


def _tokens(usage: Any) -> int:
    return int(
        usage.uncached_input_tokens
        + usage.cached_input_tokens
        + usage.cache_write_tokens
        + usage.output_tokens
        + usage.reasoning_tokens
    )


def _costs(rows: Sequence[CostRecorded]) -> list[money_pb2.Money]:
    sums: Counter[str] = Counter()
    for row in rows:
        sums[row.amount.currency_code] += row.amount.nano_units
    return [
        money_pb2.Money(currency_code=currency, nano_units=nano) for currency, nano in sorted(sums.items()) if currency
    ]


def _feedback(events: Sequence[FeedbackReceived]) -> tuple[int, int]:
    """Pieces that were not taken back, and thumbs up less down among them."""
    over = {event.feedback_id for event in events if event.retracted}
    stand = {event.feedback_id: event for event in events if event.feedback_id not in over}
    thumbs = sum(
        {feedback_pb2.THUMB_UP: 1, feedback_pb2.THUMB_DOWN: -1}.get(event.thumb, 0)
        for event in stand.values()
        if event.WhichOneof("value") == "thumb"
    )
    return len(stand), thumbs
