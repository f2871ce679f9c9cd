"""A durable queue on disk between the request path and Kafka: what is appended survives kill -9.

SQLite in WAL mode: a committed row survives the death of the process at any moment. What the death of the whole machine may
cost is the setting `fsync`. One thread owns the connection; appends that wait at the same time share a commit and its fsync.
"""

import asyncio
import fcntl
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from google.protobuf.message import Message
from prometheus_client import Counter

from sluice_kit.errors import ResourceExhausted, Unavailable
from sluice_kit.events import topic_of
from sluice_kit.outbox_tables import Loss, OutboxRow, OutboxTables
from sluice_kit.process import StartFailed
from sluice_kit.telemetry import logger

__all__ = ["Loss", "Outbox", "OutboxRow"]

log = logger(__name__)

LOST = Counter(
    "sluice_events_lost_total", "Events that were numbered and will never be published.", ("topic", "reason")
)
FLUSH_FAILURES = Counter("sluice_outbox_flush_failures_total", "Times the disk did not take what was committed.")

MAX_ROWS = 1_000_000
MAX_BYTES = 1 << 30
MAX_JOBS_PER_COMMIT = 512
INTERVAL_SECONDS = 0.2
FLUSH_AGAIN_SECONDS = 1.0
FULL_SHARE = 0.9
LOSS_LOG_SECONDS = 10.0
T = TypeVar("T")


@dataclass(frozen=True)
class _Job:
    do: Callable[[], Any]
    outcome: Future[Any]
    durable: bool
    """Whether its commit must be on the disk before it is told (`fsync=always`)."""
    stored: bool = True
    """False for what only changes the counts in memory: it needs no transaction, and does not fail with one."""


