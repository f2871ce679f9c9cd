"""Which features are compared with the windows just before, in place of the pinned reference."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from sluice_drift.domain.observation import Series

MOST_WINDOWS = 288
"""A day of five minutes. Each takes what a window takes, typically below 20 kB a series."""


@dataclass(frozen=True, slots=True)
class Trailing:
    """So many windows before, for features and series that fit the patterns (`*` fits anything)."""

    feature: str
    windows: int
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

    def windows(self, series: Series, feature: str) -> int:
        """Windows before that a feature is compared with; 0: the pinned reference."""
        return next((each.windows for each in self.rules if each.fits(series, feature)), 0)

    def most(self, series: Series) -> int:
        """Windows before that any feature of the series may need."""
        return max((each.windows for each in self.rules if each.fits_series(series)), default=0)


ALWAYS_PINNED = TrailingRules()


def read_rules(text: str) -> TrailingRules:
    """Of `prompt.language=12, acme|small/request.*=288`. Raises ValueError saying what is wrong."""
    return TrailingRules(tuple(_read(part.strip()) for part in text.split(",") if part.strip()))


def _read(part: str) -> Trailing:
    left, is_told, right = part.rpartition("=")
    if not is_told or not right.strip().isdecimal() or not 0 <= int(right) <= MOST_WINDOWS:
        raise ValueError(
            f"{part!r} must be FEATURE=WINDOWS or TENANT|MODEL/FEATURE=WINDOWS with 0 (the pinned reference) to {MOST_WINDOWS} windows."
        )
    series, _, feature = left.rpartition("/")
    return Trailing(feature.strip() or "*", int(right), series.strip() or "*")
