"""A distribution of non-negative integers that merges in any order to the same digits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import ceil, log
from typing import NamedTuple

from ddsketch.mapping import LogarithmicMapping

RELATIVE_ACCURACY = 0.01
"""Every quantile is within 1 % of a true one."""

_MAPPING = LogarithmicMapping(RELATIVE_ACCURACY)
BUCKETS_PER_OCTAVE: float = _MAPPING._multiplier
"""The library's own, so that the digits are its own: `_MAPPING.key(v)` is `bucket_of(v)`. Spelled out
here because its three calls a value took a seventh of the whole; test_windows.py holds the two to the same buckets. numpy's
logarithm differs from the C library's in the last digit, by machine, and would move values at the border of a bucket."""


class Values(NamedTuple):
    """Values that are counted at once."""

    buckets: Sequence[int]
    """Of each that is positive."""
    zeros: int
    """How many are not."""
    sum: int
    minimum: int
    maximum: int


def bucket_of(value: int) -> int:
    """The bucket of a positive value."""
    return ceil(log(value, 2) * BUCKETS_PER_OCTAVE)


@dataclass(slots=True)
class QuantileSketch:
    """DDSketch (Masson, Rim, Lee, VLDB 2019) over integers, so that counts *and* the sum are exact.

    The buckets are those of the `ddsketch` library. Its own sum is a float and depends on the order of the values;
    KLL and t-digest of Apache DataSketches depend on coin flips or on the order altogether (README, "Why DDSketch").
    """

    zero_count: int = 0
    buckets: dict[int, int] = field(default_factory=dict)
    sum: int = 0
    minimum: int | None = None
    maximum: int | None = None

    @property
    def count(self) -> int:
        """Number of values."""
        return self.zero_count + sum(self.buckets.values())

    def add(self, value: int) -> None:
        """Count one value. Negative values (clocks that ran backwards) count as zero."""
        self.add_all((value,))

    def add_all(self, values: Collection[int]) -> None:
        """Count values, as one by one."""
        if not values:
            return
        smallest, largest, zeros = min(values), max(values), 0
        if smallest <= 0:
            zeros = len(values)
            values = [value for value in values if value > 0]
            zeros -= len(values)
            smallest, largest = 0, max(largest, 0)
        buckets = [ceil(log(value, 2) * BUCKETS_PER_OCTAVE) for value in values]
        self.add_values(Values(buckets, zeros, sum(values), smallest, largest))

    def add_values(self, values: Values) -> None:
        """Count values whose buckets are known."""
        self.zero_count += values.zeros
        counts = self.buckets
        for index in values.buckets:
            counts[index] = counts.get(index, 0) + 1
        self.sum += values.sum
        if self.minimum is None or values.minimum < self.minimum:
            self.minimum = values.minimum
        if self.maximum is None or values.maximum > self.maximum:
            self.maximum = values.maximum

    def merge(self, other: QuantileSketch) -> None:
        """Add the other's values to this one."""
        self.zero_count += other.zero_count
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count
        self.sum += other.sum
        self.minimum = min((m for m in (self.minimum, other.minimum) if m is not None), default=None)
        self.maximum = max((m for m in (self.maximum, other.maximum) if m is not None), default=None)

    def quantile(self, q: float) -> float | None:
        """Value of rank q * (n - 1), q in 0..1, within RELATIVE_ACCURACY; None when empty."""
        total = self.count
        if total == 0:
            return None
        rank = q * (total - 1)
        seen = self.zero_count
        if rank < seen:
            return 0.0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if rank < seen:
                return _MAPPING.value(index)
        return float(self.maximum or 0)
