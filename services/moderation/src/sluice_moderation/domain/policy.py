"""A policy: from which score on what is done, for each category and direction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Direction(StrEnum):
    """Which way the text flows: to the model or from it."""

    INPUT = "input"
    OUTPUT = "output"


class Action(IntEnum):
    """What is done with a text; a higher value outranks a lower one. SKIPPED: not checked, and let through."""

    ALLOW = 1
    SKIPPED = 2
    FLAG = 3
    BLOCK = 4


@dataclass(frozen=True)
class Rule:
    """At or above `threshold` (0 to 1), `action` is taken."""

    category: str
    direction: Direction
    threshold: float
    action: Action


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
class Policy:
    """Versioned rules. `fail_closed`: text that could not be checked is blocked."""

    policy_id: str
    version: int
    description: str
    rules: tuple[Rule, ...]
    fail_closed: bool

    def rules_for(self, direction: Direction, category: str) -> list[Rule]:
        """The rules of one category, mildest first."""
        found = [rule for rule in self.rules if (rule.direction, rule.category) == (direction, category)]
        return sorted(found, key=lambda rule: rule.threshold)

    def categories(self, direction: Direction) -> tuple[str, ...]:
        """What has to be checked in a direction, in the order of the policy."""
        return tuple(dict.fromkeys(rule.category for rule in self.rules if rule.direction is direction))

    def judge(self, direction: Direction, category: str, score: float) -> CategoryScore:
        """Hold a score against the rules of its category, which must have some."""
        rules = self.rules_for(direction, category)
        reached = [rule for rule in rules if score >= rule.threshold]
        rule = reached[-1] if reached else rules[0]
        return CategoryScore(category, score, rule.threshold, rule.action)


def strictest(scores: Iterable[CategoryScore]) -> Action:
    """The action that the reached thresholds ask for; ALLOW where none is reached."""
    return max((score.action for score in scores if score.is_reached), default=Action.ALLOW)
