"""The stream processor: one agent per source topic, one timer that publishes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import faust
from faust.types import TP, AppT, EventT, StreamT
from google.protobuf.message import Message
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice_kit.events import topic_of
from sluice_kit.telemetry import logger

from sluice_quality.adapters.dead_letters import DeadLetters
from sluice_quality.adapters.processor import Processor
from sluice_quality.adapters.sequence import FaustLog
from sluice_quality.adapters.table import ConfirmedTable
from sluice_quality.adapters.worker import add_pages
from sluice_quality.domain.partition import Rules

SOURCES: Sequence[type[Message]] = (RequestCompleted, ContentModerated, FeedbackReceived)
"""All keyed by request id with the same number of partitions, so that a partition sees all of a request."""

BATCH_SIZE = 5000
BATCH_SECONDS = 1.0
"""A window is stored once a batch, and every series is in every partition: 96 series at 3,000 events/s were 384 writes
for 600 events at 0.2 s, a quarter of the CPU time; at 1 s they are 384 for 3,000."""
PUBLISH_SECONDS = 2.0
PUBLISH_REST = 20
"""After publishing for t seconds it rests for 20 t: hundreds of open windows cost a third of the CPU time otherwise."""
LONGEST_REST_SECONDS = 15.0
STALLED_SECONDS = 30.0

log = logger(__name__)


def declare(app: faust.App, *, rules: Rules, publish: Callable[..., Awaitable[None]]) -> Processor:
    """Declare table, agents, timer and pages of the quality processor on an app."""
    topics = [topic_of(event).name for event in SOURCES]
    windows: ConfirmedTable = app.Table(  # type: ignore[assignment]
        "windows", key_type=bytes, value_type=bytes, partitions=app.conf.topic_partitions
    )
    processor = Processor(
        windows=windows,
        rules=rules,
        dead_letters=DeadLetters(app),
        publish=publish,
        source=FaustLog(app),
    )
    for topic in topics:
        declare_agent(app, topic, processor)
    follow_assignment(app, windows, processor, topics)
    publish_by_timer(app, processor, topics)
    return processor


def declare_agent(app: faust.App, topic: str, processor: Processor) -> Any:
    """An agent that hands over batches of a topic; bytes are decoded inside, so that poison is ours to handle."""
    source = app.topic(
        topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", internal=False
    )

    @app.agent(source, name=f"{app.conf.id}-{topic}")
    async def merge(stream: StreamT) -> AsyncIterator[int]:
        async for events in cast(faust.Stream, stream).take_events(BATCH_SIZE, within=BATCH_SECONDS):
            await stop_on_error(app, processor.absorb, events)
            yield len(events)

    return merge


async def stop_on_error(app: AppT, absorb: Callable[..., Awaitable[None]], events: Sequence[EventT]) -> None:
    """A batch merged by half must never be followed by another: the offsets would cover the gap. So the process ends,
    and its successor reads the batch again."""
    try:
        await absorb(events)
    except Exception as error:
        log.critical("quality.batch_failed", error=type(error).__name__, events=len(events))
        await app.crash(error)
        raise


def follow_assignment(app: faust.App, windows: ConfirmedTable, processor: Processor, topics: Sequence[str]) -> None:
    """Forget everything when partitions move, and take up what the table holds once it is recovered."""

    @app.on_partitions_revoked.connect(weak=False)
    async def pause(app: AppT, revoked: set[TP], **_: Any) -> None:
        processor.pause()

    @windows.on_recover
    async def resume() -> None:
        assigned = {tp.partition for tp in app.consumer.assignment() if tp.topic in topics}
        processor.pause()
        processor.resume(assigned)
        log.info("quality.ready", partitions=sorted(assigned))


def publish_by_timer(app: faust.App, processor: Processor, topics: Sequence[str]) -> None:
    """Publish what is due every two seconds; less often when there is so much that it would hold up the counting.

    An exception in a Faust timer would end the worker.
    """
    last_tick, next_round = time.monotonic(), 0.0

    @app.timer(PUBLISH_SECONDS, name="publish-windows")
    async def tick() -> None:
        nonlocal last_tick, next_round
        last_tick = time.monotonic()
        if not processor.recovered or not app.flow_control.is_active():
            return
        try:
            await processor.align([tp for tp in app.consumer.assignment() if tp.topic in topics])
            if last_tick >= next_round:
                await processor.publish_due()
        except Exception as error:
            log.warning("quality.publish_failed", error=type(error).__name__)
        if last_tick >= next_round:
            next_round = last_tick + min(PUBLISH_REST * (time.monotonic() - last_tick), LONGEST_REST_SECONDS)

    add_pages(app, is_ready=lambda: processor.recovered and time.monotonic() - last_tick < STALLED_SECONDS)
