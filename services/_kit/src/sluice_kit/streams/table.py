"""The Faust table: a plain one, of bytes, whose writes are waited for."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import Any

import faust
from faust import streams
from faust.types import FutureMessage


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

    def items(self, *args: Any, **kwargs: Any) -> Any:
        """Every record in the local store."""
        streams._current_event.set(None)  # the RocksDB store looks into one partition only while an event is current
        return super().items(*args, **kwargs)

    async def apply(self, changes: Mapping[bytes, bytes | None], *, event: Any) -> None:
        """Store changes in the partition of the event; returns when the changelog has them.

        Faust finds the partition through a context variable that `take_events` leaves unset (its private name; there is
        no public way), and RocksDB cannot do without it.
        """
        streams._current_event.set(weakref.ref(event))
        for key, value in changes.items():
            if value is not None:
                self[key] = value
            elif key in self:
                del self[key]
        await asyncio.gather(*self.take_sent())
