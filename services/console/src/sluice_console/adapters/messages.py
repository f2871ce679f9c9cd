"""Times and money of protobuf as the pages have them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from sluice.types.v1 import money_pb2

from sluice_console.domain.answers import Amount


def moment(message: Any, name: str) -> datetime | None:
    """A field that is a time, UTC; None where it is absent."""
    return getattr(message, name).ToDatetime(tzinfo=UTC) if message.HasField(name) else None


def optional(message: Any, name: str) -> float | None:
    """A field that is a number; None where it is absent."""
    return getattr(message, name) if message.HasField(name) else None


def timestamp(at: datetime) -> Timestamp:
    """A time."""
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def amount(money: money_pb2.Money) -> Amount:
    """Money."""
    return Amount(money.currency_code, money.nano_units)
