"""The stream processor: one agent sends observations to the owner of their series, one merges them, a timer publishes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import faust
from faust.types import TP, AppT, EventT, StreamT, TopicT
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice_kit.events import topic_of
from sluice_kit.telemetry import logger

from sluice_drift.adapters.dead_letters import DeadLetters
from sluice_drift.adapters.processor import Processor
from sluice_drift.adapters.router import Router
from sluice_drift.adapters.sequence import FaustLog
from sluice_drift.adapters.table import ConfirmedTable
from sluice_drift.adapters.worker import add_pages
from sluice_drift.domain.comparison import Detection
from sluice_drift.domain.partition import Rules

OBSERVATIONS_TOPIC = "sluice-drift-observations"
"""Internal to this service, keyed by series: no contract, so no event of the protos."""

BATCH_SIZE = 1000
BATCH_SECONDS = 0.3
PUBLISH_SECONDS = 5.0
STALLED_SECONDS = 60.0

log = logger(__name__)


def declare(
    app: faust.App, *, rules: Rules, detection: Detection, publish: Callable[..., Awaitable[None]]
) -> Processor:
    """Declare table, agents, timer and pages of the drift processor on an app."""
    source = raw_topic(app, topic_of(InferenceMeasured).name)
    observations = raw_topic(app, OBSERVATIONS_TOPIC)
    windows: ConfirmedTable = app.Table(  # type: ignore[assignment]
        "series", key_type=bytes, value_type=bytes, partitions=app.conf.topic_partitions
    )
    processor = Processor(
        windows=windows,
        rules=rules,
        detection=detection,
        publish=publish,
        source=FaustLog(app),
        router=Router(target=observations, dead_letters=DeadLetters(app)),
    )
    declare_agent(app, source, processor.route)
    declare_agent(app, observations, processor.absorb)
    follow_assignment(app, windows, processor)
    publish_by_timer(app, processor, [source.get_topic_name(), OBSERVATIONS_TOPIC])
    return processor


def raw_topic(app: faust.App, name: str) -> TopicT:
    """A topic of bytes: they are decoded by us, so that poison is ours to handle."""
    return app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


def declare_agent(app: faust.App, source: TopicT, handle: Callable[[Sequence[EventT]], Awaitable[None]]) -> Any:
    """An agent that hands over batches of a topic."""

    @app.agent(source, name=f"{app.conf.id}-{source.get_topic_name()}")
    async def work(stream: StreamT) -> AsyncIterator[int]:
        async for events in cast(faust.Stream, stream).take_events(BATCH_SIZE, within=BATCH_SECONDS):
            await stop_on_error(app, handle, events)
            yield len(events)

    return work


async def stop_on_error(app: AppT, handle: Callable[..., Awaitable[None]], events: Sequence[EventT]) -> None:
    """A batch merged by half must never be followed by another: the offsets would cover the gap. So the process ends,
    and its successor reads the batch again."""
    try:
        await handle(events)
    except Exception as error:
        log.critical("drift.batch_failed", error=type(error).__name__, events=len(events))
        await app.crash(error)
        raise


def follow_assignment(app: faust.App, windows: ConfirmedTable, processor: Processor) -> None:
    """Forget everything when partitions move, and take up what the table holds once it is recovered."""

    @app.on_partitions_revoked.connect(weak=False)
    async def pause(app: AppT, revoked: set[TP], **_: Any) -> None:
        processor.pause()

    @windows.on_recover
    async def resume() -> None:
        assigned = {tp.partition for tp in app.consumer.assignment() if tp.topic == OBSERVATIONS_TOPIC}
        processor.pause()
        processor.resume(assigned)
        log.info("drift.ready", partitions=sorted(assigned))


def publish_by_timer(app: faust.App, processor: Processor, topics: Sequence[str]) -> None:
    """Publish what is due every few seconds; an exception in a Faust timer would end the worker."""
    last_tick = time.monotonic()

    @app.timer(PUBLISH_SECONDS, name="publish-windows")
    async def tick() -> None:
        nonlocal last_tick
        last_tick = time.monotonic()
        if not processor.recovered or not app.flow_control.is_active():
            return
        try:
            await processor.align([tp for tp in app.consumer.assignment() if tp.topic in topics])
            await processor.publish_due()
        except Exception as error:
            log.warning("drift.publish_failed", error=type(error).__name__)

    add_pages(app, is_ready=lambda: processor.recovered and time.monotonic() - last_tick < STALLED_SECONDS)