class Outbox:
    """Rows in the order of their append. The methods of `tables` block: run them by `call`, in the outbox's thread."""

    def __init__(
        self,
        path: Path,
        *,
        producer: str,
        max_rows: int = MAX_ROWS,
        max_bytes: int = MAX_BYTES,
        fsync: str = "interval",
        when_full: str = "refuse",
    ) -> None:
        """Open or make the file. Raises StartFailed when it cannot be used, or another process uses it.

        `fsync`: `always` = before an append returns; `interval` = every 0.2 s; `os` = when the system likes.
        `when_full`: `refuse` = append raises; `drop` = events are numbered, counted as lost, and told of when there is room.
        """
        self._path, self._max_rows, self._max_bytes = path, max_rows, max_bytes
        self._fsync, self._drops = fsync, when_full == "drop"
        self._storing: set[asyncio.Future[None]] = set()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._gate, self._closing = threading.Lock(), False
        self.producer = producer
        """The producer's name with the outbox's id: `sluice-gateway/0#1f2e3d4c`."""
        self.tables: OutboxTables
        self._loss_logged_at = 0.0
        self._lock = _lock(path)
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)
        self._opened: Future[None] = Future()
        self._thread.start()
        try:
            self._opened.result(timeout=30)
        except (sqlite3.Error, OSError) as error:
            self._lock.close()
            raise StartFailed(
                f"{path} cannot be opened ({error}): free the disk, or move the file away. It holds unsent events."
            ) from None

    @property
    def depth(self) -> int:
        """Rows that are not acknowledged yet."""
        return self.tables.counts.rows

    @property
    def untold_losses(self) -> int:
        """Ranges of lost numbers that no event has told of."""
        return self.tables.counts.losses

    @property
    def has_room(self) -> bool:
        """False when the last tenth of the outbox is reached: what begins now may find no place at its end.

        Always true when the policy is to drop: then work goes on without its record.
        """
        return self._drops or self.is_below(FULL_SHARE)

    def is_below(self, share: float) -> bool:
        """Whether less than a share of the rows and of the bytes is taken."""
        counts = self.tables.counts
        return counts.rows < share * self._max_rows and counts.bytes < share * self._max_bytes

    async def append(self, events: Sequence[Message]) -> None:
        """Number, encode and commit events whose metadata is otherwise complete; all of them or none.

        Raises ResourceExhausted (OUTBOX_FULL) at the limit and Unavailable (OUTBOX_UNAVAILABLE) when the disk does not take it,
        unless the policy is to drop; Unavailable also once the outbox is closed; InvalidInput (EVENT_TOO_LARGE) for what Kafka
        would refuse. What was refused has used up no number. Not undone when the caller is cancelled meanwhile.
        """
        if not self._drops:
            await self._stored(events)
            return
        # A task of its own: a caller cancelled between "full" and the drop must not lose its event uncounted.
        storing = asyncio.ensure_future(self._stored_or_dropped(events))
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)
        await asyncio.shield(storing)

    async def _stored(self, events: Sequence[Message]) -> None:
        try:
            await self._in_thread(lambda: self.tables.insert(events), durable=True)
        except sqlite3.Error as error:
            raise Unavailable(
                f"events cannot be stored: the disk refuses them ({error.sqlite_errorname})",
                reason="OUTBOX_UNAVAILABLE",
            ) from None

    async def _stored_or_dropped(self, events: Sequence[Message]) -> None:
        try:
            await self._in_thread(lambda: self.tables.insert(events), durable=True)
        except (ResourceExhausted, sqlite3.Error):
            await self._drop(events)

    async def call(self, method: Callable[..., T], *arguments: Any) -> T:
        """Run one of the methods of `tables` in the outbox's thread."""
        return await self._in_thread(lambda: method(*arguments), durable=False)

    def close(self) -> None:
        """Commit what was handed over and stop; what comes later raises Unavailable."""
        with self._gate:
            self._closing = True
            self._jobs.put(None)
        self._thread.join(timeout=10)
        self._lock.close()

    async def _drop(self, events: Sequence[Message]) -> None:
        try:
            await self._in_thread(lambda: self.tables.drop(events), durable=True)
        except sqlite3.Error:
            await self._in_thread(lambda: self.tables.drop_in_memory(events), durable=False, stored=False)
        for event in events:
            LOST.labels(topic_of(type(event)).name, "outbox_full").inc()
        if time.monotonic() - self._loss_logged_at > LOSS_LOG_SECONDS:
            self._loss_logged_at = time.monotonic()
            log.error(
                "outbox.events_dropped", waiting=self.depth, topics=sorted({topic_of(type(e)).name for e in events})
            )

    async def _in_thread(self, job: Callable[[], T], *, durable: bool, stored: bool = True) -> T:
        outcome: Future[T] = Future()
        with self._gate:  # behind the last job nobody would ever answer
            if self._closing:
                raise Unavailable("events cannot be stored: the outbox is closed", reason="OUTBOX_UNAVAILABLE")
            self._jobs.put(_Job(job, outcome, durable, stored))
        return await asyncio.wrap_future(outcome)

    # --- the thread ---

    def _work(self) -> None:
        try:
            self.tables = OutboxTables(self._path, max_rows=self._max_rows, max_bytes=self._max_bytes)
            self.producer = f"{self.producer}#{self.tables.epoch()}"
        except Exception as error:
            self._opened.set_exception(error)
            return
        self._opened.set_result(None)
        self._synchronous, self._flush_at = "NORMAL", float("inf")
        running = True
        while running:
            batch = self._next_batch()
            running = None not in batch
            self._commit([job for job in batch if job is not None and job.stored])
            self._count([job for job in batch if job is not None and not job.stored])
            self._flush_when_due(ending=not running)
        self.tables.close()

    def _next_batch(self) -> list[_Job | None]:
        try:
            patience = None if self._flush_at == float("inf") else max(0.0, self._flush_at - time.monotonic())
            batch = [self._jobs.get(timeout=patience)]
        except queue.Empty:
            return []
        while batch[-1] is not None and len(batch) < MAX_JOBS_PER_COMMIT:
            try:
                batch.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return batch

    def _flush_when_due(self, *, ending: bool) -> None:
        if self._flush_at == float("inf") or not (ending or time.monotonic() >= self._flush_at):
            return
        self._flush_at = float("inf")
        try:
            self.tables.flush()
        except OSError as error:
            # The rows are committed and outlive the process; it is the loss of power that may cost them now. Were this thread
            # to end by it, every append would wait for ever.
            self._flush_at = time.monotonic() + FLUSH_AGAIN_SECONDS
            FLUSH_FAILURES.inc()
            log.error("outbox.not_flushed", errno=error.errno, waiting=self.depth)

    def _prepare(self, *, durable: bool) -> None:
        """What is only acknowledged or forgotten needs no fsync: after a crash of the machine it would be sent again."""
        wanted = "FULL" if durable and self._fsync == "always" else "NORMAL"
        if wanted != self._synchronous:
            self.tables.connection.execute(f"PRAGMA synchronous={wanted}")
            self._synchronous = wanted
        if durable and self._fsync == "interval":
            self._flush_at = min(self._flush_at, time.monotonic() + INTERVAL_SECONDS)

    def _commit(self, batch: Sequence[_Job]) -> None:
        """Run jobs in one transaction, each behind a savepoint, so that a bad one fails alone."""
        if not batch:
            return
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        connection, before = self.tables.connection, self.tables.counts.copy()
        try:
            self._prepare(durable=any(job.durable for job in batch))
            connection.execute("BEGIN")
            for job in batch:
                outcomes.append((job.outcome, *self._attempt(job.do)))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self.tables.counts = before
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            outcomes = [(job.outcome, None, error) for job in batch]
        for future, result, failure in outcomes:
            if not future.set_running_or_notify_cancel():
                continue
            future.set_exception(failure) if failure else future.set_result(result)

    def _count(self, batch: Sequence[_Job]) -> None:
        for job in batch:
            if job.outcome.set_running_or_notify_cancel():
                job.outcome.set_result(job.do())

    def _attempt(self, job: Callable[[], Any]) -> tuple[Any, BaseException | None]:
        connection, before = self.tables.connection, self.tables.counts.copy()
        connection.execute("SAVEPOINT job")
        try:
            result = job()
        except Exception as error:
            self.tables.counts = before
            # A full disk rolls the whole transaction back by itself: this then fails, and with it the batch.
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
            return None, error
        connection.execute("RELEASE job")
        return result, None


def _lock(path: Path) -> IO[str]:
    """Hold the outbox for this process: two would give out the same numbers."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise StartFailed(f"{path.parent} cannot be written ({error.strerror}): set SLUICE_HOME.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StartFailed(
            f"{path} is in use by another process: stop it, or set SLUICE_INSTANCE to tell the replicas apart."
        ) from None
    return lock
