"""Times in events, as integers. What no clock can say makes the record a dead letter: it must never stop its partition."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sluice_kit.events import UndecodableEvent

INVALID_TIME = "invalid_time"
"""Why such a record is a dead letter."""
MAX_SKEW_MICROSECONDS = 300_000_000
"""An event dated later than this after its record was written has a wrong clock: the record's time is taken instead,
because one such event would otherwise push the watermark ahead and make everything after it late."""
LONGEST_SPAN_SECONDS = 31 * 86_400
"""Nothing that is measured takes longer than a month, the bound of the cost service; a sum of longer ones would outgrow the
64 bits that tables and events have for it."""

_MICRO = 1_000_000
_NANOS = 1_000_000_000


def event_time(metadata: Any, record_time: int) -> int:
    """When an event happened, in microseconds; `record_time`, the Kafka record's, where it does not say or is ahead of that.

    Raises UndecodableEvent for a timestamp that protobuf forbids.
    """
    if not metadata.HasField("occurred_at"):
        return record_time
    moment = metadata.occurred_at
    nanos = moment.nanos
    at: int = moment.seconds * _MICRO + nanos // 1000
    if 0 <= at <= record_time + MAX_SKEW_MICROSECONDS and 0 <= nanos < _NANOS:
        return at
    timestamp_microseconds(moment)
    return record_time


def timestamp_microseconds(moment: Timestamp) -> int:
    """As Timestamp.ToMicroseconds. Raises UndecodableEvent for what protobuf forbids: years beyond 9999, negative nanoseconds."""
    try:
        return moment.ToMicroseconds()
    except ValueError:
        raise UndecodableEvent(INVALID_TIME) from None


def duration_microseconds(span: Duration) -> int:
    """As Duration.ToMicroseconds, which is plain Python and takes three times as long. Raises UndecodableEvent for a span longer
    than anything takes."""
    seconds, nanos = span.seconds, span.nanos
    if not -LONGEST_SPAN_SECONDS <= seconds <= LONGEST_SPAN_SECONDS:
        raise UndecodableEvent(INVALID_TIME)
    return seconds * _MICRO + (nanos // 1000 if nanos >= 0 else -(-nanos // 1000))
