"""Which features are compared with windows before, in place of the pinned reference: those just before, or of the day before."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from sluice_drift.domain.observation import Series

MOST_WINDOWS = 288
"""A day of five minutes. Each takes what a window takes, typically below 20 kB a series."""
MOST_OF_THE_DAY_BEFORE = 25
"""Two hours of five minutes: further away it is another time of the day."""
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Span:
    """Windows before one, counted back from it: 1 is the one just before. Without any: the pinned reference."""

    nearest: int = 1
    furthest: int = 0

    @property
    def windows(self) -> int:
        """How many."""
        return self.furthest - self.nearest + 1


PINNED = Span()


@dataclass(frozen=True, slots=True)
class Trailing:
    """Windows before, for features and series that fit the patterns (`*` fits anything)."""

    feature: str
    span: Span
    series: str = "*"
    """Fits `tenant|model`."""

    def fits(self, series: Series, feature: str) -> bool:
        """True when the rule is for this feature of this series."""
        return self.fits_series(series) and fnmatchcase(feature, self.feature)

    def fits_series(self, series: Series) -> bool:
        """True when the rule is for features of this series."""
        return fnmatchcase(f"{series.tenant_id}|{series.model}", self.series)


@dataclass(frozen=True, slots=True)
class TrailingRules:
    """The first that fits decides; without any, features are compared with the pinned reference."""

    rules: tuple[Trailing, ...] = ()

    def span(self, series: Series, feature: str) -> Span:
        """Windows before that a feature is compared with."""
        return next((each.span for each in self.rules if each.fits(series, feature)), PINNED)

    def windows(self, series: Series, feature: str) -> int:
        """How many these are; 0: the pinned reference."""
        return self.span(series, feature).windows

    def numbers(self, series: Series) -> tuple[int, ...]:
        """Windows before that any feature of the series may need, counted back, nearest first."""
        return _numbers(self, series)

    def most(self, series: Series) -> int:
        """The furthest of them; 0 where there are none."""
        return max((each.span.furthest for each in self.rules if each.fits_series(series)), default=0)


@lru_cache(maxsize=4096)
def _numbers(rules: TrailingRules, series: Series) -> tuple[int, ...]:
    spans = [each.span for each in rules.rules if each.fits_series(series)]
    return tuple(sorted({number for span in spans for number in range(span.nearest, span.furthest + 1)}))


ALWAYS_PINNED = TrailingRules()


def read_rules(text: str, window_seconds: int = 300) -> TrailingRules:
    """Of `prompt.language=12, acme|small/request.*=288, *=5@day`. Raises ValueError saying what is wrong."""
    return TrailingRules(tuple(_read(part.strip(), window_seconds) for part in text.split(",") if part.strip()))


def _read(part: str, window_seconds: int) -> Trailing:
    left, is_told, right = part.rpartition("=")
    number, at, period = (each.strip() for each in right.partition("@"))
    if (
        not is_told
        or not number.isdecimal()
        or not 0 <= int(number) <= MOST_WINDOWS
        or period != at.replace("@", "day")
    ):
        raise ValueError(
            f"{part!r} must be FEATURE=WINDOWS or TENANT|MODEL/FEATURE=WINDOWS with 0 (the pinned reference) to {MOST_WINDOWS} windows, "
            f"or WINDOWS@day for so many around the same time of the day before."
        )
    span = _of_the_day_before(part, int(number), window_seconds) if at else Span(1, int(number))
    series, _, feature = left.rpartition("/")
    return Trailing(feature.strip() or "*", span, series.strip() or "*")


def _of_the_day_before(part: str, windows: int, window_seconds: int) -> Span:
    """The window of the same time, and as many on each side."""
    day, aside = _DAY_SECONDS // window_seconds, windows // 2
    if day * window_seconds != _DAY_SECONDS or day > MOST_WINDOWS:
        raise ValueError(
            f"{part!r} needs windows of five minutes or more that divide a day; SLUICE_DRIFT_WINDOW_SECONDS is {window_seconds}."
        )
    if not windows % 2 or windows > MOST_OF_THE_DAY_BEFORE or aside >= day:
        raise ValueError(
            f"{part!r} needs an odd number of windows (the same time and as many on each side), at most {MOST_OF_THE_DAY_BEFORE} and "
            f"none of them the window itself; a day has {day}."
        )
    return Span(day - aside, day + aside)
