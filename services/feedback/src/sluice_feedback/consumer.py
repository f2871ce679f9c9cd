"""RequestCompleted and SubjectErased in: which request is whose, and whose texts must go."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from aiokafka import TopicPartition
from prometheus_client import Counter
from sluice.events.v1.gateway_pb2 import (
    CONTENT_CAPTURE_REDACTED,
    CONTENT_CAPTURE_UNSPECIFIED,
    RequestCompleted,
)
from sluice.events.v1.privacy_pb2 import SubjectErased
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import Unavailable
from sluice_kit.telemetry import logger

from sluice_feedback.domain.feedback import KeysUnavailable, StoreUnavailable
from sluice_feedback.domain.known_requests import DoomedText, Erasure, KnownRequest, Partition, RequestRegister

log = logger(__name__)

REJECTED = Counter("sluice_feedback_rejected_total", "Feedback whose request turned out to be another tenant's.")

_FORGET_EVERY = timedelta(minutes=10)
_OFFSET_ATTEMPTS = 20
_OFFSET_PAUSE_SECONDS = 0.5


class Keys(Protocol):
    """What is done with the keys of erased texts."""

    async def destroy_of(self, texts: Sequence[DoomedText]) -> None:
        """Destroy the keys that stand for the requests of these texts. Raises KeysUnavailable."""

    def forget(self, tenant_id: str, subject_id: str) -> None:
        """Use nothing any more that this process still holds of a person's key."""


class CompletionConsumer:
    """Learns completed requests, for a while, and erases texts; fits EventConsumer's `handle` and `starting_offsets`."""

    def __init__(
        self,
        register: RequestRegister,
        *,
        on_rejected: Callable[[], None],
        report_health: Callable[[str, bool], None],
        clock: Callable[[], datetime],
        keep_for: timedelta,
        keep_at_most: int,
        keys: Keys | None = None,
    ) -> None:
        """Without keys encryption is switched off, and only texts in the store are erased."""
        self._keys = keys
        self._register, self._clock = register, clock
        self._on_rejected, self._report_health = on_rejected, report_health
        self._keep_for, self._keep_at_most = keep_for, keep_at_most
        self._forget_at = datetime.min.replace(tzinfo=UTC)

    async def handle(self, events: Sequence[ConsumedEvent]) -> None:
        """Learns a batch. Raises Unavailable while the database is away, so that the batch is tried for ever."""
        now = self._clock()
        requests = [known for event in events if (known := known_request(event)) is not None]
        erasures = [erasure for event in events if (erasure := erasure_of(event)) is not None]
        try:
            await self._destroy_keys(requests, erasures)
            rejected = await self._register.learn(requests, _next_offsets(events), at=now, erasures=erasures)
            await self._forget(now)
        except StoreUnavailable as error:
            self._report_health("database", False)
            raise Unavailable(str(error)) from None
        except KeysUnavailable as error:
            self._report_health("key_store", False)
            raise Unavailable(f"texts cannot be erased: {error}") from None
        self._report_health("database", True)
        if erasures:
            log.info("feedback.subjects_erased", count=len(erasures))
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

    async def _destroy_keys(self, requests: Sequence[KnownRequest], erasures: Sequence[Erasure]) -> None:
        """Before the store forgets which they were."""
        if self._keys is None:
            return
        for erasure in erasures:
            self._keys.forget(erasure.tenant_id, erasure.subject_id)
        texts = await self._register.doomed(requests, erasures)
        if texts:
            await self._keys.destroy_of(texts)
            self._report_health("key_store", True)

    async def _forget(self, now: datetime) -> None:
        if now < self._forget_at:
            return
        self._forget_at = now + _FORGET_EVERY
        forgotten = await self._register.forget(before=now - self._keep_for, keep_at_most=self._keep_at_most)
        if forgotten:
            log.info("feedback.requests_forgotten", count=forgotten)


def known_request(event: ConsumedEvent) -> KnownRequest | None:
    """Whose a completed request is; None for an event that says nothing of it."""
    message: Any = event.message
    metadata = message.metadata
    if not isinstance(message, RequestCompleted) or metadata.synthetic:
        return None  # self-tests would push real requests out of the register
    if not metadata.request_id or not metadata.tenant_id:
        return None  # nobody can give feedback on it
    return KnownRequest(
        metadata.request_id,
        metadata.tenant_id,
        metadata.occurred_at.ToDatetime(tzinfo=UTC),
        subject_id=metadata.subject_id,
        # A value of the future is not taken for leave; an older gateway says nothing.
        captures_text=message.content_capture in (CONTENT_CAPTURE_UNSPECIFIED, CONTENT_CAPTURE_REDACTED),
    )


def erasure_of(event: ConsumedEvent) -> Erasure | None:
    """Who was erased; None for another event."""
    message = event.message
    if not isinstance(message, SubjectErased) or not message.metadata.tenant_id or not message.metadata.subject_id:
        return None
    metadata = message.metadata
    return Erasure(metadata.tenant_id, metadata.subject_id, metadata.occurred_at.ToDatetime(tzinfo=UTC))


def _next_offsets(events: Sequence[ConsumedEvent]) -> dict[Partition, int]:
    offsets: dict[Partition, int] = {}
    for event in events:
        partition = Partition(event.topic, event.partition)
        offsets[partition] = max(offsets.get(partition, 0), event.offset + 1)
    return offsets
