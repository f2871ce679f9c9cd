"""Ends a Kafka client, whatever it does meanwhile."""

import asyncio
from typing import Any


async def stopped(client: Any, *, seconds: float) -> None:
    """Stop an aiokafka client, in at most so many seconds.

    aiokafka 0.14 cancels tasks of its own while it stops and can let their CancelledError out, also through wait_for: awaited
    directly it would end the program's own task as if that had been cancelled.
    """
    stopping = asyncio.ensure_future(client.stop())
    await asyncio.wait({stopping}, timeout=seconds)
    if not stopping.done():
        stopping.cancel()
        stopping.add_done_callback(_retrieved)  # it may swallow that: so it is not waited for
        return
    _retrieved(stopping)


def _retrieved(ended: "asyncio.Future[None]") -> None:
    """What a client raises while it stops is of no use to anybody; asyncio would print it."""
    if not ended.cancelled():
        ended.exception()
