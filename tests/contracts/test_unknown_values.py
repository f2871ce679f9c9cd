"""A newer producer: enum values and fields that this code does not know pass through every consumer of the mesh."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.fairness_pb2 import FairnessCounted
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice_cost.consumer import completion_of
from sluice_drift.adapters.facts import observations_of
from sluice_events.topics import event_topics
from sluice_events.wire import encode
from sluice_feedback.consumer import CompletionConsumer
from sluice_insight.adapters.events import charge_of, drift_part, fairness_part, quality_part
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.events import decode
from sluice_quality.adapters.events import fact_of
from sluice_quality.agents import SOURCES

GOLDEN = Path(__file__).parents[2] / "protos" / "released" / "golden" / "next"
UNKNOWN_VALUE = 9_999
UNKNOWN_FIELD = b"\xba\xb5\x03\x05later"  # field 6999, a text
EVENTS = [pytest.param(spec.message_class, id=spec.message_class.DESCRIPTOR.name) for spec in event_topics()]
NOW = 1_793_534_400_000_000


def from_the_future(message_class: type[Message]) -> Message:
    """The golden event as a later version might write it: every enum has a value of later, and there is a field more."""
    message = message_class.FromString((GOLDEN / f"{message_class.DESCRIPTOR.name}.binpb").read_bytes())
    message.metadata.synthetic = False
    if "shadow" in message.DESCRIPTOR.fields_by_name:
        message.shadow = False  # nobody counts what was not enforced
    set_unknown(message)
    return message_class.FromString(message.SerializeToString() + UNKNOWN_FIELD)


def set_unknown(message: Message) -> None:
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_ENUM and field.is_repeated:
            value[:] = [UNKNOWN_VALUE] * len(value)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            setattr(message, field.name, UNKNOWN_VALUE)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            parts = value.values() if field.message_type.fields_by_name["value"].message_type is not None else ()
            for part in parts:
                set_unknown(part)
        elif field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                set_unknown(part)


def consumed(message: Message) -> ConsumedEvent:
    record = encode(message)
    return ConsumedEvent(
        message=decode(record.topic, record.value, record.headers), topic=record.topic, partition=0, offset=7,
        key=record.key, headers=dict(record.headers), event_id=message.metadata.event_id, timestamp_ms=NOW // 1000,
    )  # fmt: skip


@pytest.mark.parametrize("message_class", EVENTS)
def test_what_is_unknown_survives_a_round_trip_over_the_wire(message_class):
    message = from_the_future(message_class)
    record = encode(message)
    again = decode(record.topic, record.value, record.headers)
    assert again == message
    assert again.SerializeToString(deterministic=True).endswith(UNKNOWN_FIELD)


def test_the_ledger_enters_a_request_whose_outcome_it_does_not_know():
    completion = completion_of(consumed(from_the_future(RequestCompleted)))
    assert completion.outcome == f"unknown_{UNKNOWN_VALUE}"
    assert completion.usage.output_tokens > 0


@pytest.mark.parametrize("message_class", SOURCES)
def test_quality_counts_events_with_values_it_does_not_know(message_class):
    fact = fact_of(from_the_future(message_class), offset=7, record_time=NOW + 60_000_000)
    assert fact is not None
    assert fact.offset == 7


def test_drift_observes_events_with_values_it_does_not_know():
    seen, everybody = observations_of(
        from_the_future(InferenceMeasured), partition=0, offset=7, record_time=NOW + 60_000_000
    )
    assert everybody.series.tenant_id == ""
    assert seen.series.model == "sluice-small"


@pytest.mark.parametrize(
    ("message_class", "part_of"),
    [(QualityMeasured, quality_part), (DriftMeasured, drift_part), (FairnessCounted, fairness_part)],
)
def test_insight_reads_windows_with_values_it_does_not_know(message_class, part_of):
    assert part_of(from_the_future(message_class)).series.tenant_id == "acme"


def test_insight_charges_rows_with_values_it_does_not_know():
    cost_recorded = next(spec.message_class for spec in event_topics() if spec.name.endswith("cost_recorded.v1"))
    assert charge_of(from_the_future(cost_recorded), partition=7).partition == 7


class Register:
    """What feedback keeps of requests, in memory."""

    def __init__(self) -> None:
        self.known: list = []

    async def learn(self, requests, next_offsets, *, at, erasures=()) -> int:
        self.known += requests
        return 0

    async def forget(self, *, before, keep_at_most) -> int:
        return 0


async def test_feedback_learns_requests_with_values_it_does_not_know():
    register = Register()
    consumer = CompletionConsumer(
        register, on_rejected=lambda: None, report_health=lambda name, well: None,
        clock=lambda: datetime.now(UTC), keep_for=timedelta(days=1), keep_at_most=10,
    )  # fmt: skip
    await consumer.handle([consumed(from_the_future(RequestCompleted))])
    assert [known.tenant_id for known in register.known] == ["acme"]
