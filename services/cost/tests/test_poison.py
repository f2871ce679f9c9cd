"""Events of times that cannot be are refused: the consumer puts what fails again and again on the dead letters."""

from __future__ import annotations

from typing import Any

import pytest
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice_cost.consumer import completion_of, measured_of
from sluice_kit.consumer import ConsumedEvent


def event_of(message: Any) -> ConsumedEvent:
    return ConsumedEvent(
        message=message, topic="t", partition=0, offset=0, key=b"", headers={}, event_id="e", timestamp_ms=0
    )


@pytest.mark.parametrize("seconds", [2**62, -(2**62), 253_402_300_800])
def test_an_event_of_an_impossible_moment_is_refused(seconds: int) -> None:
    for message, read in ((RequestCompleted(), completion_of), (InferenceMeasured(), measured_of)):
        message.metadata.occurred_at.seconds = seconds
        with pytest.raises((ValueError, OverflowError)):
            read(event_of(message))


def test_a_verdict_that_took_longer_than_anything_takes_is_refused() -> None:
    message = ContentModerated()
    message.latency.seconds = 2**62
    with pytest.raises(ValueError, match="it must be 0 to"):
        measured_of(event_of(message))
