"""The outbox under kill -9, a full disk and a full queue: nothing acknowledged is lost, and no hole is silent."""

import asyncio
import errno
import random
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from pydantic import ValidationError
from sluice.events.v1 import gateway_pb2, mesh_pb2, moderation_pb2
from sluice_kit.errors import ResourceExhausted, Unavailable
from sluice_kit.events import decode, topic_of
from sluice_kit.outbox import FLUSH_FAILURES, LOST, Outbox
from sluice_kit.outbox_tables import MAX_REFUSED_ROWS
from sluice_kit.publisher import EventPublisher
from sluice_kit.settings import MeshSettings
from spine_actors import TOPIC, completed, until
from spine_brokers import EmbeddedBroker, free_port

SEED = 20261126
ROUNDS = 12

APPENDS_AT_RANDOM = textwrap.dedent("""
    import asyncio, random, sys
    from pathlib import Path
    from sluice.events.v1 import gateway_pb2
    from sluice_kit.events import new_event_id
    from sluice_kit.outbox import Outbox

    async def main():
        path, fsync, seed, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
        outbox, chance, number = Outbox(path, producer="sluice-test/0", fsync=fsync), random.Random(seed), first

        async def append(numbers):
            events = []
            for n in numbers:
                event = gateway_pb2.RequestCompleted(model="m" * chance.randint(0, 3000))
                event.metadata.event_id, event.metadata.request_id = new_event_id(), str(n)
                events.append(event)
            await outbox.append(events)
            print(*numbers, flush=True)

        async def acknowledge_some():
            while True:
                rows = await outbox.call(outbox.tables.pending, chance.randint(1, 30))
                await outbox.call(outbox.tables.acknowledge, rows[: chance.randint(0, 3)], True)
                await asyncio.sleep(0)

        asyncio.create_task(acknowledge_some())
        while True:
            batches = []
            for _ in range(chance.randint(1, 20)):
                size = chance.randint(1, 3)
                batches.append(range(number, number + size))
                number += size
            await asyncio.gather(*map(append, batches))

    asyncio.run(main())
""")


