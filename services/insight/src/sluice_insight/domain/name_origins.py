"""How surely names of each origin are hidden, beside the origin that is hidden best. Of names we invented, never of a person.

The self-tests send sixteen names of each origin in turn, again and again. Intervals and tests take each sending for a draw of its own,
so what they say is of these names as filters treat them now, and not of the origin: however often they are sent, sixteen names tell no
more of others than sixteen do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import comb, sqrt

from sluice_insight.domain.board import MINUTE
from sluice_insight.domain.intervals import wilson

MINIMUM = 30
"""Fewer sendings of an origin say nothing: in so many each of its sixteen names has come (tests/contracts)."""
FALSE_ALARM_RATE = 0.01
"""Chance that any of the comparisons of a window finds a difference where these names are hidden equally often."""

Counted = tuple[int, int]
"""Found, sought."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An origin's recall less, and over, that of the best."""

    reference: str
    value: float
    interval: tuple[float, float]
    ratio: float | None
    p_value: float
    adjusted_p_value: float

    @property
    def is_disparate(self) -> bool:
        """True when chance alone would hardly make such a difference between these names."""
        return self.adjusted_p_value <= FALSE_ALARM_RATE


@dataclass(frozen=True, slots=True)
class OriginRecall:
    """One origin. `difference` is None for the best one, and where too few names were sent."""

    origin: str
    found: int
    sought: int
    difference: Difference | None = None

    @property
    def is_enough(self) -> bool:
        """Whether so many names say anything."""
        return self.sought >= MINIMUM

    @property
    def value(self) -> float:
        return self.found / self.sought

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, 95 %."""
        return wilson(self.found, self.sought)


def compared(counts: Mapping[str, Counted]) -> list[OriginRecall]:
    """Every origin, by name. The best is chosen after looking, so all pairs are tested: Holm's correction is over every one of them."""
    sent = {origin: counted for origin, counted in sorted(counts.items()) if counted[1]}
    enough = {origin: counted for origin, counted in sent.items() if counted[1] >= MINIMUM}
    if len(enough) < 2:
        return [OriginRecall(origin, *counted) for origin, counted in sent.items()]
    best = max(enough, key=lambda origin: (enough[origin][0] / enough[origin][1], enough[origin][1]))
    pairs = list(combinations(enough, 2))
    p_values = [fisher(enough[one], enough[other]) for one, other in pairs]
    tested = {
        frozenset(pair): both for pair, both in zip(pairs, zip(p_values, holm(p_values), strict=True), strict=True)
    }
    return [
        OriginRecall(
            origin,
            *counted,
            _difference(counted, best, enough[best], tested[frozenset((origin, best))])
            if origin in enough and origin != best
            else None,
        )
        for origin, counted in sent.items()
    ]


def _difference(own: Counted, reference: str, other: Counted, p_values: tuple[float, float]) -> Difference:
    p, q = own[0] / own[1], other[0] / other[1]
    return Difference(reference, p - q, newcombe(own, other), p / q if q else None, *p_values)


def newcombe(own: Counted, other: Counted) -> tuple[float, float]:
    """The 95 % interval of a difference of shares from their score intervals (Newcombe 1998, method 10)."""
    p, q = own[0] / own[1], other[0] / other[1]
    (p_low, p_high), (q_low, q_high) = wilson(*own), wilson(*other)
    below = sqrt((p - p_low) ** 2 + (q_high - q) ** 2)
    return p - q - below, p - q + sqrt((p_high - p) ** 2 + (q - q_low) ** 2)


def fisher(own: Counted, other: Counted) -> float:
    """Fisher's exact test, two-sided, in whole numbers: a test's library would be most of what this service weighs."""
    (found, sought), (other_found, other_sought) = own, other
    all_found = found + other_found
    first, last = max(0, all_found - other_sought), min(sought, all_found)
    ways = [comb(sought, k) * comb(other_sought, all_found - k) for k in range(first, last + 1)]
    here = ways[found - first]
    return sum(way for way in ways if way <= here) / sum(ways)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: below alpha for any true null with a chance of at most alpha, whatever their dependence (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


@dataclass
class NameOrigins:
    """Counts by minute, for the hour before the newest round."""

    _minutes: dict[int, tuple[Counter[str], Counter[str]]] = field(default_factory=dict)
    rounds: int = 0

    def add(self, at: int, counts: Mapping[str, Counted]) -> None:
        """A round's names. `at` in microseconds; rounds older than the hour before the newest are left out."""
        minute = at - at % MINUTE
        found, sought = self._minutes.setdefault(minute, (Counter(), Counter()))
        for origin, (f, s) in counts.items():
            found[origin] += f
            sought[origin] += s
        self.rounds += 1
        newest = max(self._minutes)
        for old in [start for start in self._minutes if start <= newest - 60 * MINUTE]:
            del self._minutes[old]

    def window(self, minutes: int) -> tuple[int, dict[str, Counted]]:
        """Start of the last so many minutes up to the newest round, and what was found and sought in them; 0 when there was none."""
        if not self._minutes:
            return 0, {}
        start = max(self._minutes) - (minutes - 1) * MINUTE
        found: Counter[str] = Counter()
        sought: Counter[str] = Counter()
        for at, (f, s) in self._minutes.items():
            if at >= start:
                found.update(f)
                sought.update(s)
        return start, {origin: (found[origin], count) for origin, count in sought.items()}
