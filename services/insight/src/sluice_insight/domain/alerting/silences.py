"""Silences: for how long receivers are not told of which alerts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from sluice_insight.domain.board import MINUTE

LONGEST = 7 * 24 * 60 * MINUTE
"""A silence ends. What must be quiet for longer is a rule that is wrong."""
FARTHEST = LONGEST
"""How far ahead one may begin."""

RULES_OF_OTHERS = ("cost.unpriced",)
"""Rules of other services of the mesh, whose alerts are silenced here though they are not judged here."""
MOST_NAMES = 20
"""Of rules that are told where none has a name like the one asked for."""


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

    def check(self, *, now: int, rules: Collection[str]) -> None:
        """Raises BadSilence for one that holds for everything, for no alert there can be, for too long, or not any more.

        `rules` are all that there are: with a name that is none of them nothing would be silenced, and nobody would notice.
        """
        if not self.rule and not any(self.labels.values()):
            raise BadSilence("rule", "name a rule or a label: a silence of everything would hide the next failure")
        if self.rule and self.rule not in rules:
            raise BadSilence("rule", f"{self.rule} does not exist: {_instead(self.rule, rules)}")
        if self.ends_at <= max(now, self.starts_at):
            raise BadSilence("ends_at", "must be after now, and after starts_at")
        if self.ends_at - self.starts_at > LONGEST:
            raise BadSilence("ends_at", "must be at most seven days after starts_at; set it again when it ends")
        if self.starts_at - now > FARTHEST:
            raise BadSilence("starts_at", "must be at most seven days ahead")


def _instead(rule: str, rules: Collection[str]) -> str:
    if near := get_close_matches(rule, sorted(rules)):
        return f"did you mean {' or '.join(near)}?"
    named = sorted(rules)[:MOST_NAMES]
    return f"there are {', '.join(named)}{f' and {len(rules) - len(named)} more' if len(rules) > len(named) else ''}"


def covering(silences: Iterable[Silence], rule: str, labels: Mapping[str, str], *, at: int) -> tuple[str, ...]:
    """Ids of the silences that hold for an alert at this moment."""
    return tuple(sorted(one.silence_id for one in silences if one.covers(rule, labels, at=at)))
