"""Runs the detectors in threads, over whatever windows wait at the moment: one request alone is not delayed, many share batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sluice_moderation.domain.detector import CATEGORIES
from sluice_moderation.domain.judgement import Panel, WindowScores

_BATCH_WINDOWS = 64


class ScoringBusy(Exception):
    """More windows wait than the limit allows."""


@dataclass(frozen=True)
class _Job:
    windows: Sequence[str]
    detectors: frozenset[str]
    result: asyncio.Future[WindowScores]


class ScoringPool:
    """Scores windows off the event loop. `queue_windows` bounds what waits, in windows."""

    def __init__(self, panel: Panel, *, threads: int, queue_windows: int) -> None:
        self._panel, self._threads, self._queue_windows = panel, threads, queue_windows
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="scoring")
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._running: set[asyncio.Task[None]] = set()

    async def score(self, windows: Sequence[str], detectors: frozenset[str]) -> WindowScores:
        """Scores of all windows, in order. A long text is handed over in slices, so that short ones get their turn.

        Raises ScoringBusy. A caller that is cancelled leaves no work behind but the slice that runs.
        """
        parts = [
            await self._submit(windows[start : start + _BATCH_WINDOWS], detectors)
            for start in range(0, len(windows), _BATCH_WINDOWS)
        ]
        if not parts:
            return WindowScores(np.empty((0, len(CATEGORIES)), np.float32))
        failed = frozenset().union(*(part.failed for part in parts))
        return WindowScores(np.concatenate([part.scores for part in parts]), failed)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)

    async def _submit(self, windows: Sequence[str], detectors: frozenset[str]) -> WindowScores:
        if self._waiting + len(windows) > self._queue_windows:
            raise ScoringBusy
        job = _Job(windows, detectors, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._waiting += len(windows)
        if len(self._running) < self._threads:
            task = asyncio.create_task(self._work())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await job.result

    async def _work(self) -> None:
        while batch := self._next_batch():
            windows = [window for job in batch for window in job.windows]
            loop = asyncio.get_running_loop()
            try:
                scored = await loop.run_in_executor(self._executor, self._panel.score, windows, batch[0].detectors)
            except Exception as error:
                _fail(batch, error)
                continue
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
            job.result.set_result(WindowScores(scored.scores[start:end], scored.failed))
        start = end


def _fail(batch: list[_Job], error: Exception) -> None:
    for job in batch:
        if not job.result.done():
            job.result.set_exception(error)