async def test_what_was_acknowledged_survives_kill_9_at_any_moment_again_and_again(tmp_path):
    path, chance, acknowledged, next_number = tmp_path / "o.db", random.Random(SEED), set(), 0
    for number in range(ROUNDS):
        fsync = ("always", "interval", "os")[number % 3]
        child = subprocess.Popen(
            [sys.executable, "-c", APPENDS_AT_RANDOM, str(path), fsync, str(number), str(next_number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        told = [child.stdout.readline()]  # it appends by now
        time.sleep(chance.uniform(0, 0.15))
        child.kill()
        told += child.stdout.read().split("\n")[:-1]
        child.wait(timeout=10)
        child.stdout.close()
        acknowledged |= {int(n) for line in told for n in line.split()}
        next_number = max(acknowledged) + 1_000
    outbox = Outbox(path, producer="sluice-test/0")
    await outbox.call(outbox.tables.reopen_acknowledged)
    rows = await outbox.call(outbox.tables.pending, 1_000_000)
    outbox.close()
    stored = [decode(row.topic, row.value).metadata for row in rows]
    assert len(acknowledged) >= ROUNDS
    assert {int(m.request_id) for m in stored} >= acknowledged, f"seed {SEED}"
    assert [m.producer_sequence for m in stored] == list(range(1, len(stored) + 1))


async def test_an_append_is_flushed_as_the_policy_says(tmp_path):
    async def synchronous(fsync):
        outbox = Outbox(tmp_path / f"{fsync}.db", producer="sluice-test/0", fsync=fsync)
        seen = []
        flush, insert = outbox.tables.flush, outbox.tables.insert

        def watched_insert(events):
            insert(events)
            seen.append(outbox.tables.connection.execute("PRAGMA synchronous").fetchone()[0])

        outbox.tables.insert = watched_insert
        outbox.tables.flush = lambda: (flush(), seen.append("flushed"))
        await outbox.append([completed("a")])
        if fsync == "interval":
            await until(lambda: "flushed" in seen)
        outbox.close()
        return seen

    normal, full = 1, 2
    assert await synchronous("always") == [full]
    assert await synchronous("interval") == [normal, "flushed"]
    assert await synchronous("os") == [normal]


async def test_a_disk_that_does_not_flush_is_told_of_and_stops_nothing(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0", fsync="interval")
    flush, refusals = outbox.tables.flush, 2

    def refuse_twice():
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise OSError(errno.EIO, "the disk is broken")
        flush()

    outbox.tables.flush = refuse_twice
    before = FLUSH_FAILURES._value.get()
    await outbox.append([completed("a")])
    await until(lambda: FLUSH_FAILURES._value.get() == before + 1)
    async with asyncio.timeout(20):
        await outbox.append([completed("b")])
    await until(lambda: FLUSH_FAILURES._value.get() == before + 2)
    assert outbox.depth == 2
    outbox.close()
    again = Outbox(tmp_path / "o.db", producer="sluice-test/0")
    assert again.depth == 2
    again.close()


async def test_what_comes_after_the_end_is_refused_and_waits_for_nobody(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0")
    last = asyncio.create_task(outbox.append([completed("a")]))
    await asyncio.sleep(0)
    await asyncio.to_thread(outbox.close)
    await last
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable, match="closed"):
            await outbox.append([completed("b")])
        with pytest.raises(Unavailable, match="closed"):
            await outbox.call(outbox.tables.pending, 10)


class Kafka:
    """As the relay sees it: takes all but what is too large, once its gate is open."""

    def __init__(self) -> None:
        self.gate, self.too_large, self.arrived = asyncio.Event(), set(), []

    async def start(self) -> None:
        await self.gate.wait()

    async def stop(self) -> None:
        """Never away."""

    async def partitions_for(self, topic):
        return {0}

    async def send(self, topic, *, key, value, headers):
        if key.decode() in self.too_large:
            raise MessageSizeTooLargeError
        self.arrived.append(decode(topic, value, headers))
        outcome = asyncio.get_running_loop().create_future()
        outcome.set_result(None)
        return outcome


class KafkaPublisher(EventPublisher):
    def __init__(self, kafka, **settings) -> None:
        super().__init__(producer="sluice-test/0", settings=MeshSettings(**settings))
        self._kafka = kafka

    def _new_producer(self):
        return self._kafka


def losses(kafka) -> list[mesh_pb2.EventsLost]:
    return [e for e in kafka.arrived if isinstance(e, mesh_pb2.EventsLost)]


def numbers(kafka, kind) -> list[int]:
    return [e.metadata.producer_sequence for e in kafka.arrived if isinstance(e, kind)]


async def test_a_full_outbox_that_drops_goes_on_and_tells_of_every_number_that_will_not_come(tmp_path):
    kafka = Kafka()
    publisher = KafkaPublisher(kafka, home=tmp_path, outbox_max_rows=100, outbox_when_full="drop")
    counted = LOST.labels(TOPIC, "outbox_full")._value.get()
    await publisher.start()
    for number in range(130):
        await publisher.publish(completed(f"r{number}"))
        assert publisher.has_room
    await publisher.publish(moderation_pb2.ContentModerated(), completed("together"))
    assert publisher.depth == 100
    await publisher.stop()
    assert LOST.labels(TOPIC, "outbox_full")._value.get() == counted + 31

    # A restart forgets neither the numbers nor the loss.
    publisher = KafkaPublisher(kafka, home=tmp_path, outbox_max_rows=100, outbox_when_full="drop")
    await publisher.start()
    kafka.gate.set()
    await until(lambda: len(losses(kafka)) == 2)
    await publisher.publish(completed("after"))
    await until(lambda: publisher.depth == 0)
    await publisher.stop()
    told = {loss.lost_topic: (loss.first_sequence, loss.last_sequence, loss.count) for loss in losses(kafka)}
    assert told == {TOPIC: (101, 131, 31), topic_of(moderation_pb2.ContentModerated).name: (1, 1, 1)}
    assert {loss.reason for loss in losses(kafka)} == {mesh_pb2.EVENT_LOSS_REASON_OUTBOX_FULL}
    assert numbers(kafka, gateway_pb2.RequestCompleted) == [*range(1, 101), 132]
    assert numbers(kafka, mesh_pb2.EventsLost) == [1, 2]


async def test_a_caller_that_is_cancelled_while_its_event_is_dropped_leaves_a_counted_loss(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0", max_rows=1, when_full="drop")
    await outbox.append([completed("fills it")])
    counted, gate = LOST.labels(TOPIC, "outbox_full")._value.get(), threading.Event()
    held = asyncio.create_task(outbox.call(gate.wait))
    caller = asyncio.create_task(outbox.append([completed("too much")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait({caller})
    gate.set()
    await held
    await until(lambda: LOST.labels(TOPIC, "outbox_full")._value.get() == counted + 1)
    outbox.close()


async def test_a_full_outbox_that_refuses_uses_up_no_number_and_tells_of_no_loss(tmp_path):
    kafka = Kafka()
    publisher = KafkaPublisher(kafka, home=tmp_path, outbox_max_rows=100)
    await publisher.start()
    for number in range(90):
        assert publisher.has_room
        await publisher.publish(completed(f"r{number}"))
    assert not publisher.has_room  # the last tenth is for what has begun
    await publisher.publish(*(completed("end") for _ in range(10)))
    with pytest.raises(ResourceExhausted):
        await publisher.publish(completed("too much"))
    kafka.gate.set()
    await until(lambda: publisher.depth == 0)
    await publisher.publish(completed("after"))
    await until(lambda: publisher.depth == 0)
    await publisher.stop()
    assert numbers(kafka, gateway_pb2.RequestCompleted) == list(range(1, 102))
    assert losses(kafka) == []


@pytest.mark.parametrize(("when_full", "arrive", "told"), [("refuse", [1, 2], []), ("drop", [1, 5], [(2, 4)])])
async def test_a_disk_that_takes_nothing_refuses_or_drops_and_the_numbers_stay_true(tmp_path, when_full, arrive, told):
    kafka = Kafka()
    publisher = KafkaPublisher(kafka, home=tmp_path, outbox_when_full=when_full)
    outbox = publisher._outbox

    def pragma(text: str) -> int:
        return outbox.tables.connection.execute(f"PRAGMA {text}").fetchone()[0]

    await publisher.start()
    await publisher.publish(completed("before"))
    await outbox.call(pragma, f"max_page_count={await outbox.call(pragma, 'page_count')}")
    big = completed("big")
    big.model = "m" * 100_000
    for _ in range(3):
        if when_full == "refuse":
            with pytest.raises(Unavailable) as caught:
                await publisher.publish(big)
            assert caught.value.reason == "OUTBOX_UNAVAILABLE"
        else:
            await publisher.publish(big)
    await outbox.call(pragma, "max_page_count=100000")
    await publisher.publish(completed("after"))
    kafka.gate.set()
    await until(lambda: publisher.depth == 0 and not outbox.untold_losses)
    await publisher.stop()
    assert numbers(kafka, gateway_pb2.RequestCompleted) == arrive
    assert [(loss.first_sequence, loss.last_sequence) for loss in losses(kafka)] == told


async def test_what_the_broker_refuses_is_kept_aside_and_its_number_is_told_of(tmp_path):
    kafka = Kafka()
    kafka.gate.set()
    kafka.too_large = {"b", "c", "e"}
    publisher = KafkaPublisher(kafka, home=tmp_path)
    await publisher.start()
    await publisher.publish(*(completed(name) for name in "abcdef"))
    await until(lambda: publisher.depth == 0 and sum(loss.count for loss in losses(kafka)) == 3)
    aside = await publisher._outbox.call(
        lambda: publisher._outbox.tables.connection.execute("SELECT reason FROM refused").fetchall()
    )
    await publisher.stop()
    assert numbers(kafka, gateway_pb2.RequestCompleted) == [1, 4, 6]
    told = [n for loss in losses(kafka) for n in range(loss.first_sequence, loss.last_sequence + 1)]
    assert told == [2, 3, 5]
    assert {loss.reason for loss in losses(kafka)} == {mesh_pb2.EVENT_LOSS_REASON_BROKER_REFUSED}
    assert aside == [("MessageSizeTooLargeError",)] * 3


async def test_what_is_kept_aside_is_bounded_and_disk_is_given_back(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0", fsync="os")
    await outbox.append([completed(f"r{n}") for n in range(MAX_REFUSED_ROWS + 10)])
    for row in await outbox.call(outbox.tables.pending, 1000):
        await outbox.call(outbox.tables.refuse, row, "TooLarge")
    (kept,) = await outbox.call(lambda: outbox.tables.connection.execute("SELECT count(*) FROM refused").fetchone())
    assert kept == MAX_REFUSED_ROWS
    big = completed("big")
    big.model = "m" * 900_000
    for _ in range(20):
        await outbox.append([big])

    def pages() -> int:
        return outbox.tables.connection.execute("PRAGMA page_count").fetchone()[0]

    grown = await outbox.call(pages)
    await outbox.call(outbox.tables.acknowledge, await outbox.call(outbox.tables.pending, 100), False)
    for _ in range(10):
        await outbox.call(outbox.tables.shrink)
    assert await outbox.call(pages) < grown / 2
    outbox.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLUICE_OUTBOX_FSYNC", "sometimes"),
        ("SLUICE_OUTBOX_WHEN_FULL", "explode"),
        ("SLUICE_OUTBOX_MAX_ROWS", "1"),
        ("SLUICE_OUTBOX_MAX_BYTES", "1"),
    ],
)
def test_a_mistake_in_the_outbox_settings_is_told(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError, match=name):
        MeshSettings()


class SlowLine:
    """A line to the broker that passes nothing back until it is told to."""

    def __init__(self, port: int) -> None:
        self.port, self._behind = free_port(), port
        self.open, self.asked = asyncio.Event(), 0
        self._pumps: set[asyncio.Task] = set()

    async def __aenter__(self) -> "SlowLine":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader, writer) -> None:
        behind, to_behind = await asyncio.open_connection("127.0.0.1", self._behind)
        for pump in (self._pump(reader, to_behind, slow=False), self._pump(behind, writer, slow=True)):
            self._pumps.add(asyncio.create_task(pump))

    async def _pump(self, source, sink, *, slow: bool) -> None:
        try:
            while data := await source.read(65536):
                if slow:
                    await self.open.wait()
                else:
                    self.asked += len(data)
                sink.write(data)
                await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()


async def test_a_slow_broker_holds_up_nobody(tmp_path):
    from sluice_kit.broker import ensure_topics

    broker = EmbeddedBroker(tmp_path / "broker")
    await asyncio.to_thread(broker.start)
    try:
        await ensure_topics(broker.settings(tmp_path))
        async with SlowLine(broker.port) as line:
            settings = MeshSettings(home=tmp_path, kafka_bootstrap=f"127.0.0.1:{line.port}")
            publisher = EventPublisher(producer="sluice-test/0", settings=settings)
            await publisher.start()
            await until(lambda: line.asked)
            for number in range(200):
                await publisher.publish(completed(f"r{number}"))
            # All are taken, and no answer of the broker has come through yet.
            assert publisher.depth == 200
            line.open.set()
            await until(lambda: publisher.depth == 0)
            await publisher.stop()
    finally:
        broker.kill()
