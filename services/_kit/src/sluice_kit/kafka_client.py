"""Living with the Kafka client library: closing it for sure, and telling its own cancellations from ours."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from sluice_kit.telemetry import logger

log = logger(__name__)

CLOSE_SECONDS = 10.0


async def closed(client: Any) -> None:
    """Stop an aiokafka consumer or producer, in at most ten seconds a part, whatever it raises.

    aiokafka 0.14 cancels tasks of its own while it closes, and lets their CancelledError out (a consumer whose fetch was
    just waiting to try again). It would end whoever awaits it without a trace, and leave the connections open.
    """
    if await _ended(client.stop()):
        return
    for part in ("_coordinator", "_client"):
        if (inner := getattr(client, part, None)) is not None:
            await _ended(inner.close())


async def _ended(closing: Any) -> bool:
    task = asyncio.ensure_future(closing)
    await asyncio.wait({task}, timeout=CLOSE_SECONDS)
    if not task.done():
        task.cancel()
        # It may swallow that: so we do not wait for it.
        task.add_done_callback(_retrieved)
        return False
    return _retrieved(task)


def _retrieved(task: "asyncio.Future[Any]") -> bool:
    """Whether it ended well; what it raised is of no use to anybody while closing."""
    if task.cancelled():
        return False
    error = task.exception()
    if error is not None:
        log.debug("kafka.close_failed", error=type(error).__name__)
    return error is None


@contextlib.contextmanager
def its_cancellations_are_errors() -> Iterator[None]:
    """Turn a CancelledError that nobody meant for the running task into a ConnectionError."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError("the Kafka client cancelled a call of its own") from None
