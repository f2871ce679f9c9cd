"""Outbox, publisher and consumer: on disk, and over a real (embedded) broker."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, UnknownTopicOrPartitionError
from aiokafka.partitioner import DefaultPartitioner
from sluice.events.v1 import gateway_pb2, moderation_pb2
from sluice_kit import context
from sluice_kit.broker import client_options, ensure_topics
from sluice_kit.consumer import ConsumedEvent, EventConsumer
from sluice_kit.errors import InvalidInput, ResourceExhausted, Unavailable
from sluice_kit.events import UndecodableEvent, all_topics, decode, encode, new_event_id, topic_of
from sluice_kit.outbox import Outbox
from sluice_kit.process import StartFailed
from sluice_kit.publisher import EMBEDDED_KEEP_SECONDS, EventPublisher
from sluice_kit.settings import MeshSettings

TOPIC = topic_of(gateway_pb2.RequestCompleted).name


def completed(request_id: str = "r-1") -> gateway_pb2.RequestCompleted:
    event = gateway_pb2.RequestCompleted(model="smollm2")
    event.metadata.request_id = request_id
    event.metadata.event_id = new_event_id()
    return event


def test_an_event_becomes_a_cloud_event_and_comes_back():
    event = completed()
    event.metadata.producer, event.metadata.tenant_id, event.metadata.producer_sequence = "sluice-gateway/0", "acme", 7
    record = encode(event)
    headers = dict(record.headers)
    assert (record.topic, record.key) == (TOPIC, b"r-1")
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_type"] == TOPIC.encode()
    assert headers["ce_id"] == event.metadata.event_id.encode()
    assert headers["ce_sequence"] == b"7"
    assert headers["content-type"] == b"application/protobuf"
    assert headers["ce_dataclassification"] == b"confidential"
    assert decode(record.topic, record.value, record.headers) == event


@pytest.mark.parametrize(
    ("topic", "value", "headers", "reason"),
    [
        ("nobody.knows.v1", b"", {}, "unknown_topic"),
        (TOPIC, None, {}, "no_value"),
        (TOPIC, b"\xff\xff\xff", {}, "malformed"),
        (TOPIC, b"", {}, "no_metadata"),
        (TOPIC, b"", {"ce_type": b"something.else"}, "wrong_type"),
        (TOPIC, b"{}", {"content-type": b"application/json"}, "wrong_type"),
    ],
)
def test_a_record_that_is_no_event_says_why(topic, value, headers, reason):
    with pytest.raises(UndecodableEvent) as caught:
        decode(topic, value, headers)
    assert caught.value.reason == reason


async def test_the_outbox_numbers_events_without_a_gap_and_remembers_after_a_restart(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0")
    await asyncio.gather(*(outbox.append([completed(f"r{i}")]) for i in range(50)))
    first_name = outbox.producer
    outbox.close()
    again = Outbox(tmp_path / "o.db", producer="sluice-test/0")
    await again.append([completed("last")])
    rows = await again.call(again.tables.pending, 1000)
    again.close()
    numbers = [decode(r.topic, r.value).metadata.producer_sequence for r in rows]
    assert numbers == list(range(1, 52))
    assert again.producer == first_name


async def test_a_full_outbox_refuses_and_uses_up_no_number(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0", max_rows=2)
    await outbox.append([completed("a"), completed("b")])
    with pytest.raises(ResourceExhausted) as caught:
        await outbox.append([completed("c")])
    assert caught.value.reason == "OUTBOX_FULL"
    rows = await outbox.call(outbox.tables.pending, 10)
    await outbox.call(outbox.tables.acknowledge, rows, False)
    await outbox.append([completed("c")])
    (row,) = await outbox.call(outbox.tables.pending, 10)
    outbox.close()
    assert decode(row.topic, row.value).metadata.producer_sequence == 3


async def test_an_event_that_cannot_be_encoded_fails_alone(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0")
    nameless = completed("x")
    nameless.metadata.event_id = ""
    results = await asyncio.gather(
        outbox.append([completed("a")]),
        outbox.append([nameless]),
        outbox.append([completed("b")]),
        return_exceptions=True,
    )
    rows = await outbox.call(outbox.tables.pending, 10)
    outbox.close()
    assert [isinstance(r, ValueError) for r in results] == [False, True, False]
    assert [decode(r.topic, r.value).metadata.producer_sequence for r in rows] == [1, 2]


async def test_a_second_process_cannot_open_an_outbox_in_use(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0")
    with pytest.raises(StartFailed, match="in use by another process"):
        Outbox(tmp_path / "o.db", producer="sluice-test/0")
    outbox.close()
    Outbox(tmp_path / "o.db", producer="sluice-test/0").close()


def test_an_outbox_that_cannot_be_opened_says_why(tmp_path):
    (tmp_path / "o.db").write_text("this is no database, and never was one" * 100)
    with pytest.raises(StartFailed, match="not a database"):
        Outbox(tmp_path / "o.db", producer="sluice-test/0")
    with pytest.raises(StartFailed, match="set SLUICE_HOME"):
        Outbox(tmp_path / "o.db" / "below", producer="sluice-test/0")


async def test_the_outbox_is_bounded_in_bytes_and_an_event_in_size(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0", max_bytes=2_000)
    big = gateway_pb2.RequestCompleted(model="m" * 1_000)
    big.metadata.event_id = new_event_id()
    await outbox.append([big])
    with pytest.raises(ResourceExhausted):
        await outbox.append([big])
    big.model = "m" * 1_100_000
    with pytest.raises(InvalidInput) as caught:
        await outbox.append([big])
    assert caught.value.reason == "EVENT_TOO_LARGE"
    await outbox.call(outbox.tables.acknowledge, await outbox.call(outbox.tables.pending, 10), True)
    assert outbox.depth == 0
    assert await outbox.call(outbox.tables.reopen_acknowledged) == 1
    with pytest.raises(ResourceExhausted):
        await outbox.append([completed("x" * 1_000)])
    outbox.close()


class FakeProducer:
    """Kafka as the relay sees it: takes all but what it is told not to."""

    def __init__(self) -> None:
        self.absent: set[str] = set()
        self.too_large: set[str] = set()
        self.fails_once: set[str] = set()
        self.arrived: list[gateway_pb2.RequestCompleted] = []

    async def start(self) -> None:
        """Always there."""

    async def stop(self) -> None:
        """Never away."""

    async def partitions_for(self, topic: str) -> set[int]:
        if topic in self.absent:
            raise UnknownTopicOrPartitionError(topic)
        return {0}

    async def send(self, topic: str, *, key: bytes, value: bytes, headers: list) -> asyncio.Future:
        if key.decode() in self.too_large:
            raise MessageSizeTooLargeError
        outcome = asyncio.get_running_loop().create_future()
        if key.decode() in self.fails_once:
            self.fails_once.remove(key.decode())
            outcome.set_exception(KafkaTimeoutError())
        else:
            self.arrived.append(decode(topic, value, headers))
            outcome.set_result(None)
        return outcome


class FakeKafkaPublisher(EventPublisher):
    def __init__(self, kafka: FakeProducer, home: Path) -> None:
        super().__init__(producer="sluice-test/0", settings=MeshSettings(home=home))
        self._kafka = kafka

    def _new_producer(self) -> FakeProducer:
        return self._kafka


@pytest.fixture
async def relayed(tmp_path):
    kafka = FakeProducer()
    publisher = FakeKafkaPublisher(kafka, tmp_path)
    await publisher.start()
    yield publisher, kafka
    await publisher.stop()


async def test_an_event_kafka_never_takes_does_not_hold_up_the_others(relayed):
    publisher, kafka = relayed
    kafka.too_large = {"b"}
    await publisher.publish(completed("a"), completed("b"), completed("c"))
    await until(lambda: publisher.depth == 0 and len(kafka.arrived) == 3)
    # The third tells of the number that will not come.
    *facts, loss = kafka.arrived
    assert [e.metadata.request_id for e in facts] == ["a", "c"]
    assert (loss.lost_topic, loss.first_sequence, loss.last_sequence) == (TOPIC, 2, 2)


async def test_a_missing_topic_does_not_hold_up_the_others(relayed):
    publisher, kafka = relayed
    kafka.absent = {TOPIC}
    fact = moderation_pb2.ContentModerated()
    fact.metadata.request_id = "m"
    await publisher.publish(completed("a"), fact)
    await until(lambda: kafka.arrived)
    assert publisher.depth == 1
    kafka.absent = set()
    await until(lambda: publisher.depth == 0)
    assert [e.metadata.request_id for e in kafka.arrived] == ["m", "a"]


async def test_what_follows_a_failed_event_is_sent_again_behind_it(relayed):
    publisher, kafka = relayed
    kafka.fails_once = {"b"}
    await publisher.publish(completed("a"), completed("b"), completed("c"))
    await until(lambda: publisher.depth == 0)
    assert [e.metadata.request_id for e in kafka.arrived] == ["a", "c", "b", "c"]


KILLED = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from sluice.events.v1 import gateway_pb2
    from sluice_kit.events import new_event_id
    from sluice_kit.outbox import Outbox

    async def main():
        outbox = Outbox(Path(sys.argv[1]), producer="sluice-test/0")
        for number in range(100_000):
            event = gateway_pb2.RequestCompleted()
            event.metadata.event_id, event.metadata.request_id = new_event_id(), str(number)
            await outbox.append([event])
            print(number, flush=True)

    asyncio.run(main())
""")


