"""Who publishes and consumes in the tests of the spine."""

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from sluice.events.v1 import gateway_pb2
from sluice_kit.broker import client_options
from sluice_kit.consumer import ConsumedEvent, EventConsumer
from sluice_kit.errors import Unavailable
from sluice_kit.events import new_event_id, topic_of
from sluice_kit.settings import MeshSettings

TOPIC = topic_of(gateway_pb2.RequestCompleted).name
PARTITIONS = topic_of(gateway_pb2.RequestCompleted).partitions


def completed(request_id: str = "r-1") -> gateway_pb2.RequestCompleted:
    event = gateway_pb2.RequestCompleted(model="smollm2")
    event.metadata.request_id = request_id
    event.metadata.event_id = new_event_id()
    return event


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
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

    async def each(self, event: ConsumedEvent) -> None:
        await self([event])

    @property
    def request_ids(self) -> set[str]:
        return {e.message.metadata.request_id for e in self.seen}


class Running:
    """A consumer in a task."""

    def __init__(
        self,
        settings: MeshSettings,
        handle: Collector,
        *,
        group: str = "test",
        patience: float = 30.0,
        **options: object,
    ) -> None:
        self.stop = asyncio.Event()
        self._patience = patience
        if "handle_each" not in options:
            options["handle"] = handle
        self.consumer = EventConsumer(
            service="test", group=group, events=[gateway_pb2.RequestCompleted], settings=settings, **options
        )

    async def __aenter__(self) -> "Running":
        self.task = asyncio.create_task(self.consumer.run(self.stop))
        await asyncio.wait_for(self.consumer.ready.wait(), self._patience)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop.set()
        await asyncio.wait_for(self.task, self._patience)


async def read_topic(settings: MeshSettings, topic: str, *, wanted: Callable[[list], bool]) -> list:
    """Every record of a topic, without a group, until there is what is wanted."""
    consumer = AIOKafkaConsumer(topic, **client_options(settings), auto_offset_reset="earliest")
    await consumer.start()
    found: list = []
    try:
        async with asyncio.timeout(60):
            while not wanted(found):
                found += [r for batch in (await consumer.getmany(timeout_ms=200)).values() for r in batch]
    finally:
        await consumer.stop()
    return found


async def committed(settings: MeshSettings, group: str) -> dict[int, int]:
    """What a group has committed, by partition."""
    consumer = AIOKafkaConsumer(**client_options(settings), group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        told = {p: await consumer.committed(TopicPartition(TOPIC, p)) for p in range(PARTITIONS)}
        return {partition: offset for partition, offset in told.items() if offset is not None}
    finally:
        await consumer.stop()
