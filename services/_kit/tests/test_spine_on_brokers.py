"""The spine on both brokers: what is said of publisher, consumer and topics holds on the embedded one and on Apache Kafka.

What the embedded broker cannot do is asked of Apache Kafka alone, and stands in the kit's README.
"""

import asyncio
import contextlib
import functools
import random
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from sluice.events.v1 import gateway_pb2
from sluice_kit import context
from sluice_kit.broker import EMBEDDED_RETENTION_MS, client_options, ensure_topics
from sluice_kit.dead_letters import read_dead_letter
from sluice_kit.events import decode, event_topics, new_event_id
from sluice_kit.publisher import EventPublisher
from spine_actors import PARTITIONS, TOPIC, Collector, committed, completed, read_topic
from spine_actors import Running as RunningConsumer
from spine_actors import until as until_by
from spine_brokers import Broker, new_broker

LZ4 = 3
# A real broker started on a machine that builds beside it; the spine's other tests wait half as long.
until = functools.partial(until_by, seconds=60.0)
Running = functools.partial(RunningConsumer, patience=60.0)


@pytest.fixture(scope="module")
def apache_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One for the file: it takes seconds to start, and keeps what it has through kill -9."""
    made = new_broker("apache", tmp_path_factory.mktemp("apache"))
    yield made
    if made.process is not None:
        made.kill()


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
async def broker(request: pytest.FixtureRequest, tmp_path: Path):
    """A running broker with the mesh's topics."""
    apache = request.param == "apache"
    made = request.getfixturevalue("apache_broker") if apache else new_broker("embedded", tmp_path / "broker")
    await serving(made, tmp_path)
    if made.embedded:
        await asyncio.sleep(1.5)  # it writes its topics to disk, a killing would lose them
    yield made
    if made.embedded:
        made.kill()


async def serving(broker: Broker, home: Path) -> None:
    """Start it unless it runs and answers: a test that failed may have left it half stopped."""
    if broker.running():
        try:
            return await asyncio.wait_for(ensure_topics(broker.settings(home)), 30)
        except Exception:
            await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(broker.start)
    await ensure_topics(broker.settings(home))


@contextlib.contextmanager
def frozen(broker: Broker) -> Iterator[None]:
    """It answers nobody in here, and does again whatever becomes of the test."""
    broker.freeze()
    try:
        yield
    finally:
        broker.thaw()


@contextlib.asynccontextmanager
async def publishing(settings, producer="sluice-test/0"):
    publisher = EventPublisher(producer=producer, settings=settings)
    await publisher.start()
    try:
        yield publisher
    finally:
        await publisher.stop()


def names(prefix: str, count: int) -> list[str]:
    """Request ids that no other test has used: Apache Kafka keeps what earlier tests published."""
    run = new_event_id()[-6:]
    return [f"{prefix}-{run}-{number}" for number in range(count)]


def mine(collector: Collector, ids) -> list:
    wanted = set(ids)
    return [e for e in collector.seen if e.message.metadata.request_id in wanted]


