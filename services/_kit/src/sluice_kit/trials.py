"""Tries a handler until it passes, fails for good, or its consumer has to let go; what fails for good becomes a dead letter."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError
from prometheus_client import Counter

from sluice_kit.consumed_event import Taken
from sluice_kit.dead_letters import Failure, OriginalRecord, Record, dead_letter
from sluice_kit.errors import Unavailable
from sluice_kit.events import now
from sluice_kit.telemetry import logger

log = logger(__name__)

DEAD_LETTERS = Counter("sluice_events_dead_lettered_total", "Records put on a dead-letter topic.", ("topic", "reason"))

BATCH_ATTEMPTS = 5
# One by one an event gets less: 500 events that all fail must be done with in time.
EVENT_ATTEMPTS = 3
# Then the work is put back and fetched again: a consumer that does not fetch for max_poll_interval loses its partitions.
RETRY_SECONDS = 120.0
MAX_POLL_INTERVAL_MS = 300_000
# More than is ever in hand; what is remembered of partitions that went elsewhere must not add up.
MOST_REMEMBERED = 10_000
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class Interrupted(Exception):
    """Work is put back, not committed: the consumer stops, loses its partitions, or has retried for long enough."""


@dataclass
class Trial:
    """How one event, or one batch, has fared."""

    attempts: int = 0
    first_failed_at: datetime | None = None

    def failed(self) -> None:
        """Note an attempt that failed."""
        self.attempts += 1
        self.first_failed_at = self.first_failed_at or now()

    def add(self, later: "Trial") -> None:
        """Note the attempts of another trial that came after these."""
        self.attempts += later.attempts
        self.first_failed_at = self.first_failed_at or later.first_failed_at


class Trials:
    """Retries and dead letters of one consumer."""

    def __init__(self, group: str) -> None:
        self._group = group
        self.interrupt = asyncio.Event()
        """Set while work should end soon: no further retry is begun."""
        self._dead_letters: AIOKafkaProducer | None = None
        self._fared: dict[tuple[str, int, int, int], Trial] = {}

    def fared(self, record: Record) -> Trial:
        """How a record has fared so far, also before it was put back and fetched again: kept until it is forgotten.

        Or a rebalance would give poison its attempts anew, for ever where they take long, and its letter would tell of the
        last few only.
        """
        trial = self._fared.setdefault(_identity(record), Trial())
        while len(self._fared) > MOST_REMEMBERED:
            del self._fared[next(iter(self._fared))]
        return trial

    def forget(self, record: Record) -> None:
        """A record was handled, or is a dead letter."""
        self._fared.pop(_identity(record), None)

    def use(self, producer: AIOKafkaProducer) -> None:
        """Send dead letters by this started producer."""
        self._dead_letters = producer

    async def attempt(self, call: Callable[[], Awaitable[None]], trial: Trial, *, most: int, until: float) -> None:
        """Call until it passes. Unavailable (the handler's store is away) is tried again and again, other errors `most` times.

        Raises the last error, or Interrupted when told to end or when it is `until` (monotonic seconds) already.
        """
        failures = outages = 0
        while True:
            try:
                return await call()
            except Unavailable:
                outages, failures = outages + 1, 0
                log.warning("consumer.handler_unavailable", group=self._group, attempt=outages)
                pause = min(0.1 * 2.0**outages, 2.0)
            except Exception:
                trial.failed()
                failures += 1
                if failures >= most:
                    raise
                pause = min(0.025 * 2.0**failures, 1.0)
            if self.interrupt.is_set() or time.monotonic() > until:
                raise Interrupted
            with contextlib.suppress(TimeoutError):
                # Some jitter, so that replicas do not come back to their store all at once.
                await asyncio.wait_for(self.interrupt.wait(), pause * random.uniform(0.8, 1.2))  # noqa: S311

    async def bury_unreadable(self, taken: Taken) -> None:
        """Put a record without an event aside."""
        await self.bury(taken.record, Failure(taken.fault, self._group, 0, now()))

    async def bury_failed(self, record: Any, error: Exception, trial: Trial) -> None:
        """Put an event that no attempt got handled aside."""
        reason = f"handler_failed:{type(error).__name__}"
        await self.bury(record, Failure(reason, self._group, trial.attempts, trial.first_failed_at or now()))

    async def bury(self, record: Record, failure: Failure) -> None:
        """Put a record on its dead-letter topic; returns when the broker has it, so that its offset may be committed."""
        letter = dead_letter(record, failure)
        try:
            await self._send(letter)
        except _TOO_LARGE:
            # It fitted its own topic to the byte, and no longer with our headers; a poison pill must not stop the partition.
            await self._send(letter.without_value())
        DEAD_LETTERS.labels(record.topic, failure.reason.split(":")[0]).inc()
        log.error(
            "consumer.dead_letter",
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            reason=failure.reason,
            attempts=failure.attempts,
        )

    async def _send(self, letter: OriginalRecord) -> None:
        assert self._dead_letters is not None
        await self._dead_letters.send_and_wait(letter.topic, key=letter.key, value=letter.value, headers=letter.headers)


def _identity(record: Record) -> tuple[str, int, int, int]:
    # With the time: a topic that was made anew has the same offsets again.
    return record.topic, record.partition, record.offset, record.timestamp
