"""Decodes records; what cannot be decoded goes to the topic's dead letters with the reason."""

from __future__ import annotations

import faust
from faust.types import EventT
from google.protobuf.message import Message
from sluice_kit.events import DEAD_LETTER_SUFFIX, decode
from sluice_kit.telemetry import logger

from sluice_drift.adapters import telemetry

log = logger(__name__)


def read(event: EventT) -> Message:
    """The event in a record. Raises UndecodableEvent."""
    return decode(event.message.topic, event.message.value, dict(event.message.headers or {}))


class DeadLetters:
    """Where unreadable records go."""

    def __init__(self, app: faust.App) -> None:
        self._app = app

    async def park(self, event: EventT, *, reason: str) -> None:
        """Send a record to its topic's dead letters; returns when the broker has it."""
        message = event.message
        telemetry.DEAD_LETTERS.labels(message.topic).inc()
        log.warning("drift.dead_letter", topic=message.topic, partition=message.partition, offset=message.offset)
        headers = dict(message.headers or {}) | {
            "sluice_error_reason": reason.encode(),
            "sluice_source_topic": message.topic.encode(),
            "sluice_source_partition": str(message.partition).encode(),
            "sluice_source_offset": str(message.offset).encode(),
            "sluice_group": self._app.conf.id.encode(),
        }
        parked = self._app.topic(message.topic + DEAD_LETTER_SUFFIX, key_serializer="raw", value_serializer="raw")
        await (await parked.send(key=message.key, value=message.value, headers=list(headers.items())))
