"""A policy: from which score on what is done, for each category, direction and language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import cached_property

from sluice_moderation.domain.terms import Terms

# The category of a policy's own list of terms; no detector scores it.
DENIED_TERM = "denied_term"


class Direction(StrEnum):
    """Which way the text flows: to the model or from it."""

    INPUT = "input"
    OUTPUT = "output"


class Action(IntEnum):
    """What is done with a text; a higher value outranks a lower one. SKIPPED: not checked, and let through."""

    ALLOW = 1
    SKIPPED = 2
    FLAG = 3
    REDACT = 4
    HOLD = 5
    BLOCK = 6

    @property
    def withholds(self) -> bool:
        """Nothing of the text goes on: for good, or until a person has looked."""
        return self >= Action.HOLD


@dataclass(frozen=True)
class Rule:
    """At or above `threshold` (0 to 1), `action` is taken; `language` is empty for all that have no rule of their own."""

    category: str
    direction: Direction
    threshold: float
    action: Action
    language: str = ""


@dataclass(frozen=True)
class CategoryScore:
    """The score of one category, and the rule it was held against: the strictest one reached, else the first to be reached."""

    category: str
    score: float
    threshold: float
    action: Action

    @property
    def is_reached(self) -> bool:
        return self.score >= self.threshold


@dataclass(frozen=True)
class RuleSheet:
    """The rules that count for one call: category to its rules, mildest first, in the order of the policy."""

    rules: Mapping[str, tuple[Rule, ...]]

    def judge(self, category: str, score: float) -> CategoryScore:
        """Hold a score against the rules of its category, which must have some."""
        rules = self.rules[category]
        reached = [rule for rule in rules if score >= rule.threshold]
        rule = reached[-1] if reached else rules[0]
        return CategoryScore(category, score, rule.threshold, rule.action)


@dataclass(frozen=True)
class Policy:
    """Versioned rules.

    `fail_closed`: text that could not be checked is blocked. `tenants`: whom it belongs to; empty for everybody. `shadow_of`: the
    policy beside which this one is judged on a `sample` of requests, without being enforced. `digest`: of the file it was read from.
    """

    policy_id: str
    version: int
    description: str
    rules: tuple[Rule, ...]
    fail_closed: bool
    tenants: frozenset[str] = frozenset()
    shadow_of: str = ""
    sample: float = 1.0
    terms: Terms = field(default_factory=Terms)
    digest: str = ""

    def sheet(self, direction: Direction, language: str) -> RuleSheet:
        """The rules for texts of one direction and language; a language's own rules stand in the place of the common ones."""
        language = language if language in self._languages else ""
        if (direction, language) not in self._sheets:
            self._sheets[direction, language] = self._sheet(direction, language)
        return self._sheets[direction, language]

    @cached_property
    def _languages(self) -> frozenset[str]:
        return frozenset(rule.language for rule in self.rules)

    @cached_property
    def _sheets(self) -> dict[tuple[Direction, str], RuleSheet]:
        return {}

    def _sheet(self, direction: Direction, language: str) -> RuleSheet:
        found: dict[str, dict[str, list[Rule]]] = {}
        for rule in self.rules:
            if rule.direction is direction and rule.language in ("", language):
                found.setdefault(rule.category, {}).setdefault(rule.language, []).append(rule)
        return RuleSheet(
            {
                category: tuple(sorted(by_language.get(language) or by_language[""], key=lambda rule: rule.threshold))
                for category, by_language in found.items()
            }
        )

    def categories(self, direction: Direction, language: str = "") -> tuple[str, ...]:
        """What has to be checked, in the order of the policy."""
        return tuple(self.sheet(direction, language).rules)

    def belongs_to(self, tenant_id: str) -> bool:
        """Whether the tenant may use it."""
        return not self.tenants or tenant_id in self.tenants


def strictest(scores: Iterable[CategoryScore]) -> Action:
    """The action that the reached thresholds ask for; ALLOW where none is reached."""
    return max((score.action for score in scores if score.is_reached), default=Action.ALLOW)
