"""What a merged window says: metrics by group, compared with texts that mention nobody, or with all other cohorts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from sluice_fairness.domain import frames
from sluice_fairness.domain.board import Frame
from sluice_fairness.domain.comparison import Compared, Sample, compare_means, compare_rates, mean_interval, slope
from sluice_fairness.domain.counts import GroupCounts, is_of_inputs
from sluice_fairness.domain.facts import INPUT_TERMS, NO_GROUP, OTHERS, OUTPUT_TERMS
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
    reference: str = ""
    """The group it was compared with."""
    adjusted_p_value: float | None = None
    trend: tuple[float, float, float] | None = None
    """Change per hour with its 95 % interval."""

    @property
    def is_below_four_fifths(self) -> bool:
        """The rule of the U.S. Uniform Guidelines (1978), read on texts instead of applicants."""
        ratio = self.compared.ratio if self.compared else None
        return self.metric == "selection_rate" and ratio is not None and ratio < FOUR_FIFTHS


def measure(frame: Frame, judging: Judging) -> list[Measurement]:
    """Everything that is told of a window. Nothing where no text mentions a group, or all are of one cohort: there is nothing to compare."""
    found: list[Measurement] = []
    for attribute in sorted({key.split("/", 1)[0] for key in frame.groups}):
        groups = _of(frame.groups, attribute)
        if not _is_comparable(attribute, groups):
            continue
        for name, rate in RATES.items():
            if is_of_inputs(attribute) or not rate.inputs_only:
                found += _rate(name, attribute, groups, rate, judging)
        for name, moments in MEANS.items():
            if is_of_inputs(attribute) or not moments.inputs_only:
                found += _mean(name, attribute, groups, moments, judging)
    return [_with_trend(each, frame, judging) for each in _judged(found, judging)]


def _of(groups: ByGroup, attribute: str) -> dict[str, GroupCounts]:
    return {key.split("/", 1)[1]: counts for key, counts in sorted(groups.items()) if key.startswith(f"{attribute}/")}


def _is_comparable(attribute: str, groups: ByGroup) -> bool:
    return bool(groups.keys() - {NO_GROUP}) if attribute in (INPUT_TERMS, OUTPUT_TERMS) else len(groups) > 1


def _reference(attribute: str, group: str, groups: ByGroup) -> tuple[str, GroupCounts] | None:
    """What a group is compared with; None for texts that mention nobody, and where there are none of them."""
    if attribute not in (INPUT_TERMS, OUTPUT_TERMS):
        return OTHERS, _sum(counts for other, counts in groups.items() if other != group)
    return (NO_GROUP, groups[NO_GROUP]) if group != NO_GROUP and NO_GROUP in groups else None


def _sum(counts: Iterable[GroupCounts]) -> GroupCounts:
    total = GroupCounts()
    for each in counts:
        total.merge(each)
    return total


def _rate(name: str, attribute: str, groups: ByGroup, rate: Rate, judging: Judging) -> list[Measurement]:
    seen = {group: (rate.successes(c), rate.trials(c)) for group, c in groups.items() if rate.trials(c)}
    enough = {group: counted for group, counted in seen.items() if counted[1] >= judging.minimum_observations}
    found = _insufficient(name, attribute, {group: n for group, (_, n) in seen.items() if group not in enough})
    if not enough:
        return found
    disparity = frames.rates_by_group(enough)
    for group, own in enough.items():
        reference, against = _reference(attribute, group, groups) or ("", GroupCounts())
        other = rate.successes(against), rate.trials(against)
        tested = rate.is_tested and other[1] >= judging.minimum_observations
        found.append(
            Measurement(
                metric=name, attribute=attribute, group=group, sample_count=own[1],
                value=disparity.by_group[group], interval=wilson(*own),
                compared=compare_rates(own, other) if tested else None, reference=reference if tested else "",
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
    sample = {group: _sample(moments, c) for group, c in enough.items()}
    disparity = frames.means_by_group({group: (mean, n) for group, (mean, _, n) in sample.items()})
    for group, own in sample.items():
        reference, against = _reference(attribute, group, groups) or ("", GroupCounts())
        tested = moments.count(against) >= judging.minimum_observations
        found.append(
            Measurement(
                metric=name, attribute=attribute, group=group, sample_count=own[2],
                value=disparity.by_group[group], interval=mean_interval(*own),
                compared=compare_means(own, _sample(moments, against)) if tested else None,
                reference=reference if tested else "",
            )
        )  # fmt: skip
    return found + _between(name, attribute, disparity, sum(n for _, _, n in sample.values()))


def _sample(moments: Moments, counts: GroupCounts) -> Sample:
    return moments.mean(counts), moments.deviation(counts), moments.count(counts)


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
