"""What a rebalance overtakes is fetched again, and what a seek overtakes is left out: on real logs."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from faust.types import TP
from sluice_kit.broker import client_options, ensure_topics
from sluice_kit.streams.fetching import ConsumerThread, Seeks
from sluice_kit.streams.options import WorkerOptions
from sluice_kit.streams.worker import create_app
from spine_actors import TOPIC
from spine_brokers import free_port, new_broker

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
    made.seeks = Seeks()
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


async def test_a_seek_that_comes_while_records_are_taken_out_is_neither_undone_nor_overtaken(client: dict) -> None:
    """The worker's thread seeks while the consumer's has the records in hand: as fetched, they would be of after the seek."""
    fetching = thread()
    async with (
        AIOKafkaProducer(**client) as producer,
        AIOKafkaConsumer(**client, auto_offset_reset="earliest") as consumer,
    ):
        fetching._consumer = consumer
        places = [SOURCE, CHANGELOG]
        consumer.assign([TopicPartition(*place) for place in places])
        for place in places:
            for value in (b"one", b"two"):
                await producer.send_and_wait(place.topic, value, partition=place.partition)
        taken: dict = {}
        while len(taken) < 2:
            taken |= await consumer.getmany(timeout_ms=10_000)
        for place in places:
            fetching.seek(place, 0)
        with pytest.MonkeyPatch.context() as patch:

            async def fetched(*_: object) -> dict:
                return dict(taken)

            patch.setattr(ConsumerThread.__base__, "_fetch_records", fetched)
            assert await fetching._fetch_records(consumer, {SOURCE}, 0.0, 500) == {}
        assert all(fetching.seeks.is_overtaken(place) for place in places)
        assert [await consumer.position(TopicPartition(*place)) for place in places] == [0, 0]
        found = await fetching._fetch_records(consumer, {SOURCE}, 10.0, 500)
        assert [record.value for record in found[SOURCE]] == [b"one", b"two"]
    assert not fetching.seeks.is_overtaken(SOURCE)
    assert (fetching.seeks.is_first(SOURCE), fetching.seeks.is_first(SOURCE)) == (True, False)


SEEKS = """
import json, os, sys
from pathlib import Path
from faust.types import TP
from sluice_kit import broker
from sluice_kit.settings import MeshSettings
from sluice_kit.streams import worker
from sluice_kit.streams.options import WorkerOptions

bootstrap, home, topic, is_embedded, port = sys.argv[1:]
broker.install_empty_fetch_guard(MeshSettings(kafka_bootstrap=bootstrap, kafka_embedded=is_embedded == "True"))
app = worker.create_app(WorkerOptions(
    group="seeking", instance="0", bootstrap=bootstrap, partitions=4, data_dir=Path(home), store="memory://",
    web_host="127.0.0.1", web_port=int(port)))
seen = []

@app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw", value_type=bytes, internal=False))
async def reads(stream):
    async for event in stream.events():
        seen.append(event.message.offset)
        if len(seen) == 1_000:
            await app.consumer.seek(TP(topic, 0), 500)
        if 500 in seen[1_000:] and seen[-1] == 3_000:
            print(json.dumps(seen), flush=True)
            os._exit(0)

worker.run(app)
"""


@pytest.mark.parametrize("kind", ["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
async def test_a_worker_that_is_sent_back_in_the_middle_of_a_backlog_reads_from_there(
    kind: str, tmp_path: Path
) -> None:
    broker = new_broker(kind, tmp_path / "broker")
    await asyncio.to_thread(broker.start)
    try:
        settings = broker.settings(tmp_path)
        await ensure_topics(settings)
        async with AIOKafkaProducer(**client_options(settings)) as producer:
            for _ in range(10_000):
                await producer.send(TOPIC, b"x" * 50, partition=0)
        told = (settings.kafka_bootstrap, tmp_path / "home", TOPIC, kind == "embedded", free_port())
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", SEEKS, *map(str, told)], capture_output=True, text=True, timeout=90,
            check=False, env=os.environ | {"SLUICE_HOME": str(tmp_path)},
        )  # fmt: skip
    finally:
        broker.kill()
    assert done.returncode == 0, done.stderr[-2_000:]
    seen = json.loads(done.stdout)
    again = seen.index(500, 1_000)
    assert seen[:1_000] == list(range(1_000))
    assert seen[again:] == list(range(500, 3_001)), "from there on in the order of the log, and nothing left out"
    assert again < 1_000 + 4_200, "what Faust's queue held, and not all that had been fetched"


async def test_a_worker_fetches_by_it(tmp_path: Path) -> None:
    app = create_app(
        WorkerOptions(
            group="counting", instance="0", bootstrap="127.0.0.1:1", partitions=2, data_dir=tmp_path, store="memory://",
            web_host="127.0.0.1", web_port=1,
        )
    )  # fmt: skip
    assert isinstance(app.consumer._thread, ConsumerThread)
    app.consumer._thread.thread_loop.close()  # Faust makes a loop for a consumer thread that never runs here
