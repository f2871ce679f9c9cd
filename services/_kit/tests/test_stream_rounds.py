"""When a stream processor publishes, and for how long it rests after it."""

from typing import Any

import pytest
from sluice_kit.streams.options import Rhythm
from sluice_kit.streams.rounds import PublishRounds

RHYTHM = Rhythm(batch_size=1, batch_seconds=1.0, publish_seconds=2.0, publish_rest=20, longest_rest_seconds=15.0)


class Worker:
    """Its alignment and its publishing take so many seconds of the clock below."""

    recovered = True

    def __init__(self, *, aligning: float = 0.0, publishing: float = 0.0, telling: float = 0.0) -> None:
        self.aligning, self.publishing, self.telling = aligning, publishing, telling
        self.clock, self.published_at, self.told_at = 0.0, list[float](), list[float]()

    async def align(self, assigned: Any) -> None:
        self.clock += self.aligning

    async def publish_due(self) -> None:
        self.published_at.append(self.clock)
        self.clock += self.publishing

    async def tell(self, assigned: Any) -> None:
        self.told_at.append(self.clock)
        self.clock += self.telling
        raise ConnectionError("the broker is away")

    async def tick_for(self, seconds: float) -> None:
        """As its timer does."""
        rounds = PublishRounds(
            self, self.publish_due, name="test", rhythm=RHYTHM, assigned=lambda: [], now=lambda: self.clock
        )
        while self.clock < seconds:
            await rounds.tick()
            self.clock += RHYTHM.publish_seconds


@pytest.mark.parametrize(
    ("publishing", "every"),
    [(0.0, 2.0), (0.3, 6.3), (5.0, 15.0)],
    ids=["no rest", "20 times as long", "15 s from its beginning at most"],
)
async def test_after_publishing_it_rests_in_proportion(publishing: float, every: float) -> None:
    worker = Worker(publishing=publishing)
    await worker.tick_for(60.0)
    first, second, *_ = worker.published_at
    assert second - first == pytest.approx(every)


async def test_what_aligning_takes_is_not_rested_for() -> None:
    worker = Worker(aligning=1.0)
    await worker.tick_for(9.0)
    assert worker.published_at == [1.0, 4.0, 7.0]


async def test_the_broker_is_told_after_what_is_due_which_does_not_rest_for_it_nor_fail_with_it() -> None:
    worker = Worker(telling=1.0)
    await worker.tick_for(9.0)
    assert worker.published_at == worker.told_at == [0.0, 3.0, 6.0]
