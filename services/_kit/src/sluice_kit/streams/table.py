"""The Faust table: a plain one, of bytes, whose writes are waited for."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import Any

import faust
from faust import streams
from faust.types import TP


class ConfirmedTable(faust.Table):
    """A table whose changelog is written by the batch, and waited for.

    Faust sends changelog records in the background and commits source offsets on a timer. A kill between the two
    would lose counts; waiting for the broker's acks first turns that into a replay, which counts nothing twice. And it
    takes each record by itself through futures, sensors and a buffer, which cost more than all the counting.
    """

    def items(self, *args: Any, **kwargs: Any) -> Any:
        """Every record in the local store."""
        streams._current_event.set(None)  # the RocksDB store looks into one partition only while an event is current
        return super().items(*args, **kwargs)

    async def apply(self, changes: Mapping[bytes, bytes | None], *, event: Any) -> None:
        """Store changes in the partition of the event; returns when the changelog has them.

        RocksDB finds the partition through a context variable that only a stream sets (its private name; there is no public
        way).
        """
        streams._current_event.set(weakref.ref(event))
        partition = self.partition_for_key(None)  # that of the event, once the changelog has as many as its topic
        written = [(key, value) for key, value in changes.items() if value is not None or key in self.data]
        for key, value in written:
            if value is not None:
                self.data[key] = value
            else:
                del self.data[key]
        send, topic = self.app.producer.send, self.changelog_topic_name
        sent = [await send(topic, key, value, partition, None, None) for key, value in written]
        if told := await asyncio.gather(*sent):
            last = max(told, key=lambda each: each.offset)
            self.data.set_persisted_offset(TP(topic, last.partition), last.offset)
