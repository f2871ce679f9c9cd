"""Consumes events at least once: commit after the work, poison aside, nothing lost when the broker or the handler is away."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from google.protobuf.message import Message
from opentelemetry import trace
from prometheus_client import Counter

from sluice_kit import telemetry
from sluice_kit.assignment import Assignment, StartingOffsets, sticky_assignor
from sluice_kit.batch_work import BatchWork, Handler
from sluice_kit.broker import client_options, install_empty_fetch_guard
from sluice_kit.broker_check import check_broker
from sluice_kit.broker_watch import watch_embedded_broker
from sluice_kit.consumed_event import ConsumedEvent
from sluice_kit.events import topic_of
from sluice_kit.kafka_client import CLOSE_SECONDS, closed, its_cancellations_are_errors
from sluice_kit.keyed_work import EventHandler, KeyedWork
from sluice_kit.lag import Lag
from sluice_kit.process import describe
from sluice_kit.settings import MeshSettings
from sluice_kit.trials import MAX_POLL_INTERVAL_MS, Trials

__all__ = ["ConsumedEvent", "EventConsumer", "EventHandler", "Handler", "StartingOffsets"]

log = telemetry.logger(__name__)

CONSUMED = Counter("sluice_events_consumed_total", "Events handled.", ("group", "topic"))

ASSIGNMENT_POLL_SECONDS = 0.05
# While nothing may be fetched the client must be asked all the same, or it takes the consumer for dead (max_poll_interval)
# and does not tell of errors.
IDLE_POLL_SECONDS = 10.0
SESSION_TIMEOUT_MS = 15_000
# What is in hand when partitions are taken away may end; less than the session timeout, within which the group waits for us.
RELEASE_SECONDS = 10.0
# aiokafka tries a commit for ever while the broker is away.
COMMIT_SECONDS = 10.0
# More than the embedded broker loses when it is killed (kafka-faust.md 1.2).
READ_AGAIN = 1_000
# OpenTelemetry's own default limit of links in a span.
TRACED_EVENTS = 128


class BrokerRestarted(KafkaError):  # type: ignore[misc]
    """The embedded broker died: other records may stand at offsets that were read, so the last ones are read again."""


class EventConsumer:
    """Hands events to a handler, each partition (or each key) in order, and commits when they are handled.

    Give it one of two handlers. `handle` gets batches; it should be idempotent by `event_id`. `handle_each` gets single
    events, `concurrency` keys at once, those of one key in their order.

    A handler that raises `sluice_kit.errors.Unavailable` (its database is away) is tried again for ever. Any other error is
    tried five times (a batch then event by event), and an event that still fails goes to `<topic>.dlq` with the reason in its
    headers (`sluice_kit.dead_letters`). `starting_offsets` is asked on every assignment: its positions win over the committed
    ones (a database that keeps its own). No event is handled before it has answered.
    """

    def __init__(
        self,
        *,
        service: str,
        group: str,
        events: Sequence[type[Message]],
        handle: Handler | None = None,
        handle_each: EventHandler | None = None,
        concurrency: int = 16,
        settings: MeshSettings,
        starting_offsets: StartingOffsets | None = None,
        batch_size: int = 500,
        batch_wait_ms: int = 200,
    ) -> None:
        """ValueError unless exactly one of `handle` and `handle_each` is given."""
        if (handle is None) is (handle_each is None):
            raise ValueError("give EventConsumer either handle or handle_each")
        self._group, self._settings = group, settings
        self._handle, self._handle_each, self._concurrency = handle, handle_each, concurrency
        self._topics = [topic_of(event).name for event in events]
        self._instance_id = f"{service}-{settings.instance}"
        self._starting_offsets = starting_offsets
        self._batch_size, self._batch_wait_ms = batch_size, batch_wait_ms
        self._assignor = sticky_assignor()
        self._trials = Trials(group)
        self._stop = asyncio.Event()
        self._broker_restarted = asyncio.Event()
        self._read_up_to: dict[TopicPartition, int] = {}
        self._read_again_from: dict[TopicPartition, int] = {}
        self.ready = asyncio.Event()
        """Set when partitions were assigned for the first time."""

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until stop is set; what was handled by then is committed. A broker that is away is waited for."""
        install_empty_fetch_guard(self._settings)
        self._stop = stop
        beside = [asyncio.create_task(self._interrupt_on_stop()), asyncio.create_task(check_broker(self._settings))]
        if self._settings.kafka_embedded:
            watch = watch_embedded_broker(self._settings, restarted=self._read_the_last_again)
            beside.append(asyncio.create_task(watch))
        try:
            await self._run()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside, timeout=CLOSE_SECONDS)

    async def _run(self) -> None:
        pause = 0.2
        while not self._stop.is_set():
            try:
                with its_cancellations_are_errors():
                    async with self._connected() as (consumer, assignment, work, lag):
                        pause = 0.2
                        await self._consume(consumer, assignment, work, lag)
            except Exception as error:
                # Whatever a client library raises, a consumer that ended in silence would be worse than one that goes on trying.
                expected = isinstance(error, KafkaError | OSError)
                told = {"error": type(error).__name__} if expected else describe(error)
                log.warning("consumer.interrupted", group=self._group, again_in_seconds=pause, **told)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause)
                pause = min(pause * 2, 5.0)

    async def _read_the_last_again(self) -> None:
        """Handlers know by their ids what they had; what took its offsets they would never see."""
        self._read_again_from = {tp: max(0, offset - READ_AGAIN) for tp, offset in self._read_up_to.items()}
        self._broker_restarted.set()

    async def _interrupt_on_stop(self) -> None:
        await self._stop.wait()
        self._trials.interrupt.set()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[AIOKafkaConsumer, Assignment, BatchWork | KeyedWork, Lag]]:
        consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            group_id=self._group,
            group_instance_id=self._instance_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=[self._assignor],
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=3_000,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
        )

        async def release() -> None:
            try:
                with self._retries_ended():
                    await work.release(RELEASE_SECONDS)
            finally:
                lag.forget()

        assignment = Assignment(
            consumer,
            self._starting_offsets,
            ready=self.ready,
            release=release,
            read_again_from=lambda: self._read_again_from,
        )
        lag = Lag(consumer, group=self._group, settled=lambda: assignment.settled)
        work = self._new_work(consumer, assignment, lag)
        watching: asyncio.Task[None] | None = None
        consumer.subscribe(self._topics, listener=assignment)
        letters = AIOKafkaProducer(
            **client_options(self._settings), acks="all", enable_idempotence=True, compression_type="lz4"
        )
        self._trials.use(letters)
        try:
            await consumer.start()
            await letters.start()
            watching = asyncio.create_task(lag.watch())
            yield consumer, assignment, work, lag
        finally:
            if watching is not None:
                watching.cancel()
            # Or what is in hand would go on beside the next connection, which is given the same events again.
            try:
                with self._retries_ended():
                    await work.let_go(RELEASE_SECONDS)
            finally:
                lag.forget()
                await closed(consumer)
                await closed(letters)

    @contextlib.contextmanager
    def _retries_ended(self) -> Iterator[None]:
        """No retry is begun in here. Afterwards they may be, also when we are cancelled, or nothing would ever be tried twice."""
        self._trials.interrupt.set()
        try:
            yield
        finally:
            if not self._stop.is_set():
                self._trials.interrupt.clear()

    def _new_work(self, consumer: AIOKafkaConsumer, assignment: Assignment, lag: Lag) -> BatchWork | KeyedWork:
        async def commit(offsets: Mapping[TopicPartition, int]) -> None:
            await self._commit(consumer, lag, offsets)

        if self._handle_each is not None:
            return KeyedWork(
                self._counted_each,
                self._trials,
                concurrency=self._concurrency,
                most_in_hand=max(self._batch_size, self._concurrency),
                commit=commit,
                seek=assignment.seek,
            )
        return BatchWork(
            self._counted,
            self._trials,
            group=self._group,
            batch_size=self._batch_size,
            commit=commit,
            seek=assignment.seek,
        )

    async def _commit(self, consumer: AIOKafkaConsumer, lag: Lag, offsets: Mapping[TopicPartition, int]) -> None:
        # After a rebalance the partitions may be somebody else's: the events come again there, and are known by their ids.
        with contextlib.suppress(CommitFailedError, IllegalStateError):
            if offsets:
                await asyncio.wait_for(consumer.commit(dict(offsets)), COMMIT_SECONDS)
                lag.done(offsets)

    async def _consume(
        self, consumer: AIOKafkaConsumer, assignment: Assignment, work: BatchWork | KeyedWork, lag: Lag
    ) -> None:
        asked_at = time.monotonic()
        while not self._stop.is_set():
            assignment.raise_failure()
            if self._broker_restarted.is_set():
                self._broker_restarted.clear()
                raise BrokerRestarted()
            if not assignment.settled:
                await asyncio.sleep(ASSIGNMENT_POLL_SECONDS)
            if not assignment.settled or not work.room:
                if time.monotonic() - asked_at > IDLE_POLL_SECONDS:
                    await self._show_life(consumer)
                    asked_at = time.monotonic()
                if assignment.settled:
                    await work.keep_up()
                continue
            if starts := assignment.new_starts():
                # Killed before a commit, the group would look as if it stood still until the next event comes.
                await self._commit(consumer, lag, starts)
                continue  # the partitions may have been given out anew meanwhile
            generation, asked_at = assignment.generation, time.monotonic()
            records = await self._fetched(consumer, work.room)
            if generation != assignment.generation:
                assignment.put_back(records)
                continue
            for tp, batch in records.items():
                self._read_up_to[tp] = batch[-1].offset + 1
                self._read_again_from.pop(tp, None)
            lag.begin(records)
            await (work.begin(records) if records else work.keep_up())
        await work.release(RELEASE_SECONDS)

    async def _fetched(self, consumer: AIOKafkaConsumer, most: int) -> Mapping[TopicPartition, Sequence[Any]]:
        """Up to `most` records. In a rebalance aiokafka waits without end here, and must not keep us from stopping."""
        fetching = asyncio.ensure_future(consumer.getmany(timeout_ms=self._batch_wait_ms, max_records=most))
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({fetching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done():
                # Records that it may get by then are not in hand, and so not committed.
                return {}
            return fetching.result()  # type: ignore[no-any-return]
        finally:
            fetching.cancel()
            stopping.cancel()

    async def _show_life(self, consumer: AIOKafkaConsumer) -> None:
        """Ask the client for records of no partition."""
        assigned = consumer.assignment()
        consumer.pause(*assigned)
        try:
            await asyncio.wait_for(consumer.getmany(timeout_ms=0), 1.0)
        except TimeoutError:
            log.info("consumer.rebalance_lasts", group=self._group)
        finally:
            with contextlib.suppress(IllegalStateError):
                consumer.resume(*assigned)

    async def _counted(self, events: Sequence[ConsumedEvent]) -> None:
        assert self._handle is not None
        with self._span(events):
            await self._handle(events)
        for event in events:
            CONSUMED.labels(self._group, event.topic).inc()

    async def _counted_each(self, event: ConsumedEvent) -> None:
        assert self._handle_each is not None
        with self._span([event]):
            await self._handle_each(event)
        CONSUMED.labels(self._group, event.topic).inc()

    def _span(self, events: Sequence[ConsumedEvent]) -> contextlib.AbstractContextManager[Any]:
        """A span of the batch, linked with the traces of its events, so that a request can be followed to its consumers."""
        if self._settings.otlp_endpoint is None:
            return contextlib.nullcontext()
        parents = (event.message.metadata.traceparent for event in events[:TRACED_EVENTS])  # type: ignore[attr-defined]
        found = (trace.get_current_span(telemetry.extract({"traceparent": p})).get_span_context() for p in parents if p)
        return telemetry.tracer().start_as_current_span(
            f"process {self._group}",
            kind=trace.SpanKind.CONSUMER,
            links=[trace.Link(context) for context in found if context.is_valid],
            attributes={
                "messaging.system": "kafka",
                "messaging.consumer.group.name": self._group,
                "messaging.batch.message_count": len(events),
            },
            record_exception=False,
            set_status_on_exception=False,
        )
