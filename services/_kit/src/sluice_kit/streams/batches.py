"""Batches of events from the queue that Faust fills for an agent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, cast

import faust
from faust.types import ChannelT, EventT, StreamT

from sluice_kit.streams.options import Rhythm

LOOK_SECONDS = 0.02
"""So often the queue is emptied while a batch fills: at 10,000 events/s long before its 4,096 places are full."""


async def batches(app: faust.App, stream: StreamT, *, rhythm: Rhythm) -> AsyncGenerator[list[EventT], None]:
    """Up to `batch_size` events, or what came within `batch_seconds` of the first; acknowledged when the next batch is asked for.

    As `Stream.take_events`, without taking each event through the stream by itself: its sensors, context and processors, of
    which nothing is used here, were a quarter of a worker's CPU time (docs/streams.md). Events of before a rebalance are
    dropped, and unlike the stream's not acknowledged. A batch whose handling failed is not acknowledged. Ends with the worker; raises what
    the queue was told to raise.
    """
    while events := await _batch(cast(ChannelT, stream.channel), rhythm):
        if current := [event for event in events if _is_current(app, event)]:
            for tp in {event.message.tp for event in current}:  # Faust reports a stream that stands still by this
                app.monitor.stream_inbound_time[tp] = time.monotonic()
            yield current
            for event in current:
                event.ack()


async def _batch(channel: ChannelT, rhythm: Rhythm) -> list[EventT]:
    """Empty once the stream has ended."""
    clock = asyncio.get_running_loop().time
    try:
        events = [await anext(channel)]
        until = clock() + rhythm.batch_seconds
        while True:
            _empty(channel.queue, events, rhythm.batch_size)
            left = until - clock()
            if len(events) >= rhythm.batch_size or left <= 0:
                return events
            await asyncio.sleep(min(LOOK_SECONDS, left))
    except StopAsyncIteration:  # thrown into the queue of a stream that is stopped
        return []


def _empty(queue: Any, events: list[EventT], size: int) -> None:
    for _ in range(min(queue.qsize(), size - len(events))):
        events.append(queue.get_nowait())


def _is_current(app: faust.App, event: EventT) -> bool:
    return bool(app.flow_control.is_active() and event.message.generation_id == app.consumer_generation_id)
