"""Decodes records; what cannot be decoded goes to the topic's dead letters with the reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import faust
from faust.types import EventT
from google.protobuf.message import Message
from sluice_kit.events import DEAD_LETTER_SUFFIX, UndecodableEvent, decode
from sluice_kit.telemetry import logger

from sluice_drift.adapters import telemetry

log = logger(__name__)


def reader(app: faust.App) -> Callable[[EventT], Awaitable[Message | None]]:
    """A function that decodes an event's bytes, or parks them and gives None."""

    async def read(event: EventT) -> Message | None:
        message = event.message
        headers = dict(message.headers or {})
        try:
            return decode(message.topic, message.value, list(headers.items()))
        except UndecodableEvent as error:
            await _park(app, event, reason=error.reason)
            return None

    return read


async def _park(app: faust.App, event: EventT, *, reason: str) -> None:
    message = event.message
    telemetry.DEAD_LETTERS.labels(message.topic).inc()
    log.warning("drift.dead_letter", topic=message.topic, partition=message.partition, offset=message.offset)
    headers = dict(message.headers or {}) | {
        "sluice_error_reason": reason.encode(),
        "sluice_source_topic": message.topic.encode(),
        "sluice_source_partition": str(message.partition).encode(),
        "sluice_source_offset": str(message.offset).encode(),
        "sluice_group": app.conf.id.encode(),
    }
    parked = app.topic(message.topic + DEAD_LETTER_SUFFIX, key_serializer="raw", value_serializer="raw")
    sent = await parked.send(key=message.key, value=message.value, headers=list(headers.items()))
    await sent
