"""Rules from YAML files, read strictly; every mistake is told with its file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from sluice_kit.configuration import (
    ConfigurationModel,
    ConfigurationRefused,
    Document,
    Mistake,
    SourceFile,
    documents,
)

from sluice_insight.domain.alerting.rules import (
    SEVERITIES,
    Absence,
    Burn,
    BurnRate,
    Change,
    Condition,
    DeadLetters,
    Disparity,
    MissingEvents,
    Rule,
    Standstill,
    Threshold,
)
from sluice_insight.domain.board import MINUTE
from sluice_insight.domain.catalogue import METRICS
from sluice_insight.domain.part import DIMENSIONS

SHIPPED = Path(__file__).parent / "rules"
_UNITS = {"s": 1_000_000, "m": MINUTE, "h": 60 * MINUTE, "d": 24 * 60 * MINUTE}
_LONGEST = 7 * _UNITS["d"]


def microseconds(told: str) -> int:
    """`90s`, `5m`, `1h`, `2d`."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", told)
    return int(found[1]) * _UNITS[found[2]] if found else -1


def _duration(told: str) -> str:
    if not 0 <= microseconds(told) <= _LONGEST:
        raise ValueError("must be a duration such as 90s, 5m, 1h or 2d, at most 7d")
    return told


def _span(told: str) -> str:
    if (length := microseconds(_duration(told))) == 0 or length % MINUTE:
        raise ValueError("must be one or more full minutes, such as 5m or 1h")
    return told


def _known(name: str) -> str:
    if name not in METRICS:
        raise ValueError("unknown metric; services/insight/README.md lists the known ones")
    return name


Duration = Annotated[str, AfterValidator(_duration)]
Span = Annotated[str, AfterValidator(_span)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
Group = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,255}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=300)]
Dimension = Literal["tenant_id", "project_id", "model", "route", "prompt_version", "experiment_arm", "redaction_policy"]
assert set(Dimension.__args__) == set(DIMENSIONS)  # type: ignore[attr-defined]


class ThresholdFile(ConfigurationModel):
    """`threshold: {above: 0.05}`."""

    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one_side(self) -> ThresholdFile:
        if (self.above is None) is (self.below is None):
            raise ValueError("give either above or below")
        return self


class ChangeFile(ConfigurationModel):
    """`change: {earlier: 1h, rises_by: 0.1}`."""

    earlier: Span
    baseline: Span | None = None
    rises_by: Annotated[float, Field(gt=0)] | None = None
    falls_by: Annotated[float, Field(gt=0)] | None = None
    rises_to: Annotated[float, Field(gt=1)] | None = None

    @model_validator(mode="after")
    def _any(self) -> ChangeFile:
        if self.rises_by is None and self.falls_by is None and self.rises_to is None:
            raise ValueError("give rises_by, falls_by or rises_to (a factor)")
        return self


class BurnFile(ConfigurationModel):
    """One pair of windows."""

    long: Span
    short: Span
    factor: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _long_is_longer(self) -> BurnFile:
        if microseconds(self.short) >= microseconds(self.long):
            raise ValueError("short must be shorter than long")
        return self


class BurnRateFile(ConfigurationModel):
    """`burn_rate: {objective: 0.99, pairs: [...]}`."""

    objective: Annotated[float, Field(gt=0, lt=1)]
    pairs: Annotated[tuple[BurnFile, ...], Field(min_length=1, max_length=8)]

    @model_validator(mode="after")
    def _can_be_reached(self) -> BurnRateFile:
        for pair in self.pairs:
            if pair.factor * (1 - self.objective) >= 1:
                raise ValueError(f"factor {pair.factor:g} can never be reached with objective {self.objective:g}")
        return self


class AbsenceFile(ConfigurationModel):
    """`absence: {lookback: 1h, retired_after: 7d}`."""

    lookback: Span = "1h"
    retired_after: Span = "7d"


class MissingEventsFile(ConfigurationModel):
    """`missing_events: {above: 0}`."""

    above: Annotated[int, Field(ge=0)] = 0


class DeadLettersFile(ConfigurationModel):
    """`dead_letters: {above: 0}`."""

    above: Annotated[int, Field(ge=0)] = 0


class DisparityFile(ConfigurationModel):
    """`disparity: {rate: selection_rate, ratio_below: 0.8}`."""

    rate: Literal["selection_rate"] = "selection_rate"
    ratio_below: Annotated[float, Field(gt=0, le=1)] = 0.8


class StandstillFile(ConfigurationModel):
    """`standstill: {groups: [sluice-cost]}`."""

    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=100)]


_KINDS = ("threshold", "change", "burn_rate", "absence", "missing_events", "dead_letters", "disparity", "standstill")
_WITHOUT_METRIC = ("missing_events", "dead_letters", "disparity", "standstill")


