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
        self._failed_up_to: dict[TopicPartition, int] = {}

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
        trial = Trial()
        if not self._known_to_fail(taken):
            try:
                await self._together(taken, trial, until)
            except Interrupted:
                return 0
            except Exception as error:
                log.error("consumer.batch_failed", group=self._group, events=len(taken), **describe(error))
            else:
                return len(taken)
        return await self._one_by_one(taken, trial, until)

    async def _together(self, taken: Sequence[Taken], trial: Trial, until: float) -> None:
        events = [t.event for t in taken if t.event is not None]
        if events:
            await self._trials.attempt(lambda: self._handle(events), trial, most=BATCH_ATTEMPTS, until=until)
        for unreadable in (t for t in taken if t.event is None):
            await self._trials.bury_unreadable(unreadable)

    async def _one_by_one(self, taken: Sequence[Taken], together: Trial, until: float) -> int:
        for t in taken:
            # A put back batch begins here again, not with attempts that are known to be in vain.
            self._failed_up_to[_place(t)] = t.record.offset
        for number, t in enumerate(taken):
            if self._trials.interrupt.is_set() or time.monotonic() > until:
                return number
            try:
                await self._alone(t, Trial(together.attempts, together.first_failed_at), until)
            except Interrupted:
                return number
        self._failed_up_to.clear()
        return len(taken)

    async def _alone(self, taken: Taken, trial: Trial, until: float) -> None:
        event = taken.event
        if event is None:
            await self._trials.bury_unreadable(taken)
            return
        try:
            await self._trials.attempt(lambda: self._handle([event]), trial, most=EVENT_ATTEMPTS, until=until)
        except Interrupted:
            raise
        except Exception as error:
            await self._trials.bury_failed(taken.record, error, trial)

    def _known_to_fail(self, taken: Sequence[Taken]) -> bool:
        return any(t.record.offset <= self._failed_up_to.get(_place(t), -1) for t in taken)


def _place(taken: Taken) -> TopicPartition:
    return TopicPartition(taken.record.topic, taken.record.partition)