async def test_what_is_published_arrives_once_numbered_and_each_key_in_its_order(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    keys = names("order", 40)
    async with publishing(settings) as publisher, Running(settings, collector, group=keys[0]):
        with context.use(context.RequestContext("", "acme", "web", "subject", f"00-{'a' * 32}-{'b' * 16}-01")):
            for _ in range(25):
                await asyncio.gather(*(publisher.publish(completed(key)) for key in keys))
        await until(lambda: len(mine(collector, keys)) == 1000)
        await until(lambda: publisher.depth == 0)
    seen = mine(collector, keys)
    metadata = [e.message.metadata for e in seen]
    assert sorted(m.producer_sequence for m in metadata) == list(range(1, 1001))
    assert len({m.event_id for m in metadata}) == 1000
    assert {m.tenant_id for m in metadata} == {"acme"}
    assert seen[0].headers["traceparent"] == f"00-{'a' * 32}-{'b' * 16}-01".encode()
    for partition in range(PARTITIONS):
        numbers = [e.message.metadata.producer_sequence for e in seen if e.partition == partition]
        assert numbers == sorted(numbers)


async def test_an_idle_broker_is_left_alone_and_a_consumer_handles_many_keys_at_once(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    keys = names("keyed", 30)
    async with publishing(settings) as publisher:
        for _ in range(10):
            await publisher.publish(*(completed(key) for key in keys))
        async with Running(settings, collector, group=keys[0], handle_each=collector.each, concurrency=8):
            await until(lambda: len(mine(collector, keys)) == 300)
    for key in keys:
        numbers = [e.message.metadata.producer_sequence for e in mine(collector, [key])]
        assert numbers == sorted(numbers)
    # What was handled is committed when the consumer stops.
    ends = {e.partition: e.offset + 1 for e in sorted(collector.seen, key=lambda e: e.offset)}
    assert await committed(settings, keys[0]) == ends


@pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)
async def test_apache_gets_idempotent_lz4_batches(broker, tmp_path):
    settings = broker.settings(tmp_path)
    async with publishing(settings, "sluice-batches/0") as publisher:
        await publisher.publish(*(completed(name) for name in names("lz4", 400)))
        await until(lambda: publisher.depth == 0)
    await asyncio.to_thread(broker.stop)
    await asyncio.to_thread(broker.start)
    segments = [
        s for s in broker.data.glob(f"{TOPIC}-*/*.log") if b"sluice-batches" in s.read_bytes() or s.stat().st_size
    ]
    batches = [batch for segment in segments for batch in record_batches(segment.read_bytes())]
    assert max(count for count, _, _ in batches) > 20
    # Compressed where it pays; every batch has the id of an idempotent producer.
    assert {codec for count, codec, _ in batches if count > 20} == {LZ4}
    assert all(producer_id >= 0 for _, _, producer_id in batches)


def record_batches(log: bytes) -> list[tuple[int, int, int]]:
    """Number of records, compression codec and producer id of each batch of a Kafka segment (message format 2)."""
    batches, at = [], 0
    while at + 61 <= len(log):
        (length,) = struct.unpack_from(">i", log, at + 8)
        if length <= 0:
            break
        attributes, _, _, _, producer_id, _, _, count = struct.unpack_from(">hiqqqhii", log, at + 21)
        batches.append((count, attributes & 7, producer_id))
        at += 12 + length
    return batches


async def test_a_frozen_broker_holds_up_nobody_and_gets_everything_when_it_thaws(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    ids = names("frozen", 300)
    async with publishing(settings) as publisher, Running(settings, collector, group=ids[0]):
        await publisher.publish(completed(ids[0]))
        await until(lambda: mine(collector, ids))
        # A consumer may have the first event before the publisher has the broker's word for it.
        await until(lambda: publisher.depth == 0)
        with frozen(broker):
            for request_id in ids[1:]:
                await publisher.publish(completed(request_id))
            # All were taken although the broker cannot have answered anybody since.
            assert publisher.depth == 299
        await until(lambda: collector.request_ids >= set(ids), seconds=120)
        await until(lambda: publisher.depth == 0)


async def test_a_restart_of_the_broker_loses_nothing(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    ids = names("restart", 300)
    async with publishing(settings) as publisher, Running(settings, collector, group=ids[0]):
        await publisher.publish(*(completed(i) for i in ids[:100]))
        await until(lambda: len(mine(collector, ids)) >= 100)
        await asyncio.to_thread(broker.stop)
        await publisher.publish(*(completed(i) for i in ids[100:200]))
        await asyncio.to_thread(broker.start)
        await publisher.publish(*(completed(i) for i in ids[200:]))
        await until(lambda: collector.request_ids >= set(ids), seconds=120)


async def test_kill_9_of_the_broker_under_load_loses_nothing(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    ids = names("killed", 1500)
    async with publishing(settings) as publisher, Running(settings, collector, group=ids[0]):
        for number, request_id in enumerate(ids):
            await publisher.publish(completed(request_id))
            if number in (400, 1000):
                await until(lambda number=number: len(collector.request_ids & set(ids)) > number // 2)
                await asyncio.to_thread(broker.kill)
                await asyncio.to_thread(broker.start)
        await until(lambda: collector.request_ids >= set(ids), seconds=120)
        await until(lambda: publisher.depth == 0)
    times = Counter(e.event_id for e in mine(collector, ids))
    assert len(times) == 1500  # consumers know the events that came again by their ids


async def test_three_members_join_and_one_comes_back_and_no_event_is_lost(broker, tmp_path):
    collectors = [Collector() for _ in range(3)]
    members = [broker.settings(tmp_path, instance=str(n)) for n in range(3)]
    ids, stop = names("group", 4000), asyncio.Event()

    async def keep_publishing(publisher):
        published = 0
        while not stop.is_set():
            await publisher.publish(*(completed(i) for i in ids[published : published + 20]))
            published += 20
            await asyncio.sleep(0.05)
        return published

    def seen_by_all():
        return set().union(*(c.request_ids for c in collectors))

    async with publishing(members[0]) as publisher:
        feeding = asyncio.create_task(keep_publishing(publisher))
        async with Running(members[0], collectors[0], group=ids[0]):
            await until(lambda: mine(collectors[0], ids))
            async with Running(members[1], collectors[1], group=ids[0]):
                await until(lambda: mine(collectors[1], ids))
                async with Running(members[2], collectors[2], group=ids[0]):
                    await until(lambda: mine(collectors[2], ids))
                # A member that leaves keeps its place (static membership): it comes back to the same partitions.
                back = Collector()
                async with Running(members[2], back, group=ids[0]):
                    await until(lambda: mine(back, ids))
                    collectors.append(back)
                    stop.set()
                    published = await feeding
                    await until(lambda: seen_by_all() >= set(ids[:published]))
    assert {e.partition for e in mine(back, ids)} <= {e.partition for e in mine(collectors[2], ids)}
    handled = Counter(e.event_id for c in collectors for e in mine(c, ids))
    twice = sum(times - 1 for times in handled.values())
    # Apache Kafka takes the commit of what was in hand while the group forms anew; the embedded broker refuses it.
    assert broker.embedded or twice == 0


@pytest.mark.parametrize("broker", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)
async def test_apache_gives_a_gone_members_partitions_to_the_others_and_leaves_theirs(broker, tmp_path):
    collectors = [Collector() for _ in range(3)]
    members = [broker.settings(tmp_path, instance=str(n)) for n in range(3)]
    ids = names("leave", 3000)

    def partitions(collector, among):
        return {e.partition for e in mine(collector, among)}

    async with publishing(members[0]) as publisher, contextlib.AsyncExitStack() as staying:
        for n in range(2):
            await staying.enter_async_context(Running(members[n], collectors[n], group=ids[0]))
        async with Running(members[2], collectors[2], group=ids[0]):
            await until(lambda: collectors[2] is not None)
            await publisher.publish(*(completed(i) for i in ids[:1000]))
            await until(lambda: sum(len(mine(c, ids[:1000])) for c in collectors) >= 1000)
        before = [partitions(c, ids[:1000]) for c in collectors]
        await publisher.publish(*(completed(i) for i in ids[1000:]))
        # Its session ends after 15 s.
        await until(lambda: collectors[0].request_ids | collectors[1].request_ids >= set(ids[1000:]), seconds=90)
        after = [partitions(c, ids[1000:]) for c in collectors]
    assert before[2]
    assert after[0] | after[1] == set(range(PARTITIONS))
    assert after[0] >= before[0]
    assert after[1] >= before[1]


async def test_poison_is_buried_with_all_it_takes_to_send_it_again(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    ids = names("poison", 30)
    collector.poison = set(ids[::7])
    raw = AIOKafkaProducer(**client_options(settings))
    await raw.start()
    await raw.send_and_wait(TOPIC, key=ids[0].encode(), value=b"\xff\xff\xff", headers=[("x", b"1"), ("x", b"2")])
    await raw.stop()
    async with publishing(settings) as publisher:
        await publisher.publish(*(completed(i) for i in ids))
        async with Running(settings, collector, group=ids[0]):
            await until(lambda: collector.request_ids >= set(ids) - collector.poison)
            records = await read_topic(settings, f"{TOPIC}.dlq", wanted=lambda r: len(of_group(r, ids[0])) >= 6)
    letters = of_group(records, ids[0])
    unreadable = [letter for letter in letters if letter.reason == "malformed"]
    failed = [letter for letter in letters if letter.reason == "handler_failed:ValueError"]
    assert [letter.original.headers for letter in unreadable] == [[("x", b"1"), ("x", b"2")]]
    assert {decode(TOPIC, letter.original.value).metadata.request_id for letter in failed} == collector.poison
    assert {letter.attempts for letter in failed} == {8}
    # Sent again as it was, to where it was, it is handled.
    collector.poison = set()
    again = AIOKafkaProducer(**client_options(settings))
    await again.start()
    for letter in failed:
        o = letter.original
        await again.send_and_wait(o.topic, key=o.key, value=o.value, headers=o.headers)
    await again.stop()
    async with Running(settings, collector, group=ids[0]):
        await until(lambda: collector.request_ids >= set(ids))


async def test_poison_that_fits_no_letter_is_buried_without_its_value_and_stops_nothing(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    ids = names("huge", 1)
    poison = random.Random(7).randbytes(1_048_350)  # as large as the topic takes, and beyond compressing
    raw = AIOKafkaProducer(**client_options(settings), max_request_size=2_000_000)
    await raw.start()
    sent = await raw.send_and_wait(TOPIC, key=b"huge", value=poison, headers=[("ce_id", b"e-1"), ("big", b"h" * 50)])
    await raw.stop()
    async with publishing(settings) as publisher, Running(settings, collector, group=ids[0]):
        await publisher.publish(completed(ids[0]))
        await until(lambda: collector.request_ids >= set(ids))
        records = await read_topic(settings, f"{TOPIC}.dlq", wanted=lambda r: huge_of(r, ids[0], sent))
    (letter,) = huge_of(records, ids[0], sent)
    assert letter.value_omitted
    assert letter.original.headers == [("ce_id", b"e-1")]
    # The record itself still stands where the letter says.
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False, max_partition_fetch_bytes=4 << 20)
    await consumer.start()
    place = TopicPartition(letter.source_topic, letter.source_partition)
    consumer.assign([place])
    consumer.seek(place, letter.source_offset)
    async with asyncio.timeout(30):
        found = await consumer.getone()
    await consumer.stop()
    assert found.value == poison


def huge_of(records, group: str, sent) -> list:
    place = (sent.partition, sent.offset)
    return [x for x in of_group(records, group) if (x.source_partition, x.source_offset) == place]


def of_group(records, group: str) -> list:
    return [letter for letter in map(read_dead_letter, records) if letter.group == group]


async def test_topics_have_the_retention_and_compaction_their_protos_declare(broker, tmp_path):
    admin = AIOKafkaAdminClient(**client_options(broker.settings(tmp_path)))
    await admin.start()
    specs = {spec.name: spec for spec in event_topics()}
    described = {}
    for name in specs:
        (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        described[name] = {entry[0]: entry[1] for entry in response.resources[0][4]}
    await admin.close()
    for name, spec in specs.items():
        told = described[name]
        assert set(told["cleanup.policy"].split(",")) == set(spec.cleanup_policy.split(","))
        retention = min(EMBEDDED_RETENTION_MS, spec.retention_ms) if broker.embedded else spec.retention_ms
        assert int(told["retention.ms"]) == retention
        if spec.compacted:
            assert told["segment.ms"] == "3600000"


async def test_offsets_are_found_by_time(broker, tmp_path):
    settings = broker.settings(tmp_path)
    raw = AIOKafkaProducer(**client_options(settings))
    consumer = AIOKafkaConsumer(**client_options(settings), enable_auto_commit=False)
    await raw.start()
    await consumer.start()
    event = gateway_pb2.RequestCompleted()
    event.metadata.event_id = new_event_id()
    first = await raw.send_and_wait(TOPIC, value=event.SerializeToString(), partition=0)
    base = first.timestamp + 1_000
    sent = [
        await raw.send_and_wait(TOPIC, value=event.SerializeToString(), partition=0, timestamp_ms=base + n * 1_000)
        for n in range(10)
    ]
    place = TopicPartition(TOPIC, 0)
    found = (await consumer.offsets_for_times({place: base + 4_500}))[place]
    after = (await consumer.offsets_for_times({place: base + 10_000}))[place]
    await raw.stop()
    await consumer.stop()
    assert (found.offset, found.timestamp) == (sent[5].offset, base + 5_000)
    assert after is None
