"""What a rebalance overtakes is fetched again: on real logs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faust.types import TP
from sluice_kit.broker import client_options, ensure_topics
from sluice_kit.streams.fetching import ConsumerThread
from sluice_kit.streams.options import WorkerOptions
from sluice_kit.streams.worker import create_app
from spine_actors import TOPIC
from spine_brokers import new_broker

SOURCE, CHANGELOG = TP(TOPIC, 0), TP(TOPIC, 1)


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[dict]:
    """Options for a broker with the topics."""
    broker = new_broker(request.param, tmp_path / "broker")
    await asyncio.to_thread(broker.start)
    try:
        settings = broker.settings(tmp_path)
        await ensure_topics(settings)
        yield client_options(settings)
    finally:
        broker.kill()


def thread() -> ConsumerThread:
    """Its fetching alone: flow goes on."""
    made = ConsumerThread.__new__(ConsumerThread)
    made.consumer = SimpleNamespace(flow_active=True)
    return made


async def test_what_was_fetched_while_nobody_wanted_it_comes_when_it_is_wanted(client: dict) -> None:
    fetching, active = thread(), {SOURCE}
    async with (
        AIOKafkaProducer(**client) as producer,
        AIOKafkaConsumer(**client, auto_offset_reset="earliest") as consumer,
    ):
        consumer.assign([TopicPartition(*SOURCE), TopicPartition(*CHANGELOG)])
        waiting = asyncio.create_task(fetching._fetch_records(consumer, active, 2.0, 500))
        await asyncio.sleep(0.3)
        active.clear()  # a rebalance pauses all partitions, in place
        for value in (b"one", b"two"):
            await producer.send_and_wait(CHANGELOG.topic, value, partition=CHANGELOG.partition)
        assert await waiting == {}
        active.add(CHANGELOG)  # the recovery begins to read
        found = await fetching._fetch_records(consumer, active, 10.0, 500)
    assert [record.value for record in found[CHANGELOG]] == [b"one", b"two"]


async def test_what_is_of_another_worker_by_then_is_left_to_it(client: dict) -> None:
    fetching, active = thread(), {SOURCE}
    async with (
        AIOKafkaProducer(**client) as producer,
        AIOKafkaConsumer(**client, auto_offset_reset="earliest") as consumer,
    ):
        consumer.assign([TopicPartition(*SOURCE), TopicPartition(*CHANGELOG)])
        await producer.send_and_wait(CHANGELOG.topic, b"one", partition=CHANGELOG.partition)
        taken = await consumer.getmany(TopicPartition(*CHANGELOG), timeout_ms=10_000)

        consumer.assign([TopicPartition(*SOURCE)])
        with pytest.MonkeyPatch.context() as patch:

            async def fetched(*_: object) -> dict:
                return dict(taken)

            patch.setattr(ConsumerThread.__base__, "_fetch_records", fetched)
            assert await fetching._fetch_records(consumer, active, 0.0, 500) == {}


async def test_a_worker_fetches_by_it(tmp_path: Path) -> None:
    app = create_app(
        WorkerOptions(
            group="counting", instance="0", bootstrap="127.0.0.1:1", partitions=2, data_dir=tmp_path, store="memory://",
            web_host="127.0.0.1", web_port=1,
        )
    )  # fmt: skip
    assert isinstance(app.consumer._thread, ConsumerThread)
    app.consumer._thread.thread_loop.close()  # Faust makes a loop for a consumer thread that never runs here
