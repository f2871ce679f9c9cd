"""Decodes records; what cannot be decoded goes to the topic's dead letters with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.message import Message
from prometheus_client import Counter

from sluice_kit.dead_letters import Failure, dead_letter
from sluice_kit.events import Headers, decode, now
from sluice_kit.streams.source import Sender, SourceEvent
from sluice_kit.telemetry import logger

log = logger(__name__)


@dataclass(slots=True)
class _Record:
    """A record as Faust hands it over, in the form that a dead letter is made from."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def read(event: SourceEvent) -> Message:
    """The event in a record. Raises UndecodableEvent."""
    return decode(event.message.topic, event.message.value, event.message.headers)


class Senders(Protocol):
    """A runner, as far as dead letters need one."""

    @property
    def group(self) -> str:
        """Consumer group."""

    def sender(self, topic: str) -> Sender:
        """A topic to send to."""


class DeadLetters:
    """Where unreadable records go; `parked` counts them by topic."""

    def __init__(self, runner: Senders, *, parked: Counter) -> None:
        self._runner = runner
        self._parked = parked

    async def park(self, event: SourceEvent, *, reason: str) -> None:
        """Send a record to its topic's dead letters; returns when the broker has it."""
        record = _record(event)
        self._parked.labels(record.topic).inc()
        log.warning("stream.dead_letter", topic=record.topic, partition=record.partition, offset=record.offset)
        failure = Failure(reason=reason, group=self._runner.group, attempts=0, first_failed_at=now())
        letter = dead_letter(record, failure)
        target = self._runner.sender(letter.topic)
        await (await target.send(key=letter.key, value=letter.value, headers=letter.headers))


def _record(event: SourceEvent) -> _Record:
    message = event.message
    headers: Any = message.headers or {}  # Faust's own type allows a mapping; its Kafka driver gives a list
    return _Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=int(message.timestamp * 1000),
        key=message.key,
        value=message.value,
        headers=list(headers.items() if isinstance(headers, dict) else headers),
    )
