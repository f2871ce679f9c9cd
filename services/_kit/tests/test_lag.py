"""The gauge of a consumer's lag says what is so: while the handler is stuck, and when its partitions are somebody else's."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer
from prometheus_client import REGISTRY
from sluice_kit import lag
from sluice_kit.assignment import sticky_assignor
from sluice_kit.broker import client_options, ensure_topics
from sluice_kit.publisher import EventPublisher
from spine_actors import PARTITIONS, TOPIC, Collector, Running, completed, until
from spine_brokers import EmbeddedBroker


@pytest.fixture
def broker(tmp_path):
    made = EmbeddedBroker(tmp_path / "broker")
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def publisher(broker, tmp_path, monkeypatch):
    monkeypatch.setattr(lag, "LOOK_SECONDS", 0.05)
    await ensure_topics(broker.settings(tmp_path))
    made = EventPublisher(producer="sluice-test/0", settings=broker.settings(tmp_path))
    await made.start()
    yield made
    await made.stop()


def shown(group: str) -> dict[int, float]:
    """Partition to lag, as a scrape would see it."""
    return {
        int(sample.labels["partition"]): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "sluice_events_consumer_lag" and sample.labels["group"] == group
    }


class Stuck(Collector):
    """A handler that neither returns nor fails until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.called = asyncio.Event()

    async def __call__(self, events) -> None:
        self.called.set()
        await self.go_on.wait()
        await super().__call__(events)


@pytest.mark.parametrize("each", [False, True], ids=["batches", "single events"])
async def test_while_a_handler_is_stuck_its_lag_grows_and_then_it_is_zero(each, publisher, broker, tmp_path):
    handler, group = Stuck(), f"stuck-{each}"
    options = {"handle_each": handler.each, "concurrency": 2} if each else {}
    await publisher.publish(completed("first"))
    async with Running(broker.settings(tmp_path), handler, group=group, batch_size=5, **options):
        await asyncio.wait_for(handler.called.wait(), 30)
        await until(lambda: sum(shown(group).values()) == 1)
        await publisher.publish(*(completed(f"later-{number}") for number in range(40)))
        await until(lambda: sum(shown(group).values()) == 41)
        handler.go_on.set()
        await until(lambda: len(handler.seen) == 41)
        await until(lambda: shown(group) == dict.fromkeys(range(PARTITIONS), 0))
    assert shown(group) == {}


async def test_what_is_tried_again_and_again_is_behind(publisher, broker, tmp_path):
    handler = Collector()
    handler.away_for = 1_000_000
    await publisher.publish(*(completed(f"r-{number}") for number in range(7)))
    async with Running(broker.settings(tmp_path), handler, group="away"):
        await until(lambda: handler.calls > 2)
        await until(lambda: sum(shown("away").values()) == 7)


async def test_a_consumer_that_begins_behind_what_it_has_not_fetched_shows_it(publisher, broker, tmp_path):
    handler = Stuck()
    await publisher.publish(*(completed(f"r-{number}") for number in range(60)))
    await until(lambda: publisher.depth == 0)
    async with Running(broker.settings(tmp_path), handler, group="small", batch_size=1):
        await asyncio.wait_for(handler.called.wait(), 30)
        await until(lambda: sum(shown("small").values()) == 60)
        handler.go_on.set()


async def test_partitions_that_go_to_another_member_are_shown_no_more(publisher, broker, tmp_path):
    settings = broker.settings(tmp_path)
    async with Running(settings, Collector(), group="shared"):
        await until(lambda: len(shown("shared")) == PARTITIONS)
        other = AIOKafkaConsumer(
            TOPIC, **client_options(settings), group_id="shared", partition_assignment_strategy=[sticky_assignor()]
        )
        await other.start()
        try:
            await until(lambda: other.assignment() and len(shown("shared")) == PARTITIONS - len(other.assignment()))
            assert set(shown("shared")) == set(range(PARTITIONS)) - {tp.partition for tp in other.assignment()}
        finally:
            await other.stop()
        await until(lambda: len(shown("shared")) == PARTITIONS)
