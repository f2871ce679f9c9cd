"""The relay: what one event or one topic does to the others."""

import asyncio
from pathlib import Path

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, UnknownTopicOrPartitionError
from sluice.events.v1 import gateway_pb2, mesh_pb2, moderation_pb2
from sluice_kit.events import decode
from sluice_kit.publisher import EventPublisher
from sluice_kit.settings import MeshSettings
from spine_actors import TOPIC, completed, until


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


class ProducerOfBatches(FakeProducer):
    """What is handed over in one turn of the event loop is one batch, which the broker takes or refuses as a whole."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__()
        self._most_bytes, self._batch = most_bytes, []

    async def send(self, topic: str, *, key: bytes, value: bytes, headers: list) -> asyncio.Future:
        outcome = asyncio.get_running_loop().create_future()
        if not self._batch:
            asyncio.get_running_loop().call_soon(self._deliver)
        self._batch.append((outcome, topic, value, headers))
        return outcome

    def _deliver(self) -> None:
        batch, self._batch = self._batch, []
        too_large = sum(len(value) for _, _, value, _ in batch) > self._most_bytes
        for outcome, topic, value, headers in batch:
            if too_large:
                outcome.set_exception(MessageSizeTooLargeError())
            else:
                self.arrived.append(decode(topic, value, headers))
                outcome.set_result(None)


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


async def test_events_that_only_fit_one_by_one_are_not_lost_for_a_batch_that_is_too_large(tmp_path):
    kafka = ProducerOfBatches(most_bytes=1_500)
    publisher = FakeKafkaPublisher(kafka, tmp_path)
    await publisher.start()
    events = [completed(name) for name in "abcde"]
    for event in events:
        event.model = "m" * 1_000
    events[2].model = "m" * 2_000
    await publisher.publish(*events)
    await until(lambda: publisher.depth == 0 and len(kafka.arrived) == 5)
    await publisher.stop()
    (loss,) = (e for e in kafka.arrived if isinstance(e, mesh_pb2.EventsLost))
    facts = [e for e in kafka.arrived if e is not loss]
    assert [e.metadata.request_id for e in facts] == ["a", "b", "d", "e"]
    assert (loss.first_sequence, loss.last_sequence) == (3, 3)
