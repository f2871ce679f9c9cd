"""Work event by event: many keys at once, the events of one key in their order, and commits of what is contiguous."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition

from sluice_kit.batch_work import Commit, Seek
from sluice_kit.consumed_event import ConsumedEvent, Taken, take
from sluice_kit.key_order import KeyOrder
from sluice_kit.progress import Progress
from sluice_kit.trials import BATCH_ATTEMPTS, RETRY_SECONDS, Interrupted, Trials

EventHandler = Callable[[ConsumedEvent], Awaitable[None]]

COMMIT_SECONDS = 0.5
LETTING_GO_SECONDS = 10.0


class KeyedWork:
    """Runs a handler of single events for several keys at once."""

    def __init__(
        self,
        handle_each: EventHandler,
        trials: Trials,
        *,
        concurrency: int,
        most_in_hand: int,
        commit: Commit,
        seek: Seek,
    ) -> None:
        self._handle_each, self._trials = handle_each, trials
        self._most_in_hand, self._commit, self._seek = most_in_hand, commit, seek
        self._progress = Progress()
        self._lanes: KeyOrder[Taken] = KeyOrder(self._one, concurrency=concurrency)
        self._committed_at = 0.0
        self._gave_up = False
        self._settling = asyncio.Lock()

    @property
    def room(self) -> int:
        """How many records may be fetched now."""
        return max(0, self._most_in_hand - self._progress.in_hand)

    async def begin(self, records: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """Take records in hand; returns before they are handled."""
        for partition, batch in records.items():
            for record in batch:
                self._progress.begin(partition, record.offset)
                self._lanes.add((partition, record.key), take(record))
        await self.keep_up()

    async def keep_up(self) -> None:
        """Commit what is contiguous, and wait a moment for room when there is none."""
        if not self.room:
            await self._lanes.ended_one(timeout=COMMIT_SECONDS)
        self._lanes.raise_failure()
        if self._gave_up:
            await self.release(LETTING_GO_SECONDS)
        elif time.monotonic() - self._committed_at > COMMIT_SECONDS:
            await self._commit_progress()

    async def release(self, timeout: float) -> None:
        """End what has begun (at most `timeout` seconds), commit what is contiguous, and fetch the rest again."""
        async with self._settling:
            self._gave_up = True  # nothing may begin that could overtake what is let go
            await self._lanes.let_go(timeout)
            await self._commit_progress()
            self._seek(self._progress.unfinished())
            self._progress.forget()
            self._gave_up = False

    async def let_go(self, timeout: float) -> None:
        """End what has begun (at most `timeout` seconds), for good: nothing is committed, and nothing begins any more."""
        self._gave_up = True
        await self._lanes.let_go(timeout)

    async def _commit_progress(self) -> None:
        self._committed_at = time.monotonic()
        offsets = self._progress.committable()
        if offsets:
            await self._commit(offsets)
            self._progress.committed(offsets)

    async def _one(self, taken: Taken) -> None:
        if self._gave_up:
            return
        try:
            await self._handled(taken)
        except Interrupted:
            self._gave_up = True
            return
        self._trials.forget(taken.record)
        self._progress.done(TopicPartition(taken.record.topic, taken.record.partition), taken.record.offset)

    async def _handled(self, taken: Taken) -> None:
        event, trial = taken.event, self._trials.fared(taken.record)
        if event is None:
            await self._trials.bury_unreadable(taken)
            return
        try:
            until, most = time.monotonic() + RETRY_SECONDS, max(1, BATCH_ATTEMPTS - trial.attempts)
            await self._trials.attempt(lambda: self._handle_each(event), trial, most=most, until=until)
        except Interrupted:
            raise
        except Exception as error:
            await self._trials.bury_failed(taken.record, error, trial)
