"""Runs the detectors in threads, over whatever windows wait at the moment: one request alone is not delayed, many share batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sluice_moderation.adapters.score_cache import ScoreCache, merged
from sluice_moderation.domain.panel import Panel, WindowScores, joined, unscored

_BATCH_WINDOWS = 64
DEADLINE = "deadline"


class ScoringBusy(Exception):
    """More windows wait than the limit allows."""


@dataclass(frozen=True)
class _Job:
    windows: Sequence[str]
    detectors: frozenset[str]
    result: asyncio.Future[WindowScores]


class ScoringPool:
    """Scores windows off the event loop. `queue_windows` bounds what waits, in windows, `cache_windows` what is remembered."""

    def __init__(self, panel: Panel, *, threads: int, queue_windows: int, cache_windows: int = 0) -> None:
        self._panel, self._threads, self._queue_windows = panel, threads, queue_windows
        self._cache = ScoreCache(cache_windows)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="scoring")
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._running: set[asyncio.Task[None]] = set()

    async def score(
        self, windows: Sequence[str], detectors: frozenset[str], *, tenant_id: str = "", seconds: float | None = None
    ) -> WindowScores:
        """Scores of all windows, in order; those that a tenant sent before come from the cache.

        Raises ScoringBusy. What is not scored after `seconds` stays unscored, and its detectors count as failed for want of time.
        A caller that is cancelled leaves no work behind but the slice that runs.
        """
        digests = sorted(self._panel.digests(detectors).values())
        keys = self._cache.keys(windows, tenant_id=tenant_id, detectors=digests)
        known = self._cache.find(keys)
        missing = [row for row, found in enumerate(known) if found is None]
        fresh = await self._score([windows[row] for row in missing], detectors, seconds)
        self._cache.keep([keys[row] for row in missing], fresh)
        return merged(known, fresh)

    async def _score(self, windows: Sequence[str], detectors: frozenset[str], seconds: float | None) -> WindowScores:
        """A long text is handed over in slices, so that short ones get their turn."""
        parts: list[WindowScores] = []
        done = 0
        try:
            async with asyncio.timeout(seconds):
                while done < len(windows):
                    parts.append(await self._submit(windows[done : done + _BATCH_WINDOWS], detectors))
                    done += len(parts[-1].scores)
        except TimeoutError:
            parts.append(unscored(len(windows) - done, dict.fromkeys(detectors, DEADLINE)))
        return joined(parts)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    async def _submit(self, windows: Sequence[str], detectors: frozenset[str]) -> WindowScores:
        if self._waiting + len(windows) > self._queue_windows:
            raise ScoringBusy
        job = _Job(windows, detectors, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._waiting += len(windows)
        if len(self._running) < self._threads:
            self._running.add(asyncio.create_task(self._work()))
        return await job.result

    async def _work(self) -> None:
        try:
            while batch := self._next_batch():
                await self._run(batch)
        finally:
            # Not in a callback of the task: the callers just woken would come first, and their next jobs find a worker that looks no more.
            self._running.discard(asyncio.current_task())  # type: ignore[arg-type]

    async def _run(self, batch: list[_Job]) -> None:
        windows = [window for job in batch for window in job.windows]
        loop = asyncio.get_running_loop()
        try:
            scored = await loop.run_in_executor(self._executor, self._panel.score, windows, batch[0].detectors)
        except Exception as error:
            _fail(batch, error)
        else:
            _deliver(batch, scored)

    def _next_batch(self) -> list[_Job]:
        """Jobs from the front that want the same detectors, up to a batch of windows."""
        batch: list[_Job] = []
        size = 0
        while self._jobs:
            job = self._jobs[0]
            if batch and (job.detectors != batch[0].detectors or size + len(job.windows) > _BATCH_WINDOWS):
                break
            self._jobs.popleft()
            self._waiting -= len(job.windows)
            if not job.result.cancelled():
                batch.append(job)
                size += len(job.windows)
        return batch


def _deliver(batch: list[_Job], scored: WindowScores) -> None:
    start = 0
    for job in batch:
        end = start + len(job.windows)
        if not job.result.done():
            job.result.set_result(scored.part(start, end))
        start = end


def _fail(batch: list[_Job], error: Exception) -> None:
    for job in batch:
        if not job.result.done():
            job.result.set_exception(error)
