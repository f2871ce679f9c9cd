"""A distribution of non-negative integers that merges in any order to the same digits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import ceil, log

from ddsketch.mapping import LogarithmicMapping

RELATIVE_ACCURACY = 0.01
"""Every quantile is within 1 % of a true one."""

_MAPPING = LogarithmicMapping(RELATIVE_ACCURACY)
_BUCKETS_PER_OCTAVE: float = _MAPPING._multiplier
"""The library's own, so that the digits are its own: `_MAPPING.key(v)` is `ceil(log(v, 2) * _BUCKETS_PER_OCTAVE)`. Spelled out
here because its three calls a value took a seventh of the whole; test_windows.py holds the two to the same buckets. numpy's
logarithm differs from the C library's in the last digit, by machine, and would move values at the border of a bucket."""


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
        smallest, largest = min(values), max(values)
        if smallest <= 0:
            self.zero_count += len(values)
            values = [value for value in values if value > 0]
            self.zero_count -= len(values)
            smallest, largest = 0, max(largest, 0)
        buckets = self.buckets
        for index in [ceil(log(value, 2) * _BUCKETS_PER_OCTAVE) for value in values]:
            buckets[index] = buckets.get(index, 0) + 1
        self.sum += sum(values)
        if self.minimum is None or smallest < self.minimum:
            self.minimum = smallest
        if self.maximum is None or largest > self.maximum:
            self.maximum = largest

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
