"""Events whose values cannot be go to the dead letters, and do not stop the partition."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from aiokafka import TopicPartition
from google.protobuf.message import Message
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice_kit.events import topic_of
from sluice_quality.adapters.processor import Processor
from sluice_quality.domain.partition import Rules

NOW = 1_760_000_000


class Record:
    """A record of partition 0, as a runner hands it over."""

    key = None
    headers = ()
    partition = 0
    timestamp = float(NOW)

    def __init__(self, event: Message, offset: int) -> None:
        self.topic = topic_of(type(event)).name
        self.tp = TopicPartition(self.topic, 0)
        self.offset, self.value = offset, event.SerializeToString()

    @property
    def message(self) -> Record:
        return self


class StillLog:
    def owns(self, tp: object) -> bool:
        return True

    async def seek(self, tp: object, offset: int) -> None:
        raise AssertionError("nothing is out of order")

    async def bounds(self, *tps: object) -> Mapping[object, tuple[int, int]]:
        return dict.fromkeys(tps, (0, 0))

    async def next_held(self, tp: object, offset: int) -> int | None:
        raise AssertionError("nothing is missing")

    async def commit(self, positions: Mapping[object, int]) -> None:
        raise AssertionError("nothing is aligned")


class DeadLetters:
    def __init__(self) -> None:
        self.parked: list[tuple[int, str]] = []

    async def park(self, event: Record, *, reason: str) -> None:
        self.parked.append((event.offset, reason))


class Table(dict):
    async def apply(self, changes: Mapping[bytes, bytes | None], *, event: object) -> None:
        self.update(changes)


def completion(number: int) -> RequestCompleted:
    event = RequestCompleted(outcome=RequestOutcome.REQUEST_OUTCOME_COMPLETED, model="small")
    event.metadata.event_id = event.metadata.request_id = f"r{number}"
    event.metadata.tenant_id = "acme"
    event.metadata.occurred_at.FromSeconds(NOW)
    event.usage.output_tokens = 10
    event.latency.FromMilliseconds(5)
    return event


def verdict(number: int) -> ContentModerated:
    event = ContentModerated()
    event.metadata.event_id = event.metadata.request_id = f"v{number}"
    event.metadata.occurred_at.FromSeconds(NOW)
    event.latency.FromMilliseconds(5)
    return event


Spoil = Callable[[Message], None]


def of_seconds(field: str) -> Spoil:
    def spoil(event: Message) -> None:
        (event.metadata.occurred_at if field == "occurred_at" else getattr(event, field)).seconds = 2**62  # type: ignore[attr-defined]

    return spoil


def of_tokens(field: str) -> Spoil:
    def spoil(event: Message) -> None:
        setattr(event.usage, field, 2**63)  # type: ignore[attr-defined]

    return spoil


@pytest.mark.parametrize(
    ("made", "spoil", "reason"),
    [
        *[
            (completion, of_seconds(name), "invalid_time")
            for name in ("occurred_at", "latency", "time_to_first_token", "generation_time")
        ],
        *[(completion, of_tokens(name), "absurd_usage") for name in ("output_tokens", "cached_input_tokens")],
        *[(verdict, of_seconds(name), "invalid_time") for name in ("occurred_at", "latency")],
    ],
)
async def test_an_event_that_cannot_be_is_a_dead_letter_and_those_around_it_count(
    made: Callable[[int], Message], spoil: Spoil, reason: str
) -> None:
    dead_letters, table, published = DeadLetters(), Table(), []

    async def publish(*events: QualityMeasured) -> None:
        published.extend(events)

    processor = Processor(
        windows=table,
        rules=Rules(),
        dead_letters=dead_letters,  # type: ignore[arg-type]
        publish=publish,
        source=StillLog(),
        now=lambda: float(NOW),
    )
    processor.holding.resume({0})
    events = [made(number) for number in range(3)]
    spoil(events[1])
    await processor.absorb([Record(event, offset) for offset, event in enumerate(events)])
    await processor.publish_due()
    assert dead_letters.parked == [(1, reason)]
    assert sum(event.requests.requests + event.moderation.inputs for event in published) == 2
    assert processor.holding.partitions[0].next_offset(topic_of(type(events[0])).name) == 3
