"""The plain runner, the fast lane: a loop over aiokafka behind the interface that processors are declared on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

from aiokafka import AIOKafkaProducer, TopicPartition

from sluice_kit import process
from sluice_kit.health import HealthBoard
from sluice_kit.kafka_client import closed
from sluice_kit.metrics import MetricsServer
from sluice_kit.process import StartFailed
from sluice_kit.server import stop_on_signals
from sluice_kit.streams.holding import AnyHolding
from sluice_kit.streams.options import Rhythm, WorkerOptions
from sluice_kit.streams.plain_changelog import ChangelogTable
from sluice_kit.streams.plain_reading import PlainLog, Reading, fetch_plain_records
from sluice_kit.streams.rounds import PublishRounds
from sluice_kit.streams.runner import Publisher
from sluice_kit.streams.source import Handle, Sender
from sluice_kit.telemetry import logger

log = logger(__name__)


class PlainTopic:
    """A Sender."""

    def __init__(self, runner: PlainRunner, name: str) -> None:
        self._runner, self._name = runner, name

    async def send(
        self, *, key: bytes | None = None, value: bytes | None = None, headers: Any = None
    ) -> Awaitable[Any]:
        """Hand a record over; what comes back is done when the broker has it."""
        sent = await self._runner.producer.send(self._name, value, key, headers=list(headers or ()))
        return cast(Awaitable[Any], sent)


class _Board:
    """What /healthz says: a HealthBoard, as far as MetricsServer reads one."""

    def __init__(self) -> None:
        self.rounds: PublishRounds | None = None

    @property
    def checks(self) -> dict[str, bool]:
        return {"stream": self.serving}

    @property
    def serving(self) -> bool:
        return self.rounds is not None and self.rounds.is_ready


class PlainRunner:
    """A Runner."""

    def __init__(self, options: WorkerOptions) -> None:
        if options.store != "memory://":
            raise SystemExit(
                f"The plain runner has no {options.store}: it needs memory://, or SLUICE_STREAMS_RUNNER=faust."
            )
        options.data_dir.mkdir(parents=True, exist_ok=True)
        self.group = options.group
        self._options = options
        self._log = PlainLog(options.client)
        self._handlers: dict[str, tuple[Handle, Rhythm]] = {}
        self._table: ChangelogTable | None = None
        self._follow: Callable[[Sequence[TopicPartition]], Awaitable[None]] | None = None
        self._holding: AnyHolding | None = None
        self._board = _Board()
        self._publish_seconds = 1.0
        self._publisher: Publisher | None = None
        self._reading: Reading | None = None
        self._producer: AIOKafkaProducer | None = None

    @property
    def producer(self) -> AIOKafkaProducer:
        """What changelog, dead letters and senders write with."""
        assert self._producer is not None, "nothing can be sent before the runner runs"
        return self._producer

    def table(self, name: str) -> ChangelogTable:
        """The processor's table."""
        self._table = ChangelogTable(name, self._options)
        return self._table

    def source(self) -> PlainLog:
        """The log that it reads."""
        return self._log

    def sender(self, topic: str) -> Sender:
        """A topic to send to."""
        return PlainTopic(self, topic)

    def read(self, topic: str, handle: Handle, *, rhythm: Rhythm) -> None:
        """Hand over batches of a topic."""
        self._handlers[topic] = (handle, rhythm)

    def follow_assignment(self, holding: AnyHolding, topics: Sequence[str]) -> None:
        """Forget everything when partitions move, and take up what the table holds once it is recovered."""
        self._holding = holding

        async def take_up(places: Sequence[TopicPartition]) -> None:
            holding.pause()
            await self._stored.recover({tp.partition for tp in places})
            holding.resume({tp.partition for tp in places if tp.topic in topics})
            await holding.align(places)

        self._follow = take_up

    def publish_by_timer(
        self, holding: AnyHolding, topics: Sequence[str], publish_due: Callable[[], Awaitable[None]], *, rhythm: Rhythm
    ) -> None:
        """Publish what is due now and then; serve /healthz and /metrics."""

        def assigned() -> list[TopicPartition] | None:
            held = self._reading.assigned if self._reading else None
            return None if held is None else [tp for tp in held if tp.topic in topics]

        self._publish_seconds = rhythm.publish_seconds
        self._board.rounds = PublishRounds(holding, publish_due, name=self.group, rhythm=rhythm, assigned=assigned)

    def host(self, publisher: Publisher) -> None:
        """Start and stop a publisher with the processor, in its event loop."""
        self._publisher = publisher

    def run(self) -> None:
        """Run until SIGTERM or SIGINT; exits the process."""
        # A batch makes a quarter of a million objects, none of them in a cycle, beside the windows, which stay: looking through
        # them at every 100,000 took a fifth of the CPU time.
        gc.set_threshold(1_000_000, 20, 50)
        fetch_plain_records()
        process.run(self._serve)

    @property
    def _stored(self) -> ChangelogTable:
        if self._table is None or self._holding is None or self._board.rounds is None:
            raise StartFailed("the processor was not declared on its runner.")
        return self._table

    async def _serve(self) -> None:
        stop = stop_on_signals()
        listen = f"{self._options.web_host}:{self._options.web_port}"
        pages = MetricsServer(listen, cast(HealthBoard, self._board), variable="the web_listen setting")
        try:
            await self._stored.ensure_topic()
            async with self._connected():
                await self._work(stop)
        finally:
            await asyncio.to_thread(pages.stop)

    @contextlib.asynccontextmanager
    async def _connected(self) -> Any:
        """Producer and publisher, in the order in which they need one another."""
        self._producer = AIOKafkaProducer(
            **self._options.client,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            # A batch of windows is a megabyte: with aiokafka's 16 KiB it went in sixty pieces.
            max_batch_size=512 << 10,
            # A changelog is written by one and read once: aiokafka packs lz4 at level 9, eight times the CPU time for a fifth fewer bytes.
            compression_type="snappy",
        )
        self._stored.use(self._producer)
        await self._producer.start()
        try:
            if self._publisher:
                await self._publisher.start()
            yield
        finally:
            if self._publisher:
                await self._publisher.stop()
            await closed(self._producer)

    async def _work(self, stop: asyncio.Event) -> None:
        assert self._follow is not None, "the processor was not declared on its runner"
        self._reading = Reading(self._options, self._handlers, revoke=self._forget, take_up=self._follow)
        self._log.consumer = self._reading.consumer
        timer = asyncio.create_task(self._tick_for_ever())
        timer.add_done_callback(lambda _: stop.set())
        try:
            await self._reading.run(stop)
            if timer.done():
                timer.result()  # it ends by an error alone
        except Exception as error:
            log.critical("stream.failed", app=self.group, **process.describe(error))
            raise
        finally:
            timer.cancel()
            await asyncio.wait({timer})

    def _forget(self) -> None:
        assert self._holding is not None
        self._holding.pause()
        self._stored.forget()

    async def _tick_for_ever(self) -> None:
        assert self._board.rounds is not None
        while True:
            await self._board.rounds.tick()
            await asyncio.sleep(self._publish_seconds)
