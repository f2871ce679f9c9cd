"""The Faust table: a plain one, of bytes, whose writes are waited for."""

from __future__ import annotations

import asyncio
import weakref
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import faust
from faust import streams
from faust.types import EventT, FutureMessage

RecordT = TypeVar("RecordT")


class Records(Protocol[RecordT]):
    """A service's records as bytes; a module with these three functions fits."""

    def encode(self, record: RecordT) -> bytes:
        """The record's bytes."""

    def decode(self, key: bytes, value: bytes) -> RecordT:
        """The record under a key."""

    def partition_of(self, key: bytes) -> int:
        """The partition a key belongs to."""


class ConfirmedTable(faust.Table):
    """A table that remembers the futures of its changelog records, so that events are acknowledged after them.

    Faust sends changelog records in the background and commits source offsets on a timer. A kill between the two
    would lose counts; waiting for the broker's acks first turns that into a replay, which counts nothing twice.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sent: list[FutureMessage] = []

    def send_changelog(self, *args: Any, **kwargs: Any) -> FutureMessage:
        """Send, and keep the future."""
        future = super().send_changelog(*args, **kwargs)
        self._sent.append(future)
        return future

    def take_sent(self) -> list[FutureMessage]:
        """Futures of what was sent since the last call."""
        sent, self._sent = self._sent, []
        return sent


def load(table: ConfirmedTable, records: Records[RecordT]) -> dict[int, list[RecordT]]:
    """Every record in the local store, by partition. O(records): once per assignment."""
    streams._current_event.set(None)  # the RocksDB store looks into one partition only while an event is current
    found: defaultdict[int, list[RecordT]] = defaultdict(list)
    for key, value in table.items():
        found[records.partition_of(key)].append(records.decode(key, value))
    return dict(found)


async def write(
    table: ConfirmedTable, records: Records[RecordT], changes: Mapping[str, RecordT | None], *, event: EventT
) -> None:
    """Store changes in the partition of the event; returns when the changelog has them.

    Faust finds the partition through a context variable that `take_events` leaves unset (its private name; there is
    no public way), and RocksDB cannot do without it.
    """
    streams._current_event.set(weakref.ref(event))
    for key, record in changes.items():
        encoded = key.encode()
        if record is not None:
            table[encoded] = records.encode(record)
        elif encoded in table:
            del table[encoded]
    await asyncio.gather(*table.take_sent())
