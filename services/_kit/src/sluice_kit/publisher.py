"""Publishes events: into the durable outbox at once, and from there to Kafka in order, however long Kafka is away."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from google.protobuf.message import Message
from prometheus_client import Counter, Gauge

from sluice_kit import context
from sluice_kit.broker import client_options
from sluice_kit.events import new_event_id, now
from sluice_kit.outbox import Outbox, OutboxRow
from sluice_kit.settings import MeshSettings
from sluice_kit.telemetry import logger

log = logger(__name__)

DEPTH = Gauge("sluice_outbox_depth", "Events that wait to be acknowledged by Kafka.", ("producer",))
OLDEST = Gauge("sluice_outbox_oldest_seconds", "Age of the oldest event that waits.", ("producer",))
PUBLISHED = Counter("sluice_events_published_total", "Events acknowledged by Kafka.", ("topic",))
FAILURES = Counter("sluice_event_publish_failures_total", "Attempts to reach Kafka that failed.", ("error",))

BATCH_ROWS = 1000
# The embedded broker acknowledges before it writes: after a hard kill up to a second or two is gone (kafka-faust.md 1.2).
EMBEDDED_KEEP_SECONDS = 5.0
FLUSH_SECONDS = 5.0
SCHEMA_VERSION = 1


class EventPublisher:
    """`await publish(event)` returns when the event is on disk, in well under a millisecond; it never waits for Kafka."""

    def __init__(self, *, producer: str, settings: MeshSettings, outbox_path: Path | None = None) -> None:
        self._settings = settings
        name = producer.replace("/", "-")
        self._outbox = Outbox(outbox_path or settings.home / "outbox" / f"{name}.db", producer=producer)
        self._label = producer
        self._appended = asyncio.Event()
        self._stopping = False
        self._relay: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._last_sent = 0

    @property
    def depth(self) -> int:
        """Events that are not acknowledged by Kafka yet."""
        return self._outbox.depth

    async def start(self) -> None:
        """Begin to relay. Kafka may be away."""
        self._relay = asyncio.create_task(self._run(), name="outbox-relay")
        if self._settings.kafka_embedded:
            self._watch = asyncio.create_task(self._watch_embedded_broker(), name="outbox-broker-watch")

    async def stop(self) -> None:
        """Give the relay a few seconds to drain; what is left stays on disk for the next start."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._relay and not self._relay.done() and self.depth and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        self._stopping = True
        for task in (self._relay, self._watch):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        if self.depth:
            log.warning("outbox.left_for_next_start", events=self.depth)
        await asyncio.to_thread(self._outbox.close)

    async def publish(self, *events: Message) -> None:
        """Complete the metadata of events and store them durably. ResourceExhausted (OUTBOX_FULL) when the disk queue is full.

        The request, tenant, project, subject and trace are taken from the current context where the event has none.
        """
        for event in events:
            self._complete(event.metadata)  # type: ignore[attr-defined]
        await self._outbox.append(events)
        self._appended.set()

    def _complete(self, metadata: Any) -> None:
        here = context.current()
        metadata.event_id = metadata.event_id or new_event_id()
        if not metadata.HasField("occurred_at"):
            metadata.occurred_at.FromDatetime(now())
        metadata.producer = self._outbox.producer
        metadata.schema_version = metadata.schema_version or SCHEMA_VERSION
        for field in ("request_id", "tenant_id", "project_id", "subject_id", "traceparent"):
            if not getattr(metadata, field):
                setattr(metadata, field, getattr(here, field))
        metadata.synthetic = metadata.synthetic or here.synthetic

    # --- the relay ---

    async def _run(self) -> None:
        pause = 0.2
        while not self._stopping:
            producer = self._new_producer()
            try:
                await producer.start()
                pause = 0.2
                await self._drain(producer)
            except (KafkaError, OSError, TimeoutError) as error:
                FAILURES.labels(type(error).__name__).inc()
                log.warning("outbox.kafka_away", error=type(error).__name__, waiting=self.depth)
                self._last_sent = 0
                self._report(None)
            finally:
                with contextlib.suppress(KafkaError, OSError, TimeoutError):
                    await asyncio.wait_for(producer.stop(), 10)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)

    def _new_producer(self) -> AIOKafkaProducer:
        return AIOKafkaProducer(
            **client_options(self._settings),
            acks="all",
            enable_idempotence=True,
            compression_type="lz4",
            linger_ms=10,
            max_batch_size=64 * 1024,
            request_timeout_ms=15_000,
        )

    async def _drain(self, producer: AIOKafkaProducer) -> None:
        while True:
            self._appended.clear()
            rows = await self._outbox.call(self._outbox.pending, self._last_sent, BATCH_ROWS)
            self._report(rows)
            if rows:
                await self._send(producer, rows)
                continue
            if self._settings.kafka_embedded:
                await self._outbox.call(self._outbox.forget_acknowledged, time.time() - EMBEDDED_KEEP_SECONDS)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._appended.wait(), 1.0)

    def _report(self, rows: list[OutboxRow] | None) -> None:
        DEPTH.labels(self._label).set(self.depth)
        if rows is not None:
            OLDEST.labels(self._label).set(time.time() - rows[0].created if rows else 0)

    async def _send(self, producer: AIOKafkaProducer, rows: list[OutboxRow]) -> None:
        """Send rows in order and acknowledge those the broker took. Raises the first failure; the rest is sent again later."""
        waiting = [await producer.send(r.topic, key=r.key, value=r.value, headers=r.headers) for r in rows]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        taken = [row for row, result in zip(rows, results, strict=True) if not isinstance(result, BaseException)]
        if taken:
            await self._outbox.call(self._outbox.acknowledge, [row.id for row in taken], self._settings.kafka_embedded)
            for row in taken:
                PUBLISHED.labels(row.topic).inc()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        self._last_sent = rows[-1].id

    async def _watch_embedded_broker(self) -> None:
        """Hold a connection open; when it breaks the broker died, and what it acknowledged just before is sent again."""
        host, port = self._settings.kafka_bootstrap.split(",")[0].rsplit(":", 1)
        connected_before = False
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.3)
                continue
            if connected_before:
                await self._send_again()
            connected_before = True
            try:
                await reader.read(1)
            except OSError:
                pass
            finally:
                writer.close()
            await asyncio.sleep(0.1)

    async def _send_again(self) -> None:
        # The outage itself is unknown in length: every row still kept is younger than the broker's last seconds.
        again = await self._outbox.call(self._outbox.reopen_acknowledged, 0.0)
        self._last_sent = 0
        self._appended.set()
        log.warning("outbox.broker_restarted", sent_again=again)
