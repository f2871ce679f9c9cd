"""Events whose values cannot be go to the dead letters, and do not stop the partition."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice_drift.adapters.records import decode_observations
from sluice_drift.adapters.router import Router
from sluice_kit.events import topic_of

NOW = 1_760_000_000


class Topic:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.offsets: list[int] = []

    async def send(
        self, *, key: bytes | None = None, value: bytes | None = None, headers: Any = None
    ) -> Awaitable[Any]:
        self.offsets += [each.offset for each in decode_observations(value or b"")]
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sent.set_result(None)
        return sent


class DeadLetters:
    def __init__(self) -> None:
        self.parked: list[tuple[int, str]] = []

    async def park(self, event: Any, *, reason: str) -> None:
        self.parked.append((event.message.offset, reason))


def record(event: InferenceMeasured, offset: int) -> Any:
    message = SimpleNamespace(
        topic=topic_of(InferenceMeasured).name,
        partition=0,
        offset=offset,
        timestamp=float(NOW),
        value=event.SerializeToString(),
        headers=None,
    )
    return SimpleNamespace(message=message)


@pytest.mark.parametrize(("seconds", "nanos"), [(2**62, 0), (-(2**62), 0), (5, -5)])
async def test_an_event_of_an_impossible_time_is_a_dead_letter_and_those_around_it_go_on(
    seconds: int, nanos: int
) -> None:
    topic, dead_letters = Topic(), DeadLetters()
    events = [InferenceMeasured(model="small") for _ in range(3)]
    for number, event in enumerate(events):
        event.metadata.event_id, event.metadata.tenant_id = f"e{number}", "acme"
        event.metadata.occurred_at.FromSeconds(NOW)
    events[1].metadata.occurred_at.seconds, events[1].metadata.occurred_at.nanos = seconds, nanos
    router = Router(target=topic, dead_letters=dead_letters)  # type: ignore[arg-type]
    await router.route([record(event, offset) for offset, event in enumerate(events)], lambda _, offset: offset)
    assert dead_letters.parked == [(1, "invalid_time")]
    assert sorted(topic.offsets) == [0, 0, 2, 2]  # once for the tenant's series, once for that of all tenants
