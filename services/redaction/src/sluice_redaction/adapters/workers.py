"""The threads that detectors run on: off the event loop, as many as there are cores, with a queue that has an end."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Protocol, TypeVar

from prometheus_client import Gauge
from sluice_kit.errors import ResourceExhausted, Unavailable

from sluice_redaction.domain.findings import Detector

from .listed import Listed, ListedDetector

Result = TypeVar("Result")
_RETRY_AFTER_SECONDS = 0.5
QUEUED = Gauge("sluice_redaction_queued_analyses", "Analyses waiting for a worker or running on one.")


def _cores() -> int:
    """Those this process may use; macOS does not tell, so there all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers(Protocol):
    """What the API needs of a pool."""

    async def run(self, work: Callable[[Detector], Result]) -> Result: ...

    @property
    def recognizers(self) -> list[Listed]: ...


class WorkerPool:
    """A thread and a detector for each worker; detectors are not shared between threads.

    A request that finds `queue_limit` analyses waiting is refused instead of waiting for longer than it can.
    """

    def __init__(self, *, threads: int = 0, queue_limit: int = 256) -> None:
        """threads: 0 means one for each core this process may use."""
        self._threads = threads or _cores()
        self._limit = queue_limit + self._threads
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="detector")
        self._free: SimpleQueue[ListedDetector] = SimpleQueue()
        self._lock = threading.Lock()
        self._queued = 0
        self._trouble = "the recognizers are still being loaded"
        self.recognizers: list[Listed] = []

    async def load(self, make_factory: Callable[[], Callable[[], ListedDetector]]) -> None:
        """Loads one detector a worker, off the loop. Raises what the loading raised; until then work is refused."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._fill, make_factory)
        except Exception as error:
            self._trouble = f"a recognizer could not be loaded ({type(error).__name__}: {error})"
            raise
        self._trouble = ""

    def _fill(self, make_factory: Callable[[], Callable[[], ListedDetector]]) -> None:
        make = make_factory()
        detectors = [make() for _ in range(self._threads)]
        for detector in detectors:
            # The first text warms allocators and caches; nobody's request should.
            list(
                detector.detect(
                    "Warm up: Ann Lee, 12 Main Street, +1 212 555 0123.", frozenset({"PERSON", "PHONE_NUMBER"})
                )
            )
            self._free.put(detector)
        self.recognizers = detectors[0].listed()

    async def run(self, work: Callable[[Detector], Result]) -> Result:
        """Runs work on a worker with its detector. Raises ResourceExhausted if too much waits, Unavailable before
        `load`.

        If the caller is cancelled, work that has not begun is dropped.
        """
        if self._trouble:
            raise Unavailable(f"redaction is not serving: {self._trouble}", reason="RECOGNIZERS_NOT_LOADED")
        with self._lock:
            if self._queued >= self._limit:
                raise ResourceExhausted(
                    f"{self._queued} texts are waiting to be analysed; try again later",
                    reason="REDACTION_QUEUE_FULL",
                    retry_after_seconds=_RETRY_AFTER_SECONDS,
                )
            self._queued += 1
            QUEUED.inc()
        future = self._executor.submit(self._on_worker, work)
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Drops what waits and lets what runs end."""
        self._trouble = "it is stopping"
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _on_worker(self, work: Callable[[Detector], Result]) -> Result:
        detector = self._free.get()
        try:
            return work(detector)
        finally:
            self._free.put(detector)

    def _leave(self, _: "Future[Result]") -> None:
        with self._lock:
            self._queued -= 1
            QUEUED.dec()
