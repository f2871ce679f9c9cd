"""What a rebalance overtakes is fetched again, and what a seek overtakes is left out: on real logs."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
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
        put_back, seek = [], consumer.seek
        consumer.seek = lambda place, offset: (put_back.append(place), seek(place, offset))
        waiting = asyncio.create_task(fetching._fetch_records(consumer, active, 20.0, 500))
        await asyncio.sleep(0.3)
        active.clear()  # a rebalance pauses all partitions, in place
        for value in (b"one", b"two"):
            await producer.send_and_wait(CHANGELOG.topic, value, partition=CHANGELOG.partition)
        assert await waiting == {}
        assert put_back == [CHANGELOG], "it was taken out"
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


async def test_a_seek_of_the_worker_s_thread_waits_until_the_consumer_s_has_taken_records_out(client: dict) -> None:
    """In the middle of it aiokafka raises KeyError, or forgets the seek; taken out before it, they are overtaken."""
    fetching, taking = thread(), threading.Event()
    fetching.thread_loop = asyncio.new_event_loop()
    consumers = threading.Thread(target=fetching.thread_loop.run_forever)
    consumers.start()

    async def there(call: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call, fetching.thread_loop))

    async def begin() -> None:
        fetching._consumer = AIOKafkaConsumer(**client, auto_offset_reset="earliest")
        await fetching._consumer.start()
        fetching._consumer.assign([TopicPartition(*SOURCE)])

    def slowly(result: FetchResult, most: int | None = None) -> list:
        records = getall(result, most)
        taking.set()
        time.sleep(0.3)
        return records

    getall = FetchResult.getall
    try:
        async with AIOKafkaProducer(**client) as producer:
            for value in (b"one", b"two"):
                await producer.send_and_wait(SOURCE.topic, value, partition=SOURCE.partition)
        await there(begin())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FetchResult, "getall", slowly)
            taken = asyncio.create_task(there(fetching._fetch_records(fetching._consumer, {SOURCE}, 10.0, 500)))
            await asyncio.to_thread(taking.wait, 10.0)
            await fetching.seek_soon(SOURCE, 1)
        assert (await taken)[SOURCE][0].value == b"one"
        assert fetching.seeks.is_overtaken(SOURCE)
        again = await there(fetching._fetch_records(fetching._consumer, {SOURCE}, 10.0, 500))
        assert [record.value for record in again[SOURCE]] == [b"two"]
        assert not fetching.seeks.is_overtaken(SOURCE)
        assert (fetching.seeks.is_first(SOURCE), fetching.seeks.is_first(SOURCE)) == (True, False)
    finally:
        await there(fetching._consumer.stop())
        fetching.thread_loop.call_soon_threadsafe(fetching.thread_loop.stop)
        consumers.join(10)
        fetching.thread_loop.close()


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
