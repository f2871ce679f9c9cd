"""The same for code without asyncio: a plain generator; Kafka's heartbeats go on in a thread while the loop body works."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from typing import Any, TypeVar

from sluice_events.consuming import consume
from sluice_events.event import E, Event

T = TypeVar("T")
STOP_SECONDS = 30.0


def consume_blocking(event: type[E], *more: type[E], **options: Any) -> Iterator[Event[E]]:
    """As `consume`, with the same options. Leaving the loop ends it; close() or the end of the program does, too."""
    return _blocking(consume(event, *more, **options))


def _blocking(events: AsyncGenerator[T, None]) -> Iterator[T]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="sluice-events", daemon=True)
    thread.start()
    try:
        while True:
            try:
                yield asyncio.run_coroutine_threadsafe(anext(events), loop).result()
            except StopAsyncIteration:
                return
    finally:
        asyncio.run_coroutine_threadsafe(events.aclose(), loop).result(STOP_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_SECONDS)
        loop.close()