async def test_what_was_published_survives_kill_9(tmp_path):
    path = tmp_path / "o.db"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    told = [int(child.stdout.readline()) for _ in range(300)]
    child.send_signal(signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().split("\n")[:-1] if line]
    child.wait(timeout=10)
    child.stdout.close()
    outbox = Outbox(path, producer="sluice-test/0")
    rows = await outbox.call(outbox.tables.pending, 1_000_000)
    outbox.close()
    stored = [decode(r.topic, r.value).metadata for r in rows]
    assert {m.request_id for m in stored} >= {str(n) for n in told}
    assert [m.producer_sequence for m in stored] == list(range(1, len(stored) + 1))


# --- over a broker ---


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    """noida-db on a free port, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = shutil.which("noida-db") or str(Path(sys.executable).parent / "noida-db")
        self.process = subprocess.Popen(
            [command, "start", "--only", "kafka", "--kafka-port", str(self.port), "--data-dir", str(self.folder)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the embedded broker did not start")

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def settings(self, home: Path, **values: object) -> MeshSettings:
        return MeshSettings(home=home, kafka_bootstrap=f"127.0.0.1:{self.port}", kafka_embedded=True, **values)


@pytest.fixture
def broker(tmp_path):
    made = Broker(tmp_path / "broker")
    made.start()
    yield made
    made.kill()


async def until(condition, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


class Collector:
    """A handler that remembers, and fails when it is told to."""

    def __init__(self) -> None:
        self.seen: list[ConsumedEvent] = []
        self.away_for = 0
        self.poison: set[str] = set()
        self.calls = 0

    async def __call__(self, events) -> None:
        self.calls += 1
        if self.away_for > 0:
            self.away_for -= 1
            raise Unavailable("the database is away")
        if any(e.message.metadata.request_id in self.poison for e in events):
            raise ValueError("cannot handle this")
        self.seen += events

    @property
    def request_ids(self) -> set[str]:
        return {e.message.metadata.request_id for e in self.seen}


class Running:
    """A consumer in a task."""

    def __init__(self, settings: MeshSettings, handle: Collector, **options: object) -> None:
        self.stop = asyncio.Event()
        self.consumer = EventConsumer(
            service="test",
            group="test",
            events=[gateway_pb2.RequestCompleted],
            handle=handle,
            settings=settings,
            **options,
        )

    async def __aenter__(self) -> "Running":
        self.task = asyncio.create_task(self.consumer.run(self.stop))
        await asyncio.wait_for(self.consumer.ready.wait(), 30)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, 30)


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


async def test_nothing_is_handled_before_the_store_has_said_where_to_start(broker, tmp_path):
    settings, collector = broker.settings(tmp_path), Collector()
    await ensure_topics(settings)
    publisher = EventPublisher(producer="sluice-test/0", settings=settings)
    await publisher.start()
    await publisher.publish(*(completed(f"r{n}") for n in range(20)))
    await until(lambda: publisher.depth == 0)
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
    await publisher.stop()
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