class RuleFile(ConfigurationModel):
    """One rule as it stands in its file."""

    rule: Name
    severity: Literal["info", "warning", "critical"]
    summary: Text
    runbook: Annotated[str, StringConstraints(pattern=r"^(https?://\S{1,500})?$")] = ""
    metric: Annotated[str, AfterValidator(_known)] | None = None
    window: Span = "1m"
    group_by: tuple[Dimension, ...] = ()
    where: dict[Dimension, Annotated[tuple[str, ...], Field(min_length=1, max_length=100)]] = Field(
        default_factory=dict
    )
    min_samples: Annotated[int, Field(ge=1)] = 1
    lasts: Duration = "0s"
    keeps: Duration = "0s"
    threshold: ThresholdFile | None = None
    change: ChangeFile | None = None
    burn_rate: BurnRateFile | None = None
    absence: AbsenceFile | None = None
    missing_events: MissingEventsFile | None = None
    dead_letters: DeadLettersFile | None = None
    disparity: DisparityFile | None = None
    standstill: StandstillFile | None = None

    @model_validator(mode="after")
    def _one_condition(self) -> RuleFile:
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(_KINDS)}; there are {len(given)}")
        if (self.metric is None) is not (given[0] in _WITHOUT_METRIC):
            raise ValueError(f"every rule needs a metric, but {', '.join(_WITHOUT_METRIC)}, which have none")
        if self.burn_rate is not None and (self.metric is None or METRICS[self.metric].unit != "ratio"):
            raise ValueError("burn_rate needs a metric that is a ratio, such as quality.failed_ratio")
        return self


class RulesFile(ConfigurationModel):
    """A file of rules."""

    rules: Annotated[tuple[RuleFile, ...], Field(max_length=500)] = ()


assert SEVERITIES == ("info", "warning", "critical")


def read_rules(sources: Sequence[SourceFile], *, kept_hours: int | None = None) -> tuple[Rule, ...]:
    """The rules of all files; one in a later folder takes the place of an earlier folder's with the same name.

    Raises ConfigurationRefused with every mistake of all files; with `kept_hours` also for a rule that looks back farther.
    """
    read = documents(sources, RulesFile)
    mistakes = list(_doubles(read))
    if kept_hours is not None:
        mistakes += _too_far(read, kept_hours)
    if mistakes:
        raise ConfigurationRefused(sorted(mistakes))
    return tuple({file.rule: _rule(file) for found in read for file in found.value.rules}.values())


def _too_far(read: Sequence[Document[RulesFile]], kept_hours: int) -> Iterator[Mistake]:
    """Of a window that is longer than minutes are kept only a part is there: the rule would say something else than it says."""
    standing = {file.rule: (found, number) for found in read for number, file in enumerate(found.value.rules)}
    for name, (found, number) in standing.items():
        needed = -(-_rule(found.value.rules[number]).looks_back // _UNITS["h"])
        if needed > kept_hours:
            yield found.mistake(
                f"rule {name} looks back {needed} hours, and SLUICE_INSIGHT_HISTORY_HOURS={kept_hours} keeps fewer: set it to {needed} or"
                " more, or shorten the rule (a rule of yours with the name of a shipped one takes its place)",
                at=("rules", number, "rule"),
            )


def _doubles(read: Sequence[Document[RulesFile]]) -> Iterator[Mistake]:
    seen: dict[tuple[Path, str], Path] = {}
    for found in read:
        path = found.source.path
        for number, file in enumerate(found.value.rules):
            first = seen.setdefault((path.parent, file.rule), path)
            if first != path or any(other.rule == file.rule for other in found.value.rules[:number]):
                yield found.mistake(
                    f"rule {file.rule} also stands in {first.name}; keep one", at=("rules", number, "rule")
                )


def _rule(file: RuleFile) -> Rule:
    return Rule(
        name=file.rule,
        condition=_condition(file),
        severity=file.severity,
        summary=file.summary,
        runbook=file.runbook,
        metric=file.metric or "",
        window=microseconds(file.window),
        group_by=file.group_by,
        filters={name: frozenset(values) for name, values in file.where.items()},
        min_samples=file.min_samples,
        lasts=microseconds(file.lasts),
        keeps=microseconds(file.keeps),
    )


def _condition(file: RuleFile) -> Condition:
    if file.threshold is not None:
        return Threshold(above=file.threshold.above, below=file.threshold.below)
    if file.change is not None:
        told = file.change
        return Change(
            earlier=microseconds(told.earlier), baseline=microseconds(told.baseline or file.window),
            rises_by=told.rises_by, falls_by=told.falls_by, rises_to=told.rises_to,
        )  # fmt: skip
    if file.burn_rate is not None:
        pairs = (
            Burn(long=microseconds(p.long), short=microseconds(p.short), factor=p.factor) for p in file.burn_rate.pairs
        )
        return BurnRate(objective=file.burn_rate.objective, pairs=tuple(pairs))
    if file.absence is not None:
        told_of = file.absence
        return Absence(lookback=microseconds(told_of.lookback), retired_after=microseconds(told_of.retired_after))
    if file.dead_letters is not None:
        return DeadLetters(above=file.dead_letters.above)
    if file.disparity is not None:
        return Disparity(rate=file.disparity.rate, ratio_below=file.disparity.ratio_below)
    if file.standstill is not None:
        return Standstill(groups=file.standstill.groups)
    assert file.missing_events is not None
    return MissingEvents(above=file.missing_events.above)
