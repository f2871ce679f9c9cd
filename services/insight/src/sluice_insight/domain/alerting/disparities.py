"""Disparities between groups, as alerts see them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sluice_insight.domain.alerting.rules import Disparity, Rule
from sluice_insight.domain.alerting.states import Labels, Signal
from sluice_insight.domain.board import Point
from sluice_insight.domain.catalogue import Value
from sluice_insight.domain.part import DIMENSIONS, Series


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A group's rate that differs from the reference's at the stated false-alarm rate, over all tests of its series and window."""

    series: Series
    rate: str
    attribute: str
    group: str
    policy: str
    reference: str
    ratio: float
    value: float
    lower: float
    upper: float
    samples: int
    start: int
    length: int
    revision: int

    @property
    def labels(self) -> Labels:
        """Which alert it is."""
        named = {name: getattr(self.series, name) for name in DIMENSIONS}
        named |= {"attribute": self.attribute, "group": self.group, "policy": self.policy}
        return tuple(sorted((name, value) for name, value in named.items() if value))

    @property
    def point(self) -> Point:
        """The evidence, named as QueryMetrics names the rates of groups."""
        return Point(
            metric=f"fairness.{self.attribute}.{self.group}.{self.rate}", unit="ratio", series=self.series,
            start=self.start, length=self.length, revision=self.revision, closed=True, verdict="disparate",
            value=Value(self.value, self.samples, self.lower, self.upper),
        )  # fmt: skip


def unequal(rule: Rule, condition: Disparity, measured: Iterable[Measured], *, at: int) -> list[Signal]:
    """Those measured within the rule's window whose ratio to the reference is too small."""
    return [
        Signal(labels=one.labels, point=one.point, words={"ratio": f"{one.ratio:.2f}", "reference": one.reference})
        for one in measured
        if one.rate == condition.rate
        and one.ratio < condition.ratio_below
        and one.samples >= rule.min_samples
        and one.start <= at < one.start + one.length + rule.window
        and all(getattr(one.series, name) in values for name, values in rule.filters.items())
    ]
