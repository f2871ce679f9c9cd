"""The metrics: which counts they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

from sluice_fairness.domain.counts import GroupCounts
from sluice_fairness.domain.facts import SCORE_SCALE


@dataclass(frozen=True, slots=True)
class Rate:
    """So many of so many."""

    successes: Callable[[GroupCounts], int]
    trials: Callable[[GroupCounts], int]
    is_tested: bool = True
    inputs_only: bool = False


@dataclass(frozen=True, slots=True)
class Moments:
    """A mean, by exact integer sums. `scale` turns the integers into the unit."""

    count: Callable[[GroupCounts], int]
    sum: Callable[[GroupCounts], int]
    square_sum: Callable[[GroupCounts], int]
    scale: float = 1.0
    inputs_only: bool = False

    def mean(self, counts: GroupCounts) -> float:
        """The mean; there must be observations."""
        return self.sum(counts) / self.count(counts) * self.scale

    def deviation(self, counts: GroupCounts) -> float:
        """The sample's standard deviation. Integers up to the division: a difference of large floats would be noise."""
        n = self.count(counts)
        if n < 2:
            return 0.0
        return sqrt((n * self.square_sum(counts) - self.sum(counts) ** 2) / (n * (n - 1))) * self.scale


RATES: Mapping[str, Rate] = {
    "selection_rate": Rate(lambda c: c.allowed, lambda c: c.judged),
    # What selection_rate says from the other side: testing it too would only cost power.
    "block_rate": Rate(lambda c: c.blocked, lambda c: c.judged, is_tested=False),
    "flag_rate": Rate(lambda c: c.flagged, lambda c: c.judged),
    "refusal_rate": Rate(lambda c: c.refusals, lambda c: c.refusals_judged, inputs_only=True),
    "false_positive_rate": Rate(lambda c: c.false_blocks, lambda c: c.false_blocks + c.upheld_passes),
    "false_negative_rate": Rate(lambda c: c.misses, lambda c: c.misses + c.upheld_blocks),
}
MEANS: Mapping[str, Moments] = {
    "mean_score": Moments(lambda c: c.judged, lambda c: c.score_sum, lambda c: c.score_square_sum, 1 / SCORE_SCALE),
    "mean_answer_characters": Moments(
        lambda c: c.answers,
        lambda c: c.answer_characters_sum,
        lambda c: c.answer_characters_square_sum,
        inputs_only=True,
    ),
}
