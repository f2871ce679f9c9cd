"""RequestCompleted in: which request is whose."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import TopicPartition
from prometheus_client import Counter
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import Unavailable
from sluice_kit.telemetry import logger

from sluice_feedback.domain.feedback import KnownRequest, Partition, RequestRegister, StoreUnavailable

log = logger(__name__)

REJECTED = Counter("sluice_feedback_rejected_total", "Feedback whose request turned out to be another tenant's.")

_FORGET_EVERY = timedelta(minutes=10)
_OFFSET_ATTEMPTS = 20
_OFFSET_PAUSE_SECONDS = 0.5


class CompletionConsumer:
    """Learns completed requests, for a while; fits EventConsumer's `handle` and `starting_offsets`."""

    def __init__(
        self,
        register: RequestRegister,
        *,
        on_rejected: Callable[[], None],
        report_health: Callable[[str, bool], None],
        clock: Callable[[], datetime],
        keep_for: timedelta,
        keep_at_most: int,
    ) -> None:
        self._register, self._clock = register, clock
        self._on_rejected, self._report_health = on_rejected, report_health
        self._keep_for, self._keep_at_most = keep_for, keep_at_most
        self._forget_at = datetime.min.replace(tzinfo=UTC)

    async def handle(self, events: Sequence[ConsumedEvent]) -> None:
        """Learns a batch. Raises Unavailable while the database is away, so that the batch is tried for ever."""
        now = self._clock()
        requests = [known for event in events if (known := _known_request(event)) is not None]
        try:
            rejected = await self._register.learn(requests, _next_offsets(events), at=now)
            await self._forget(now)
        except StoreUnavailable as error:
            self._report_health("database", False)
            raise Unavailable(str(error)) from None
        self._report_health("database", True)
        if rejected:
            REJECTED.inc(rejected)
            log.warning("feedback.rejected", count=rejected)
            self._on_rejected()

    async def starting_offsets(self, partitions: set[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where the register stopped: it knows better than Kafka, whose commit comes after it."""
        asked = {Partition(partition.topic, partition.partition) for partition in partitions}
        for attempt in range(_OFFSET_ATTEMPTS):
            try:
                stored = await self._register.next_offsets(asked)
            except StoreUnavailable:
                if attempt == _OFFSET_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(_OFFSET_PAUSE_SECONDS)
            else:
                return {TopicPartition(found.topic, found.number): offset for found, offset in stored.items()}
        raise AssertionError("unreachable")

    async def _forget(self, now: datetime) -> None:
        if now < self._forget_at:
            return
        self._forget_at = now + _FORGET_EVERY
        forgotten = await self._register.forget(before=now - self._keep_for, keep_at_most=self._keep_at_most)
        if forgotten:
            log.info("feedback.requests_forgotten", count=forgotten)


def _known_request(event: ConsumedEvent) -> KnownRequest | None:
    message: Any = event.message
    metadata = message.metadata
    if not metadata.request_id or not metadata.tenant_id:
        return None  # nobody can give feedback on it
    return KnownRequest(metadata.request_id, metadata.tenant_id, metadata.occurred_at.ToDatetime(tzinfo=UTC))


def _next_offsets(events: Sequence[ConsumedEvent]) -> dict[Partition, int]:
    offsets: dict[Partition, int] = {}
    for event in events:
        partition = Partition(event.topic, event.partition)
        offsets[partition] = max(offsets.get(partition, 0), event.offset + 1)
    return offsets
