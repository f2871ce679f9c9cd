"""Records on their way back to Kafka: no more of them at once than a batch, however many there are."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from sluice_kit.broker import client_options
from sluice_kit.completeness import REPLAYED_FROM
from sluice_kit.dead_letters import DeadLetter
from sluice_kit.events import Headers
from sluice_kit.kafka_client import closed
from sluice_kit.ordered import OrderedReader, Span
from sluice_kit.settings import MeshSettings

from sluice_cli.mesh.problem import MeshProblem

BATCH = 200
BATCH_BYTES = 8 << 20


class Outgoing:
    """Use as an async context manager, whose end waits for what is on its way. Connects with the first record."""

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._sent: list[Any] = []
        self._bytes = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self._settle()
            else:
                for each in self._sent:
                    each.cancel()
        finally:
            if self._producer is not None:
                await closed(self._producer)

    async def send(self, told: DeadLetter, places: Sequence[str], original: ConsumerRecord | None) -> None:
        """Put the record of a letter back, marked with the places of its letters. MeshProblem when Kafka does not take it.

        `original`: the record itself, where it was too large for its letter.
        """
        value = original.value if original else told.original.value
        kept: Headers = list(original.headers) if original else told.original.headers
        headers = [(name, each) for name, each in kept if name != REPLAYED_FROM]
        with _told_as_a_problem():
            self._producer = self._producer or await self._connected()
            sent = await self._producer.send(
                told.source_topic,
                key=told.original.key,
                value=value,
                headers=[*headers, *((REPLAYED_FROM, place.encode()) for place in places)],
                # Where it stood: consumers keep the order of a partition, and the next run looks for it here.
                partition=told.source_partition,
            )
        self._sent.append(sent)
        self._bytes += len(value or b"")
        if len(self._sent) >= BATCH or self._bytes >= BATCH_BYTES:
            await self._settle()

    async def _settle(self) -> None:
        sent, self._sent, self._bytes = self._sent, [], 0
        with _told_as_a_problem():
            await asyncio.gather(*sent)

    async def _connected(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **client_options(self._settings), acks="all", enable_idempotence=True, request_timeout_ms=20_000
        )
        try:
            await producer.start()
        except BaseException:
            await closed(producer)
            raise
        return producer


@contextlib.contextmanager
def _told_as_a_problem() -> Iterator[None]:
    try:
        yield
    except (KafkaError, OSError) as error:
        raise MeshProblem(
            f"Kafka did not take the records ({type(error).__name__}): run the same command again; what arrived is left out."
        ) from None


class Originals:
    """Reads records that were too large for their letters, one at a time. Connects with the first. Use as an async context manager."""

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._open = contextlib.AsyncExitStack()
        self._reader: OrderedReader | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def of(self, told: DeadLetter) -> ConsumerRecord | None:
        """The record at the letter's source; None when it is gone from there."""
        if self._reader is None:
            self._reader = await self._open.enter_async_context(OrderedReader.opened(self._settings))
        source, offset = TopicPartition(told.source_topic, told.source_partition), told.source_offset
        held = (await self._reader.spans([told.source_topic])).get(source)
        if held is None or not held.start <= offset < held.end:
            return None
        async with contextlib.aclosing(self._reader.records({source: Span(offset, offset + 1)})) as found:
            async for record in found:
                return record
        return None
