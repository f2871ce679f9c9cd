"""Events whose values cannot be go to the dead letters, and do not stop the partition."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from aiokafka import TopicPartition
from google.protobuf.message import Message
from sluice.events.v1.fairness_pb2 import FairnessCounted
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice_fairness.adapters.processor import Processor
from sluice_fairness.domain.measuring import Judging
from sluice_fairness.domain.partition import Rules
from sluice_kit.events import topic_of

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


async def publish(*events: Message) -> None:
    """Nobody listens."""


def decision(number: int) -> ContentModerated:
    event = ContentModerated()
    event.verdict.decision_id = f"d{number}"
    event.verdict.scores.add(score=0.5)
    return told(event, number)


def completion(number: int) -> RequestCompleted:
    return told(RequestCompleted(), number)


def tally(number: int) -> FairnessCounted:
    event = FairnessCounted()
    event.part.part_key = f"fairness|{number}"
    event.window.start.FromSeconds(NOW)
    event.window.length.FromSeconds(60)
    return told(event, number)


def told(event: Message, number: int) -> Message:
    event.metadata.event_id = event.metadata.request_id = f"r{number}"  # type: ignore[attr-defined]
    event.metadata.occurred_at.FromSeconds(NOW)  # type: ignore[attr-defined]
    return event


def with_time(event: Message) -> None:
    event.metadata.occurred_at.seconds = 2**62  # type: ignore[attr-defined]


def with_start(event: FairnessCounted) -> None:
    event.window.start.seconds = 2**62


def with_length(event: FairnessCounted) -> None:
    event.window.length.seconds = 2**62


def with_score(value: float) -> Callable[[ContentModerated], None]:
    def spoil(event: ContentModerated) -> None:
        event.verdict.scores[0].score = value

    return spoil


def with_cohort(attribute: str, value: str) -> Callable[[RequestCompleted], None]:
    def spoil(event: RequestCompleted) -> None:
        event.cohorts.add(attribute=attribute, value=value)

    return spoil


@pytest.mark.parametrize(
    ("made", "spoil", "reason"),
    [
        (decision, with_time, "invalid_time"),
        (completion, with_time, "invalid_time"),
        (tally, with_start, "invalid_time"),
        (tally, with_length, "invalid_time"),
        *[(completion, with_cohort(*pair), "invalid_cohort") for pair in (("a/b", "c"), ("", "c"), ("plan", ""))],
        *[(decision, with_score(value), "invalid_score") for value in (float("nan"), float("inf"), 1e300, -1.0)],
    ],
)
async def test_an_event_that_cannot_be_is_a_dead_letter_and_those_around_it_are_stored(
    made: Callable[[int], Message], spoil: Callable[[Message], None], reason: str
) -> None:
    dead_letters, table = DeadLetters(), Table()
    processor = Processor(
        windows=table,
        rules=Rules(),
        judging=Judging(),
        dead_letters=dead_letters,  # type: ignore[arg-type]
        publish=publish,
        source=StillLog(),
        now=lambda: float(NOW),
    )
    processor.holding.resume({0})
    events = [made(number) for number in range(3)]
    spoil(events[1])
    await processor.absorb([Record(event, offset) for offset, event in enumerate(events)])
    assert dead_letters.parked == [(1, reason)]
    assert processor.holding.partitions[0].next_offset(topic_of(type(events[0])).name) == 3
    assert len([key for key in table if not key.startswith(b"marks")]) >= 1
