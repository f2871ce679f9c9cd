"""Silences: for how long receivers are not told of which alerts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from sluice_insight.domain.board import MINUTE
from sluice_insight.domain.part import DIMENSIONS

LONGEST = 7 * 24 * 60 * MINUTE
"""A silence ends. What must be quiet for longer is a rule that is wrong."""
FARTHEST = LONGEST
"""How far ahead one may begin."""

RULES_OF_OTHERS: Mapping[str, frozenset[str]] = {"cost.unpriced": frozenset({"model"})}
"""Rules of other services of the mesh, whose alerts are silenced here though they are not judged here, and the labels of these."""
MOST_NAMES = 20
"""Of rules, or of labels, that are told where none has a name like the one asked for."""


class BadSilence(ValueError):
    """A silence that cannot be; `field` says what is wrong with it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Alerts of a rule (of any, when it is empty) that have these labels; of an empty one, those without. Times in microseconds."""

    silence_id: str
    rule: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    starts_at: int
    ends_at: int
    set_by: str
    reason: str
    expired_by: str = ""
    told_at: int = 0
    """The newest that was told of a silence stands."""

    def covers(self, rule: str, labels: Mapping[str, str], *, at: int) -> bool:
        """Whether an alert is silenced by it at this moment."""
        matches = self.rule in ("", rule) and all(labels.get(name, "") == value for name, value in self.labels.items())
        return matches and self.starts_at <= at < self.ends_at

    def is_over(self, *, at: int) -> bool:
        """Whether it will never hold again."""
        return at >= self.ends_at

    def check(self, *, now: int, rules: Mapping[str, Collection[str]]) -> None:
        """Raises BadSilence for one that holds for everything, for no alert there can be, for too long, or not any more.

        `rules` are all that there are, each with the names of the labels that its alerts can have: with a name that is none of them
        nothing would be silenced, and nobody would notice.
        """
        if not self.rule and not any(self.labels.values()):
            raise BadSilence("rule", "name a rule or a label: a silence of everything would hide the next failure")
        if self.rule and self.rule not in rules:
            raise BadSilence("rule", f"{self.rule} does not exist: {_instead(self.rule, rules)}")
        self._check_labels(rules)
        if self.ends_at <= max(now, self.starts_at):
            raise BadSilence("ends_at", "must be after now, and after starts_at")
        if self.ends_at - self.starts_at > LONGEST:
            raise BadSilence("ends_at", "must be at most seven days after starts_at; set it again when it ends")
        if self.starts_at - now > FARTHEST:
            raise BadSilence("starts_at", "must be at most seven days ahead")

    def _check_labels(self, rules: Mapping[str, Collection[str]]) -> None:
        anywhere = {*DIMENSIONS, *(name for names in rules.values() for name in names)}
        its = rules[self.rule] if self.rule else anywhere
        where = f"alerts of {self.rule}" if self.rule else "any alert"
        for name, value in self.labels.items():
            # An empty one leaves alerts out: of a rule that never has it, none. Misspelt it would leave in those that it is to leave out.
            known = its if value else anywhere
            if name not in known:
                raise BadSilence("labels", f"named {name} do not exist on {where}: {_instead(name, its)}")
        wanted = {name for name, value in self.labels.items() if value}
        if not self.rule and not any(wanted <= set(names) for names in rules.values()):
            raise BadSilence(
                "labels", f"{', '.join(sorted(wanted))} never stand on one alert together: silence each by itself"
            )


def _instead(name: str, known: Collection[str]) -> str:
    if near := get_close_matches(name, sorted(known)):
        return f"did you mean {' or '.join(near)}?"
    named = sorted(known)[:MOST_NAMES]
    more = f" and {len(known) - len(named)} more" if len(known) > len(named) else ""
    return f"there {'is' if len(known) == 1 else 'are'} {', '.join(named) or 'none'}{more}"


def covering(silences: Iterable[Silence], rule: str, labels: Mapping[str, str], *, at: int) -> tuple[str, ...]:
    """Ids of the silences that hold for an alert at this moment."""
    return tuple(sorted(one.silence_id for one in silences if one.covers(rule, labels, at=at)))
