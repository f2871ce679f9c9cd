"""Work in batches: a handler gets all that was fetched, and the offsets are committed when it returns."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition

from sluice_kit.consumed_event import ConsumedEvent, Taken, take
from sluice_kit.process import describe
from sluice_kit.telemetry import logger
from sluice_kit.trials import BATCH_ATTEMPTS, EVENT_ATTEMPTS, RETRY_SECONDS, Interrupted, Trial, Trials

log = logger(__name__)

Handler = Callable[[Sequence[ConsumedEvent]], Awaitable[None]]
Commit = Callable[[Mapping[TopicPartition, int]], Awaitable[None]]
Seek = Callable[[Mapping[TopicPartition, int]], None]


class BatchWork:
    """Hands batches to a handler; one that fails is gone through event by event."""

    def __init__(
        self, handle: Handler, trials: Trials, *, group: str, batch_size: int, commit: Commit, seek: Seek
    ) -> None:
        """`commit` and `seek` are given the offsets to read next."""
        self.room = batch_size
        """How many records may be fetched now."""
        self._handle, self._trials, self._group = handle, trials, group
        self._commit, self._seek = commit, seek
        self._busy = asyncio.Lock()

    async def begin(self, records: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """Handle records and commit them; what was not done with is put back."""
        async with self._busy:
            taken = [take(record) for batch in records.values() for record in batch]
            done = await self._done(taken)
            await self._commit({_place(t): t.record.offset + 1 for t in taken[:done]})
            rest: dict[TopicPartition, int] = {}
            for t in taken[done:]:
                rest.setdefault(_place(t), t.record.offset)
            self._seek(rest)

    async def keep_up(self) -> None:
        """Nothing is left over between batches."""

    async def release(self, timeout: float) -> None:
        """Wait until the batch in hand is committed or put back, at most `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._busy:
                pass

    async def let_go(self, timeout: float) -> None:
        """A batch has ended when `begin` has: nothing of it goes on."""

    async def _done(self, taken: Sequence[Taken]) -> int:
        """How many of them, from the first, are handled or buried."""
        until = time.monotonic() + RETRY_SECONDS
        # A put back batch goes on with what is left of its attempts: those that are known to be in vain are not made again.
        left = BATCH_ATTEMPTS - max((self._trials.fared(t.record).attempts for t in taken), default=0)
        if left > 0:
            try:
                await self._together(taken, left, until)
            except Interrupted:
                return 0
            except Exception as error:
                log.error("consumer.batch_failed", group=self._group, events=len(taken), **describe(error))
            else:
                return len(taken)
        return await self._one_by_one(taken, until)

    async def _together(self, taken: Sequence[Taken], most: int, until: float) -> None:
        events, trial = [t.event for t in taken if t.event is not None], Trial()
        try:
            if events:
                await self._trials.attempt(lambda: self._handle(events), trial, most=most, until=until)
        finally:
            for t in taken:
                self._trials.fared(t.record).add(trial)
        for unreadable in (t for t in taken if t.event is None):
            await self._trials.bury_unreadable(unreadable)
        for t in taken:
            self._trials.forget(t.record)

    async def _one_by_one(self, taken: Sequence[Taken], until: float) -> int:
        for number, t in enumerate(taken):
            if self._trials.interrupt.is_set() or time.monotonic() > until:
                return number
            try:
                await self._alone(t, until)
            except Interrupted:
                return number
            self._trials.forget(t.record)
        return len(taken)

    async def _alone(self, taken: Taken, until: float) -> None:
        event, trial = taken.event, self._trials.fared(taken.record)
        if event is None:
            await self._trials.bury_unreadable(taken)
            return
        # In all as many as an event has whose batch is never put back.
        most = max(1, BATCH_ATTEMPTS + EVENT_ATTEMPTS - trial.attempts)
        try:
            await self._trials.attempt(lambda: self._handle([event]), trial, most=most, until=until)
        except Interrupted:
            raise
        except Exception as error:
            await self._trials.bury_failed(taken.record, error, trial)


def _place(taken: Taken) -> TopicPartition:
    return TopicPartition(taken.record.topic, taken.record.partition)
