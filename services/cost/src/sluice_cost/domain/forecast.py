"""What will have been spent at the end of the day and the month, and how fast a budget burns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import fmean

HOUR = timedelta(hours=1)
HISTORY = timedelta(days=28)
METHOD = (
    "mean of the same hour of the week (with 14 days of history), of the same hour of the day (with 2 days), or of all hours; "
    "90 % interval from the residuals of the hours, widened for their correlation from one hour to the next"
)
_WEEK, _DAY = 168, 24
_Z90 = 1.6449  # half of 90 % of a normal distribution lies within this many standard deviations
_MOST_CORRELATION = 0.95


@dataclass(frozen=True, slots=True)
class Forecast:
    """Nano-units at the end of a period."""

    start: datetime
    end: datetime
    spent: int
    expected: int
    lower: int
    upper: int


@dataclass(frozen=True, slots=True)
class Profile:
    """What an hour costs, by its place in a season, and how far hours stray from it."""

    season: int
    """168: hour of the week; 24: hour of the day; 1: any hour."""
    means: Sequence[float]
    deviation: float
    """Standard deviation of an hour about its mean, nano-units."""
    inflation: float
    """How many times larger the variance of a sum of many hours is than if they were independent."""

    def expected(self, start: datetime, end: datetime) -> float:
        """Nano-units from start to end, both moments within hours."""
        total, at = 0.0, start
        while at < end:
            hour = at.replace(minute=0, second=0, microsecond=0)
            until = min(hour + HOUR, end)
            total += self.means[_place(hour, self.season)] * ((until - at) / HOUR)
            at = until
        return total


def profile_of(hours: Mapping[datetime, int], *, first: datetime, end: datetime) -> Profile:
    """Learns from whole hours in [first, end); an hour that is not in `hours` cost nothing."""
    moments = [first + i * HOUR for i in range(int((end - first) / HOUR))]
    values = [float(hours.get(moment, 0)) for moment in moments]
    season = _WEEK if len(values) >= 2 * _WEEK else _DAY if len(values) >= 2 * _DAY else 1
    places = [_place(moment, season) for moment in moments]
    by_place: dict[int, list[float]] = {}
    for place, value in zip(places, values, strict=True):
        by_place.setdefault(place, []).append(value)
    overall = fmean(values) if values else 0.0
    means = [fmean(by_place[place]) if place in by_place else overall for place in range(season)]
    residuals = [value - means[place] for place, value in zip(places, values, strict=True)]
    freedom = max(len(values) - len(by_place), 1)
    squares = sum(residual * residual for residual in residuals)
    return Profile(season, means, math.sqrt(squares / freedom), _inflation(residuals, squares))


def _inflation(residuals: Sequence[float], squares: float) -> float:
    # Of an autoregressive process of the first order: (1 + r) / (1 - r).
    if not squares:
        return 1.0
    shared = sum(one * other for one, other in pairwise(residuals))
    correlation = min(max(shared / squares, 0.0), _MOST_CORRELATION)
    return (1 + correlation) / (1 - correlation)


def _place(hour: datetime, season: int) -> int:
    return (hour.weekday() * _DAY + hour.hour) % season


def forecast(profile: Profile, *, spent: int, now: datetime, start: datetime, end: datetime) -> Forecast:
    """The end of the period [start, end) of which `spent` is gone. Never below what is spent."""
    more = profile.expected(now, end)
    spread = _Z90 * profile.deviation * math.sqrt(max((end - now) / HOUR, 0.0) * profile.inflation)
    return Forecast(
        start,
        end,
        spent,
        spent + round(more),
        spent + max(round(more - spread), 0),
        spent + max(round(more + spread), 0),
    )


@dataclass(frozen=True, slots=True)
class BurnWindow:
    """A pair of windows: the long one tells that it matters, the short one that it still goes on."""

    long: timedelta
    short: timedelta
    threshold: float


# The pairs of the SRE workbook (chapter 5, multiwindow multi-burn-rate), for a month's budget: 2 % of it in an hour, 5 % in six
# hours, 10 % in three days.
BURN_WINDOWS = (
    BurnWindow(timedelta(hours=1), timedelta(minutes=5), 14.4),
    BurnWindow(timedelta(hours=6), timedelta(minutes=30), 6.0),
    BurnWindow(timedelta(days=3), timedelta(hours=6), 1.0),
)


def burn_rate(spent: int, window: timedelta, *, budget: int, month: timedelta) -> float:
    """Speed over the window relative to the speed that uses the budget up exactly in the month; 0 without a budget."""
    return spent / (budget * (window / month)) if budget > 0 else 0.0


def day_of(now: datetime) -> tuple[datetime, datetime]:
    """The UTC day around now."""
    start = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return start, start + timedelta(days=1)


def month_of(now: datetime) -> tuple[datetime, datetime]:
    """The UTC month around now."""
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start, (start + timedelta(days=32)).replace(day=1)
