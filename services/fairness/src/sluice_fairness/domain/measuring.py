"""What a merged window says: metrics by group, compared with texts that mention nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sluice_fairness.domain import frames
from sluice_fairness.domain.board import Frame
from sluice_fairness.domain.comparison import Compared, compare_means, compare_rates, mean_interval, slope
from sluice_fairness.domain.counts import GroupCounts
from sluice_fairness.domain.facts import INPUT_TERMS, NO_GROUP, OUTPUT_TERMS
from sluice_fairness.domain.intervals import holm, wilson
from sluice_fairness.domain.metrics import MEANS, RATES, Moments, Rate

FOUR_FIFTHS = 0.8
_HOUR = 3_600_000_000
ByGroup = Mapping[str, GroupCounts]


class Verdict(StrEnum):
    """What the comparison of a group with the reference says."""

    NONE = ""
    INSUFFICIENT = "insufficient"
    COMPARABLE = "comparable"
    DISPARATE = "disparate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """When a group is judged, and how sure."""

    minimum_observations: int = 30
    false_alarm_rate: float = 0.01
    """Chance that any test of a series and window alarms without a difference."""
    minimum_minutes: int = 6
    """A trend over fewer points is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One metric of one group; `group` is empty for the largest difference and the smallest ratio between groups."""

    metric: str
    attribute: str
    group: str
    sample_count: int
    value: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)
    verdict: Verdict = Verdict.NONE
    compared: Compared | None = None
    adjusted_p_value: float | None = None
    trend: tuple[float, float, float] | None = None
    """Change per hour with its 95 % interval."""

    @property
    def reference(self) -> str:
        """The group it was compared with."""
        return NO_GROUP if self.compared is not None else ""

    @property
    def is_below_four_fifths(self) -> bool:
        """The rule of the U.S. Uniform Guidelines (1978), read on texts instead of applicants."""
        ratio = self.compared.ratio if self.compared else None
        return self.metric == "selection_rate" and ratio is not None and ratio < FOUR_FIFTHS


def measure(frame: Frame, judging: Judging) -> list[Measurement]:
    """Everything that is told of a window. Nothing where no text mentions a group: there is nothing to compare."""
    found: list[Measurement] = []
    for attribute in (INPUT_TERMS, OUTPUT_TERMS):
        groups = _of(frame.groups, attribute)
        if not groups.keys() - {NO_GROUP}:
            continue
        for name, rate in RATES.items():
            if attribute in rate.attributes:
                found += _rate(name, attribute, groups, rate, judging)
        for name, moments in MEANS.items():
            if attribute in moments.attributes:
                found += _mean(name, attribute, groups, moments, judging)
    return [_with_trend(each, frame, judging) for each in _judged(found, judging)]


def _of(groups: ByGroup, attribute: str) -> dict[str, GroupCounts]:
    return {key.split("/", 1)[1]: counts for key, counts in sorted(groups.items()) if key.startswith(f"{attribute}/")}


def _rate(name: str, attribute: str, groups: ByGroup, rate: Rate, judging: Judging) -> list[Measurement]:
    seen = {group: (rate.successes(c), rate.trials(c)) for group, c in groups.items() if rate.trials(c)}
    enough = {group: counted for group, counted in seen.items() if counted[1] >= judging.minimum_observations}
    found = _insufficient(name, attribute, {group: n for group, (_, n) in seen.items() if group not in enough})
    if not enough:
        return found
    disparity = frames.rates_by_group(enough)
    reference = enough.get(NO_GROUP)
    for group, (successes, trials) in enough.items():
        tested = rate.is_tested and reference is not None and group != NO_GROUP
        found.append(
            Measurement(
                metric=name, attribute=attribute, group=group, sample_count=trials,
                value=disparity.by_group[group], interval=wilson(successes, trials),
                compared=compare_rates((successes, trials), reference) if tested and reference else None,
            )
        )  # fmt: skip
    return found + _between(name, attribute, disparity, sum(n for _, n in enough.values()))


def _mean(name: str, attribute: str, groups: ByGroup, moments: Moments, judging: Judging) -> list[Measurement]:
    seen = {group: counts for group, counts in groups.items() if moments.count(counts)}
    enough = {group: c for group, c in seen.items() if moments.count(c) >= judging.minimum_observations}
    few = {group: moments.count(c) for group, c in seen.items() if group not in enough}
    found = _insufficient(name, attribute, few)
    if not enough:
        return found
    sample = {group: (moments.mean(c), moments.deviation(c), moments.count(c)) for group, c in enough.items()}
    disparity = frames.means_by_group({group: (mean, n) for group, (mean, _, n) in sample.items()})
    reference = sample.get(NO_GROUP)
    for group, own in sample.items():
        compared = compare_means(own, reference) if reference and group != NO_GROUP else None
        found.append(
            Measurement(
                metric=name, attribute=attribute, group=group, sample_count=own[2],
                value=disparity.by_group[group], interval=mean_interval(*own), compared=compared,
            )
        )  # fmt: skip
    return found + _between(name, attribute, disparity, sum(n for _, _, n in sample.values()))


def _insufficient(name: str, attribute: str, few: Mapping[str, int]) -> list[Measurement]:
    return [
        Measurement(metric=name, attribute=attribute, group=group, sample_count=n, verdict=Verdict.INSUFFICIENT)
        for group, n in few.items()
    ]


def _between(name: str, attribute: str, disparity: frames.Disparity, observations: int) -> list[Measurement]:
    """Fairlearn's largest difference and smallest ratio. They grow with the number of groups by chance: told, never tested."""
    if len(disparity.by_group) < 2:
        return []
    told = {f"{name}_difference": disparity.difference, f"{name}_ratio": disparity.ratio}
    return [
        Measurement(
            metric=metric,
            attribute=attribute,
            group="",
            sample_count=observations,
            value=value,
            interval=(value, value),
        )
        for metric, value in told.items()
        if value is not None
    ]


def _judged(found: list[Measurement], judging: Judging) -> list[Measurement]:
    tested = [i for i, each in enumerate(found) if each.compared is not None]
    adjusted = holm([compared.p_value for each in found if (compared := each.compared) is not None])
    for i, p_value in zip(tested, adjusted, strict=True):
        verdict = Verdict.DISPARATE if p_value <= judging.false_alarm_rate else Verdict.COMPARABLE
        found[i] = replace(found[i], adjusted_p_value=p_value, verdict=verdict)
    return found


def _with_trend(measurement: Measurement, frame: Frame, judging: Judging) -> Measurement:
    value_of = _value_of(measurement.metric)
    if not frame.minutes or measurement.verdict is Verdict.INSUFFICIENT or value_of is None:
        return measurement
    key = f"{measurement.attribute}/{measurement.group}"
    points = []
    for start, groups in frame.minutes:
        value = value_of(groups[key]) if key in groups else None
        if value is not None:
            points.append((start / _HOUR, value))
    return replace(measurement, trend=slope(points)) if len(points) >= judging.minimum_minutes else measurement


def _value_of(metric: str) -> Callable[[GroupCounts], float | None] | None:
    if metric in RATES:
        rate = RATES[metric]
        return lambda c: rate.successes(c) / rate.trials(c) if rate.trials(c) else None
    if metric in MEANS:
        moments = MEANS[metric]
        return lambda c: moments.mean(c) if moments.count(c) else None
    return None
