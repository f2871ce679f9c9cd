"""The windows of budgets: moments are whole microseconds since 1970, UTC."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum

MINUTE_US = 60_000_000
DAY_US = 24 * 60 * MINUTE_US
LONGEST_ROLLING_MINUTES = 90 * 24 * 60

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class WindowKind(StrEnum):
    """Over which time a budget counts."""

    DAY = "day"
    MONTH = "month"
    ROLLING = "rolling"


def bucket_of(kind: WindowKind, at: int) -> int:
    """First moment of the bucket that `at` is counted in: a day, a month, or for rolling windows a minute."""
    if kind is WindowKind.DAY:
        return at - at % DAY_US
    if kind is WindowKind.ROLLING:
        return at - at % MINUTE_US
    day = _moment(at)
    return _number(datetime(day.year, day.month, 1, tzinfo=UTC))


def start_of(kind: WindowKind, at: int, *, rolling_minutes: int = 0) -> int:
    """First moment of the window that is in force at `at`.

    A rolling window begins with a whole minute, so it is up to a minute longer than it says: never too short.
    """
    if kind is WindowKind.ROLLING:
        return bucket_of(kind, at) - rolling_minutes * MINUTE_US
    return bucket_of(kind, at)


def end_of(kind: WindowKind, at: int) -> int:
    """Moment after the window in force at `at`; for a rolling window the next minute, when its oldest one drops out."""
    start = bucket_of(kind, at)
    if kind is WindowKind.DAY:
        return start + DAY_US
    if kind is WindowKind.ROLLING:
        return start + MINUTE_US
    first = _moment(start)
    return _number(datetime(first.year + first.month // 12, first.month % 12 + 1, 1, tzinfo=UTC))


def _moment(number: int) -> datetime:
    return _EPOCH + timedelta(microseconds=number)


def _number(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND
