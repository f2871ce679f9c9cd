"""Agents, assignment and timer of a stream processor: five lines of Faust round a service's own aggregation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, cast

import faust
from faust.types import TP, AppT, EventT, StreamT, TopicT

from sluice_kit.streams.batches import batches
from sluice_kit.streams.holding import AnyHolding
from sluice_kit.streams.options import Rhythm
from sluice_kit.streams.rounds import PublishRounds
from sluice_kit.streams.source import Handle
from sluice_kit.streams.table import ConfirmedTable
from sluice_kit.streams.worker import add_pages
from sluice_kit.telemetry import logger

log = logger(__name__)


def confirmed_table(app: faust.App, name: str) -> ConfirmedTable:
    """A table of bytes whose writes are waited for."""
    made = app.Table(name, key_type=bytes, value_type=bytes, partitions=app.conf.topic_partitions)
    return cast(ConfirmedTable, made)


def raw_topic(app: faust.App, name: str) -> TopicT:
    """A topic of bytes: they are decoded by us, so that poison is ours to handle."""
    return app.topic(
        name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", internal=False
    )


def declare_agent(app: faust.App, source: TopicT, handle: Handle, *, rhythm: Rhythm) -> Any:
    """An agent that hands over batches of a topic."""

    @app.agent(source, name=f"{app.conf.id}-{source.get_topic_name()}")
    async def work(stream: StreamT) -> AsyncIterator[int]:
        async for events in batches(app, stream, rhythm=rhythm):
            await stop_on_error(app, handle, events)
            yield len(events)

    return work


async def stop_on_error(app: AppT, handle: Handle, events: Sequence[EventT]) -> None:
    """A batch merged by half must never be followed by another: the offsets would cover the gap. So the process ends,
    and its successor reads the batch again."""
    try:
        await handle(events)
    except Exception as error:
        log.critical("stream.batch_failed", app=app.conf.id, error=type(error).__name__, events=len(events))
        await app.crash(error)
        raise


def follow_assignment(app: faust.App, stored: ConfirmedTable, holding: AnyHolding, topics: Sequence[str]) -> None:
    """Forget everything when partitions move, and take up what the table holds once it is recovered."""

    @app.on_partitions_revoked.connect(weak=False)
    async def pause(app: AppT, revoked: set[TP], **_: Any) -> None:
        holding.pause()

    @stored.on_recover
    async def resume() -> None:
        assigned = {tp.partition for tp in app.consumer.assignment() if tp.topic in topics}
        holding.pause()
        holding.resume(assigned)
        log.info("stream.ready", app=app.conf.id, partitions=sorted(assigned))


def publish_by_timer(
    app: faust.App,
    holding: AnyHolding,
    topics: Sequence[str],
    publish_due: Callable[[], Awaitable[None]],
    *,
    rhythm: Rhythm,
) -> None:
    """Publish what is due now and then."""

    def assigned() -> list[TP] | None:
        held = app.consumer.assignment() if app.flow_control.is_active() else None
        return None if held is None else [tp for tp in held if tp.topic in topics]

    rounds = PublishRounds(holding, publish_due, name=app.conf.id, rhythm=rhythm, assigned=assigned)

    @app.timer(rhythm.publish_seconds, name="publish-windows")
    async def tick() -> None:
        await rounds.tick()

    add_pages(app, is_ready=lambda: rounds.is_ready)
