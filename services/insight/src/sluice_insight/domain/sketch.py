"""Quantiles of merged DDSketches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(slots=True)
class Sketch:
    """Counts of integers in logarithmic buckets: bucket i holds (gamma^(i-1), gamma^i]."""

    relative_accuracy: float = 0.01
    zero_count: int = 0
    buckets: dict[int, int] = field(default_factory=dict)
    sum: int = 0

    @property
    def count(self) -> int:
        """Number of values."""
        return self.zero_count + sum(self.buckets.values())

    def merge(self, other: Sketch) -> None:
        """Add the other's values. ValueError when the buckets are not the same ones."""
        if self.count == 0:
            self.relative_accuracy = other.relative_accuracy
        if other.count and not math.isclose(self.relative_accuracy, other.relative_accuracy):
            raise ValueError("sketches of different accuracy cannot be merged")
        self.zero_count += other.zero_count
        self.sum += other.sum
        for index, count in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + count

    def at_rank(self, rank: float) -> float:
        """The value of a rank in 0..count-1; the sketch must not be empty."""
        seen = self.zero_count
        if rank < seen:
            return 0.0
        gamma = (1 + self.relative_accuracy) / (1 - self.relative_accuracy)
        index = 0
        for index in sorted(self.buckets):
            seen += self.buckets[index]
            if rank < seen:
                break
        return 2 * gamma**index / (1 + gamma)
