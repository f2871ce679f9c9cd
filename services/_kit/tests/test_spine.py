"""Publisher and consumer over the embedded broker: killed, away, poisoned, with a store of offsets of its own."""

import asyncio
import time

import pytest
from aiokafka.errors import KafkaTimeoutError
from aiokafka.partitioner import DefaultPartitioner
from sluice.events.v1 import gateway_pb2
from sluice_kit import context
from sluice_kit.broker import client_options, ensure_topics
from sluice_kit.errors import Unavailable
from sluice_kit.events import all_topics, decode, topic_of
from sluice_kit.outbox import Outbox
from sluice_kit.publisher import EMBEDDED_KEEP_SECONDS, EventPublisher
from sluice_kit.settings import MeshSettings
from spine_actors import TOPIC, Collector, Running, committed, completed, until
from spine_brokers import EmbeddedBroker, free_port


@pytest.fixture
def broker(tmp_path):
    made = EmbeddedBroker(tmp_path / "broker")
    made.start()
    yield made
    made.kill()


async def test_topics_are_created_once_as_the_protos_say(broker, tmp_path):
    settings = broker.settings(tmp_path)
    assert len(await ensure_topics(settings)) == len(all_topics())
    assert await ensure_topics(settings) == []


async def test_events_arrive_with_the_context_they_were_published_in(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    await ensure_topics(settings)
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    async with Running(settings, collector):
        with context.use(context.RequestContext("r-9", "acme", "web", "subject", f"00-{'a' * 32}-{'b' * 16}-01")):
            await publisher.publish(gateway_pb2.RequestCompleted(model="m"))
        await until(lambda: collector.seen)
    await publisher.stop()
    metadata = collector.seen[0].message.metadata
    assert (metadata.request_id, metadata.tenant_id, metadata.project_id, metadata.subject_id) == (
        "r-9",
        "acme",
        "web",
        "subject",
    )
    assert metadata.producer.startswith("sluice-test/0#")
    assert collector.seen[0].headers["traceparent"] == f"00-{'a' * 32}-{'b' * 16}-01".encode()


async def test_nothing_is_lost_when_the_broker_is_killed_and_comes_back(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    await ensure_topics(settings)
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    async with Running(settings, collector):
        for number in range(600):
            await publisher.publish(completed(f"r{number}"))
            if number == 200:
                await until(lambda: len(collector.request_ids) > 100)
                await asyncio.to_thread(broker.kill)
            if number == 400:
                await asyncio.to_thread(broker.start)
        await until(lambda: len(collector.request_ids) == 600, 60)
    await publisher.stop()
    assert publisher.depth == 0


async def test_what_the_embedded_broker_forgets_while_nobody_publishes_is_sent_again(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    await ensure_topics(settings)
    await asyncio.sleep(1.5)  # the broker writes its topics to disk
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(completed("forgotten"))
    await until(lambda: publisher.depth == 0)
    await asyncio.to_thread(broker.kill)
    await asyncio.sleep(EMBEDDED_KEEP_SECONDS + 1.5)  # longer than rows are kept while the broker lives
    await asyncio.to_thread(broker.start)
    async with Running(settings, collector):
        await until(lambda: collector.request_ids == {"forgotten"})
    await publisher.stop()


async def test_events_wait_on_disk_for_a_broker_that_never_came(tmp_path):
    settings = MeshSettings(home=tmp_path, kafka_bootstrap=f"127.0.0.1:{free_port()}")
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(completed("a"))
    await publisher.stop()
    outbox = Outbox(tmp_path / "outbox" / "sluice-test-0.db", producer="sluice-test/0")
    assert outbox.depth == 1
    outbox.close()


async def read_dead_letters(settings: MeshSettings, count: int) -> list:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(f"{TOPIC}.dlq", **client_options(settings), auto_offset_reset="earliest")
    await consumer.start()
    found = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found += [r for batch in (await consumer.getmany(timeout_ms=200)).values() for r in batch]
    await consumer.stop()
    return found


async def test_poison_goes_to_the_dead_letter_topic_and_the_rest_goes_on(broker, tmp_path):
    from aiokafka import AIOKafkaProducer

    settings, collector = broker.settings(tmp_path), Collector()
    collector.poison = {"bad"}
    await ensure_topics(settings)
    producer = AIOKafkaProducer(**client_options(settings))
    await producer.start()
    await producer.send_and_wait(TOPIC, key=b"k", value=b"\xff\xff\xff")
    await producer.stop()
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(completed("good"), completed("bad"), completed("fine"))
    async with Running(settings, collector):
        await until(lambda: collector.request_ids == {"good", "fine"})
        letters = await read_dead_letters(settings, 2)
    await publisher.stop()
    reasons = sorted(dict(r.headers)["sluice_error_reason"].decode() for r in letters)
    assert reasons == ["handler_failed:ValueError", "malformed"]


async def test_a_handler_whose_store_is_away_is_tried_again_until_it_is_back(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    collector.away_for = 7
    await ensure_topics(settings)
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(completed("a"))
    async with Running(settings, collector):
        await until(lambda: collector.request_ids == {"a"}, 60)
    await publisher.stop()
    assert collector.calls >= 8


async def test_a_restarted_consumer_goes_on_where_it_stopped(broker, tmp_path):
    settings, first, second = broker.settings(tmp_path), Collector(), Collector()
    await ensure_topics(settings)
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(completed("a"))
    async with Running(settings, first):
        await until(lambda: first.request_ids == {"a"})
    await publisher.publish(completed("b"))
    async with Running(settings, second):
        await until(lambda: second.request_ids >= {"b"})
    await publisher.stop()
    assert second.request_ids == {"b"}


async def test_a_store_that_keeps_its_own_offsets_is_read_from_there(broker, tmp_path):
    settings, first, second = broker.settings(tmp_path), Collector(), Collector()
    await ensure_topics(settings)
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(*(completed(f"r{n}") for n in range(20)))
    async with Running(settings, first):
        await until(lambda: len(first.request_ids) == 20)

    async def from_the_beginning(assigned):
        return dict.fromkeys(assigned, 0)

    async with Running(settings, second, starting_offsets=from_the_beginning):
        await until(lambda: len(second.request_ids) == 20)
    await publisher.stop()


async def sent(settings, count):
    """The requests r0..r<count>, on their topic."""
    await ensure_topics(settings)
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(*(completed(f"r{n}") for n in range(count)))
    await until(lambda: publisher.depth == 0)
    await publisher.stop()


async def test_the_broker_is_told_where_a_store_goes_on_though_nothing_comes(broker, tmp_path):
    """Killed between its store and its commit a group would stand still, for all who look at it, until the next event."""
    settings, collector = broker.settings(tmp_path), Collector()
    await sent(settings, 20)
    counts = {partition: count for partition, count in per_partition(20).items() if count}

    async def at_the_end(assigned):
        return {each: counts.get(each.partition, 0) for each in assigned}

    async with Running(settings, collector, starting_offsets=at_the_end):
        deadline = time.monotonic() + 30
        while (told := await committed(settings, "test")) != counts and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
    assert told == counts
    assert not collector.seen


async def test_nothing_is_handled_before_the_store_has_said_where_to_start(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    await sent(settings, 20)
    asked = 0

    async def away_at_first(assigned):
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.3)  # long enough for records to be fetched meanwhile
        assert not collector.seen
        if asked < 3:
            raise Unavailable("the database is away")
        return dict.fromkeys(assigned, 2)

    async with Running(settings, collector, starting_offsets=away_at_first):
        await until(lambda: collector.seen)
        await until(lambda: len(collector.seen) == sum(max(0, n - 2) for n in per_partition(20).values()))
    assert asked == 3
    assert min(e.offset for e in collector.seen) == 2


def per_partition(count: int) -> dict[int, int]:
    """How many of the requests r0..r<count> stand in each partition."""
    partitions = set(range(topic_of(gateway_pb2.RequestCompleted).partitions))
    chosen = [DefaultPartitioner()(f"r{n}".encode(), sorted(partitions), sorted(partitions)) for n in range(count)]
    return {partition: chosen.count(partition) for partition in partitions}


async def test_a_consumer_stops_at_once_though_its_store_is_away(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    collector.away_for = 1_000_000
    await ensure_topics(settings)
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(completed("a"))
    async with Running(settings, collector):
        await until(lambda: collector.calls > 2)
        begun = time.monotonic()
    assert time.monotonic() - begun < 8
    collector.away_for = 0
    async with Running(settings, collector):
        await until(lambda: collector.request_ids == {"a"})
    await publisher.stop()


async def test_a_batch_of_nothing_but_poison_is_done_with_in_time(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    collector.poison = {f"r{n}" for n in range(60)}
    await ensure_topics(settings)
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(*(completed(f"r{n}") for n in range(60)), completed("good"))
    async with Running(settings, collector):
        await until(lambda: collector.request_ids == {"good"})
        letters = await read_dead_letters(settings, 60)
    await publisher.stop()
    found = {decode(TOPIC, r.value).metadata.request_id for r in letters}
    assert found == collector.poison
    assert dict(letters[0].headers)["sluice_source_topic"] == TOPIC.encode()


async def test_what_is_in_hand_ends_before_its_events_are_taken_by_a_new_connection(broker, tmp_path):
    settings = broker.settings(tmp_path)
    await ensure_topics(settings)
    gate, running, most, ended = asyncio.Event(), 0, 0, []

    async def handle(event):
        nonlocal running, most
        if event.message.metadata.request_id != "slow":
            raise ValueError("no")
        running += 1
        most = max(most, running)
        try:
            await gate.wait()
            ended.append(event.message.metadata.producer_sequence)
        finally:
            running -= 1

    async with Running(settings, Collector(), handle_each=handle) as consuming:
        trials, lost = consuming.consumer._trials, 0
        bury = trials.bury

        async def lose_the_connection_twice(record, failure):
            nonlocal lost
            if lost < 2:
                lost += 1
                raise KafkaTimeoutError
            gate.set()
            await bury(record, failure)

        trials.bury = lose_the_connection_twice
        publisher = EventPublisher(producer="sluice-test/0", settings=settings)
        await publisher.start()
        await publisher.publish(completed("slow"), completed("slow"), completed("poison"))
        await until(lambda: len(set(ended)) == 2)
        await publisher.stop()
    assert (lost, most) == (2, 1)
    assert ended == sorted(ended)
