"""The steps of one request, in the order of time: kinds, counts, scores and codes, never a text."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sluice.insight.v1 import request_service_pb2 as pb
from sluice.types.v1 import feedback_pb2, money_pb2, verdict_pb2

from sluice_cli.requests.asking import outcome_name


@dataclass(frozen=True)
class Step:
    """Something that happened. Events tell when a step ended and how long it took; its start is the difference."""

    name: str
    ended_us: int
    took_us: int | None
    """None for what happened at a moment, and for what was not measured."""
    result: str
    details: tuple[str, ...] = ()
    is_afterwards: bool = False
    """True for what came after the answer: cost, feedback, reviews."""

    @property
    def started_us(self) -> int:
        """When it began."""
        return self.ended_us - (self.took_us or 0)


def steps(story: pb.GetRequestResponse) -> list[Step]:
    """All steps, by their start."""
    made = (
        *_request(story),
        *(_redaction(event) for event in story.redactions),
        *(_decision(event) for event in story.decisions),
        *(_generation(event) for event in story.generations),
        *(_cost(event) for event in story.costs),
        *(_feedback(event) for event in story.feedback),
        *(
            _moment("review asked", event, event.cause, f"review {event.review_id}")
            for event in story.reviews_requested
        ),
        *(_moment("reviewed", event, event.outcome, f"review {event.review_id}") for event in story.reviews_resolved),
    )
    # The whole before its parts where both begin at once.
    return sorted(made, key=lambda step: (step.started_us, -(step.took_us or 0)))


def trace_id(story: pb.GetRequestResponse) -> str:
    """The trace the request is; empty when no event tells it."""
    events: tuple[Any, ...] = (story.completed, *story.generations, *story.decisions, *story.redactions)
    for event in events:
        parts = event.metadata.traceparent.split("-")
        if len(parts) == 4:
            return str(parts[1])
    return ""


def money(amount: money_pb2.Money) -> str:
    """Exact."""
    digits = f"{Decimal(amount.nano_units) / 10**9:f}"
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits} {amount.currency_code}"


def _request(story: pb.GetRequestResponse) -> Iterator[Step]:
    if not story.HasField("completed"):
        return
    event = story.completed
    took = _micros(event, "latency")
    yield Step(
        "request",
        _ended(event),
        took,
        outcome_name(event.outcome),
        _said(
            event.reason,
            *(f"blocked: {category}" for category in event.blocked_categories),
            f"model {event.model}" if event.model else "",
            f"served by {event.served_model}" if event.served_model not in ("", event.model) else "",
            f"route {event.route}" if event.route else "",
            f"prompt {event.prompt_version}" if event.prompt_version else "",
            f"arm {event.experiment_arm}" if event.experiment_arm else "",
            *(f"not checked: {name}" for name in event.skipped_filters),
            "budget not checked" if event.budget_unchecked else "",
            "cut by the budget" if event.budget_limited else "",
        ),
    )
    first = _micros(event, "time_to_first_token")
    if first is not None and took is not None:
        yield Step("first text", _ended(event) - took + first, None, "")


def _redaction(event: Any) -> Step:
    return Step(
        f"redact {_way(event.direction)}",
        _ended(event),
        _micros(event, "latency"),
        "found" if event.counts else "nothing",
        _said(
            *(f"{one.kind} {one.count}" for one in sorted(event.counts, key=lambda one: one.kind)),
            f"put back {event.restored_count}" if event.restored_count else "",
            f"policy {event.policy_id}@{event.policy_version}" if event.policy_id else "",
        ),
    )


def _decision(event: Any) -> Step:
    verdict = event.verdict
    name = f"moderate {_way(event.direction)}"
    return Step(
        f"{name}, shadow" if event.shadow else name,
        _ended(event),
        _micros(event, "latency"),
        _enum(verdict_pb2.Action, verdict.action, "ACTION_"),
        _said(
            *(
                f"{score.category} {score.score:.3f} reached {score.threshold:.3f}"
                for score in sorted(verdict.scores, key=lambda one: -one.score)
                if score.score >= score.threshold
            ),
            *(f"not checked: {check.check} ({check.reason})" for check in verdict.skipped),
            "waits for a review" if event.awaits_review else "",
            f"policy {verdict.policy_id}@{verdict.policy_version}" if verdict.policy_id else "",
            f"decision {verdict.decision_id}",
        ),
    )


def _generation(event: Any) -> Step:
    usage = event.usage
    read = usage.uncached_input_tokens + usage.cached_input_tokens + usage.cache_write_tokens
    written = usage.output_tokens + usage.reasoning_tokens
    about = " (estimated)" if usage.estimated else ""
    return Step(
        "generate",
        _ended(event),
        _micros(event, "total_time"),
        "aborted" if event.aborted else "done",
        _said(f"model {event.model}", f"backend {event.backend}", f"{read} tokens in, {written} out{about}"),
    )


def _cost(event: Any) -> Step:
    return Step(
        "correction" if event.corrects_event_id else "cost",
        _ended(event),
        None,
        "no price" if event.unpriced else money(event.amount),
        _said(event.charge_kind, *(f"{line.bucket} {line.quantity}: {money(line.amount)}" for line in event.lines)),
        is_afterwards=True,
    )


def _feedback(event: Any) -> Step:
    kind = event.WhichOneof("value")
    given = {
        "thumb": lambda: _enum(feedback_pb2.Thumb, event.thumb, "THUMB_"),
        "rating": lambda: f"rating {event.rating}",
        "comparison": lambda: _enum(feedback_pb2.Preference, event.comparison.preference, "PREFERENCE_"),
    }.get(kind, lambda: {"redacted_comment": "comment", "redacted_correction": "correction"}.get(kind, "text"))()
    source = _enum(feedback_pb2.FeedbackSource, event.source, "FEEDBACK_SOURCE_") if event.source else ""
    return _moment("feedback", event, "taken back" if event.retracted else given, source)


def _moment(name: str, event: Any, result: str, *details: str) -> Step:
    return Step(name, _ended(event), None, result, _said(*details), is_afterwards=True)


def _said(*details: str) -> tuple[str, ...]:
    return tuple(filter(None, details))


def _ended(event: Any) -> int:
    return int(event.metadata.occurred_at.ToMicroseconds())


def _micros(event: Any, name: str) -> int | None:
    return int(getattr(event, name).ToMicroseconds()) if event.HasField(name) else None


def _way(direction: int) -> str:
    return _enum(verdict_pb2.Direction, direction, "DIRECTION_")


def _enum(kind: Any, value: int, prefix: str) -> str:
    """In words; the number for a value that this command is too old for."""
    names: Iterable[tuple[str, int]] = kind.items()
    return next((name.removeprefix(prefix).lower() for name, known in names if known == value), str(value))
