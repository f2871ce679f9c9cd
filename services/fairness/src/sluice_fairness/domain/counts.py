"""Sums over decisions, answers and reviews of one group. Integers only, so that adding is exact in any order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from sluice_fairness.domain.facts import (
    INPUT_COHORT,
    INPUT_TERMS,
    NO_GROUP,
    OUTPUT_COHORT,
    OUTPUT_TERMS,
    Completion,
    Decision,
    Review,
)


@dataclass(slots=True)
class GroupCounts:
    """What the fields of the event FairnessGroupCounts say."""

    judged: int = 0
    allowed: int = 0
    flagged: int = 0
    blocked: int = 0
    skipped: int = 0
    score_sum: int = 0
    score_square_sum: int = 0
    answers: int = 0
    answer_characters_sum: int = 0
    answer_characters_square_sum: int = 0
    refusals_judged: int = 0
    refusals: int = 0
    upheld_blocks: int = 0
    false_blocks: int = 0
    upheld_passes: int = 0
    misses: int = 0

    def add_decision(self, decision: Decision) -> None:
        """Count one decision. One that was not made says nothing about the filter."""
        if decision.skipped:
            self.skipped += 1
            return
        self.judged += 1
        self.allowed += not decision.blocked
        self.flagged += decision.flagged
        self.blocked += decision.blocked
        self.score_sum += decision.score
        self.score_square_sum += decision.score**2

    def add_answer(self, completion: Completion) -> None:
        """Count one answer."""
        self.answers += 1
        self.answer_characters_sum += completion.answer_characters
        self.answer_characters_square_sum += completion.answer_characters**2
        self.refusals_judged += completion.refusal is not None
        self.refusals += bool(completion.refusal)

    def add_review(self, review: Review, decision: Decision) -> None:
        """Count one reviewed decision."""
        self.upheld_blocks += decision.blocked and not review.overturned
        self.false_blocks += decision.blocked and review.overturned
        self.upheld_passes += not decision.blocked and not review.overturned
        self.misses += not decision.blocked and review.overturned

    def merge(self, other: GroupCounts) -> None:
        """Add the other's sums."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


Groups = dict[str, GroupCounts]
"""By `attribute/group`."""


def group_keys(decision: Decision, completion: Completion) -> list[str]:
    """The groups a decision on a request counts in: those its texts mention, and the declared ones."""
    terms, cohort = (OUTPUT_TERMS, OUTPUT_COHORT) if decision.output else (INPUT_TERMS, INPUT_COHORT)
    mentioned = [f"{terms}/{group}" for group in decision.groups or (NO_GROUP,)]
    return mentioned + [f"{cohort}{attribute}/{value}" for attribute, value in completion.cohorts]


def is_of_inputs(attribute: str) -> bool:
    """True when the groups are of what callers wrote, which is what answers and refusals are counted by."""
    return attribute == INPUT_TERMS or attribute.startswith(INPUT_COHORT)


def merged(parts: Iterable[Mapping[str, GroupCounts]]) -> Groups:
    """The sums of all parts."""
    total: Groups = {}
    for part in parts:
        for key, counts in part.items():
            total.setdefault(key, GroupCounts()).merge(counts)
    return total
