"""RequestCompleted in, ledger entries out."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from aiokafka import TopicPartition
from prometheus_client import Counter
from sluice.events.v1 import gateway_pb2
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.events.v1.quality_pb2 import AnswerJudged
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import Unavailable

from sluice_cost.domain.ledger import (
    COMPUTE,
    GUARDRAIL,
    JUDGE,
    Completion,
    Ledger,
    LedgerEntry,
    LedgerUnavailable,
    Measured,
    Partition,
)
from sluice_cost.domain.usage import TOKEN_BUCKETS, Usage

ENTRIES = Counter("sluice_cost_ledger_entries_total", "Ledger rows written.", ("priced", "charge_kind"))
DUPLICATES = Counter("sluice_cost_duplicate_events_total", "RequestCompleted events that were in the ledger already.")

_OFFSET_ATTEMPTS = 20
_OFFSET_PAUSE_SECONDS = 0.5


class CompletionConsumer:
    """Enters batches of RequestCompleted into the ledger; fits EventConsumer's `handle` and `starting_offsets`."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        encode: Callable[[LedgerEntry], bytes],
        on_appended: Callable[[], None],
        report_health: Callable[[str, bool], None],
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger, self._encode, self._clock = ledger, encode, clock
        self._on_appended, self._report_health = on_appended, report_health

    async def handle(self, events: Sequence[ConsumedEvent]) -> None:
        """Enters a batch. Raises Unavailable while the database is away, so that the batch is tried for ever."""
        completions = [completion_of(event) for event in events if isinstance(event.message, RequestCompleted)]
        measured = [measured_of(event) for event in events if not isinstance(event.message, RequestCompleted)]
        try:
            new = await self._ledger.append(
                completions,
                _next_offsets(events),
                recorded_at=self._clock(),
                encode=self._encode,
                measured=measured,
            )
        except LedgerUnavailable as error:
            self._report_health("database", False)
            raise Unavailable(str(error)) from None
        self._report_health("database", True)
        self._count(new, duplicates=len(completions) - sum(entry.request_count for entry in new))
        if new:
            self._on_appended()

    async def starting_offsets(self, partitions: set[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where the ledger stopped: it knows better than Kafka, whose commit comes after it."""
        asked = {Partition(partition.topic, partition.partition) for partition in partitions}
        for attempt in range(_OFFSET_ATTEMPTS):
            try:
                stored = await self._ledger.next_offsets(asked)
            except LedgerUnavailable:
                if attempt == _OFFSET_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(_OFFSET_PAUSE_SECONDS)
            else:
                return {TopicPartition(found.topic, found.number): offset for found, offset in stored.items()}
        raise AssertionError("unreachable")

    def _count(self, new: Sequence[LedgerEntry], *, duplicates: int) -> None:
        for entry in new:
            ENTRIES.labels(entry.charge.priced.value, entry.charge_kind).inc()
        DUPLICATES.inc(duplicates)


def completion_of(event: ConsumedEvent) -> Completion:
    """What the ledger keeps of an event. Raises AbsurdUsage for token counts no request has."""
    message: Any = event.message
    metadata = message.metadata
    return Completion(
        event_id=metadata.event_id,
        occurred_at=metadata.occurred_at.ToDatetime(tzinfo=UTC),
        request_id=metadata.request_id,
        tenant_id=metadata.tenant_id,
        project_id=metadata.project_id,
        subject_id=metadata.subject_id,
        api_key_id=message.api_key_id,
        operation=_enum_name(gateway_pb2.RequestOperation, message.operation, "REQUEST_OPERATION_"),
        model=_column_text(message.model),
        served_model=_column_text(message.served_model),
        route=_column_text(message.route),
        outcome=_enum_name(gateway_pb2.RequestOutcome, message.outcome, "REQUEST_OUTCOME_"),
        usage=_usage(message.usage),
        is_synthetic=metadata.synthetic,
        traceparent=metadata.traceparent,
        partition=Partition(event.topic, event.partition),
        offset=event.offset,
        cost_hold_id=message.cost_hold_id,
        prompt_version=_column_text(message.prompt_version),
        experiment_arm=_column_text(message.experiment_arm),
    )


def measured_of(event: ConsumedEvent) -> Measured:
    """The time an event tells of. What ran it is the model: the model itself, or `sluice-<filter>`."""
    message: Any = event.message
    if isinstance(message, InferenceMeasured):
        usage = Usage(
            cpu_us=_microseconds(message.cpu_seconds), accelerator_us=_microseconds(message.accelerator_seconds)
        )
        outcome = "cancelled" if message.aborted else "completed"
        return Measured(_facts_of(event, _column_text(message.model), usage, outcome), COMPUTE)
    if isinstance(message, AnswerJudged):
        # Nobody's call: neither a key's nor a person's.
        outcome = message.failure or "completed"
        facts = _facts_of(event, _column_text(message.judge_model), _usage(message.usage), _column_text(outcome))
        return Measured(replace(facts, subject_id=""), JUDGE)
    # Filters tell how long they took, not the processor time of it: an upper bound, said to be estimated.
    filter_ = "sluice-moderation" if isinstance(message, ContentModerated) else "sluice-redaction"
    usage = Usage(cpu_us=max(message.latency.ToMicroseconds(), 0), is_estimated=True)
    return Measured(_facts_of(event, filter_, usage, "completed"), GUARDRAIL)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6) if isfinite(seconds) else -1  # which Usage refuses


def _facts_of(event: ConsumedEvent, model: str, usage: Usage, outcome: str) -> Completion:
    metadata = event.message.metadata  # type: ignore[attr-defined]
    return Completion(
        event_id=metadata.event_id,
        occurred_at=metadata.occurred_at.ToDatetime(tzinfo=UTC),
        request_id=metadata.request_id,
        tenant_id=metadata.tenant_id,
        project_id=metadata.project_id,
        subject_id=metadata.subject_id,
        api_key_id="",
        operation="",
        model=model,
        served_model=model,
        route="",
        outcome=outcome,
        usage=usage,
        is_synthetic=metadata.synthetic,
        traceparent=metadata.traceparent,
        partition=Partition(event.topic, event.partition),
        offset=event.offset,
    )


def _usage(usage: Any) -> Usage:
    return Usage(**{bucket: getattr(usage, bucket) for bucket in TOKEN_BUCKETS}, is_estimated=usage.estimated)


def _enum_name(enum: Any, number: int, prefix: str) -> str:
    """`REQUEST_OUTCOME_COMPLETED` -> `completed`; a value newer than this code -> `unknown_17`."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return value.name.removeprefix(prefix).lower() if value is not None else f"unknown_{number}"


def _column_text(text: str) -> str:
    # PostgreSQL takes no NUL, and a model name may be what a caller made up.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")[:200]


def _next_offsets(events: Sequence[ConsumedEvent]) -> dict[Partition, int]:
    offsets: dict[Partition, int] = {}
    for event in events:
        partition = Partition(event.topic, event.partition)
        offsets[partition] = max(offsets.get(partition, 0), event.offset + 1)
    return offsets
