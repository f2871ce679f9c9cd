"""Notices that the embedded broker died and came back: it may have lost what it acknowledged just before, and give the offsets again."""

import asyncio
from collections.abc import Awaitable, Callable

from sluice_kit.settings import MeshSettings
from sluice_kit.telemetry import logger

log = logger(__name__)

RECONNECT_SECONDS = 0.3


async def watch_embedded_broker(
    settings: MeshSettings, *, restarted: Callable[[], Awaitable[None]], seen: Callable[[bool], None] = lambda _: None
) -> None:
    """Hold a connection open; when it broke and there is another, `restarted` is awaited. `seen` tells whether there is one."""
    host, port = settings.kafka_bootstrap.split(",")[0].rsplit(":", 1)
    connected_before = False
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(RECONNECT_SECONDS)
            continue
        if connected_before:
            await restarted()
        connected_before = True
        seen(True)
        try:
            await reader.read(1)
        except OSError as error:
            log.debug("broker.watch_broken", error=type(error).__name__)
        finally:
            seen(False)
            writer.close()
        await asyncio.sleep(0.1)
