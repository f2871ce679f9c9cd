"""Times that no clock can say make a dead letter; all others are those of protobuf's own conversion."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from sluice.events.v1.metadata_pb2 import EventMetadata
from sluice_kit.events import UndecodableEvent
from sluice_kit.streams.times import (
    LONGEST_SPAN_SECONDS,
    MAX_SKEW_MICROSECONDS,
    duration_microseconds,
    event_time,
    timestamp_microseconds,
)

NOW = 1_760_000_000_000_000


@given(st.integers(-62_135_596_800, 253_402_300_799), st.integers(0, 999_999_999))
def test_a_time_is_protobufs_own_or_that_of_the_record(seconds: int, nanos: int) -> None:
    metadata = EventMetadata(occurred_at=Timestamp(seconds=seconds, nanos=nanos))
    own = metadata.occurred_at.ToMicroseconds()
    assert event_time(metadata, NOW) == (own if 0 <= own <= NOW + MAX_SKEW_MICROSECONDS else NOW)
    assert timestamp_microseconds(metadata.occurred_at) == own


def test_an_event_without_a_time_has_that_of_its_record() -> None:
    assert event_time(EventMetadata(), NOW) == NOW


@pytest.mark.parametrize(("seconds", "nanos"), [(2**62, 0), (-(2**62), 0), (253_402_300_800, 0), (5, -1), (5, 10**9)])
def test_a_time_that_protobuf_forbids_is_no_event(seconds: int, nanos: int) -> None:
    with pytest.raises(UndecodableEvent, match="invalid_time"):
        event_time(EventMetadata(occurred_at=Timestamp(seconds=seconds, nanos=nanos)), NOW)


@given(st.integers(-LONGEST_SPAN_SECONDS, LONGEST_SPAN_SECONDS), st.integers(0, 999_999_999))
def test_a_span_is_protobufs_own(seconds: int, nanos: int) -> None:
    span = Duration(seconds=seconds, nanos=nanos if seconds >= 0 else -nanos)
    assert duration_microseconds(span) == span.ToMicroseconds()


@pytest.mark.parametrize("seconds", [LONGEST_SPAN_SECONDS + 1, 2**62, -(2**62)])
def test_a_span_longer_than_a_month_is_no_event(seconds: int) -> None:
    with pytest.raises(UndecodableEvent, match="invalid_time"):
        duration_microseconds(Duration(seconds=seconds))
