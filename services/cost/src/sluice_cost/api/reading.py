"""Reads parts that several requests have in common; what is wrong is refused with its field."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from sluice_kit.errors import InvalidInput


def moment(timestamp: Timestamp, field: str) -> datetime:
    """A moment, UTC. Raises InvalidInput."""
    try:
        return timestamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput("The time is out of range.", field=field) from None
