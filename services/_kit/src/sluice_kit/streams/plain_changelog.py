"""The plain runner's table: its truth is a compacted changelog topic, of the same name and form as Faust's."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from sluice_kit.kafka_client import closed
from sluice_kit.streams.options import WorkerOptions
from sluice_kit.streams.own_topics import changelog_of, ensure_changelog
from sluice_kit.telemetry import logger

log = logger(__name__)

SILENT_SECONDS = 60.0
"""Without a record of the changelog for so long a recovery has failed."""


class ChangelogTable:
    """A Table. It holds what it recovered only until that is taken up: the processor has it decoded, and writes it whole."""

    def __init__(self, name: str, options: WorkerOptions) -> None:
        self.topic = changelog_of(name, options)
        self._options = options
        self._recovered: dict[bytes, bytes] = {}
        self._keys: set[bytes] = set()
        self._producer: AIOKafkaProducer | None = None

    def use(self, producer: AIOKafkaProducer) -> None:
        """Write with this producer."""
        self._producer = producer

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """What was recovered. Once: it is the processor's afterwards."""
        recovered, self._recovered = self._recovered, {}
        return recovered.items()

    def forget(self) -> None:
        """The partitions are about to move."""
        self._recovered.clear()
        self._keys.clear()

    async def apply(self, changes: Mapping[bytes, bytes | None], *, event: Any) -> None:
        """Store changes in the partition of the event; returns when the changelog has them."""
        assert self._producer is not None, "the table is used before the runner runs"
        partition, sent = event.message.partition, []
        for key, value in changes.items():
            if value is None and key not in self._keys:
                continue  # nothing to delete
            sent.append(await self._producer.send(self.topic, value, key, partition=partition))
            (self._keys.add if value is not None else self._keys.discard)(key)
        await asyncio.gather(*sent)

    async def ensure_topic(self) -> None:
        """Create the changelog if it is missing."""
        await ensure_changelog(self.topic, self._options)

    async def recover(self, partitions: Collection[int]) -> None:
        """Read what is stored of these partitions, up to where the changelog ends now. Raises KafkaError and TimeoutError."""
        self.forget()
        places = [TopicPartition(self.topic, number) for number in sorted(partitions)]
        if not places:
            return
        reader = AIOKafkaConsumer(**self._options.client, enable_auto_commit=False, max_partition_fetch_bytes=8 << 20)
        await reader.start()
        try:
            reader.assign(places)
            await reader.seek_to_beginning(*places)
            await self._read_up_to(reader, await reader.end_offsets(places))
        finally:
            await closed(reader)
        self._keys = set(self._recovered)

    async def _read_up_to(self, reader: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> None:
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while any([await reader.position(place) < end for place, end in ends.items()]):
            for records in (await reader.getmany(timeout_ms=200)).values():
                heard = loop.time()
                for record in records:
                    self._put(record.key, record.value)
            if loop.time() - heard > SILENT_SECONDS:
                raise TimeoutError(f"{self.topic} could not be read to its end")

    def _put(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._recovered.pop(key, None)
        else:
            self._recovered[key] = value
