"""A pattern recognizer: expressions, the words and the check that its matches need, and what it says of a match.

This is also the shape in which a recognizer from configuration is handed to the engine.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from sluice_redaction.domain.findings import Finding

from .context import Context, Nearby, called_otherwise

_GAIN, _FLOOR = 0.35, 0.45  # as in Presidio's own enhancer; the floor lies above the default policy's threshold


@dataclass(frozen=True, slots=True)
class Check:
    """name: what is checked, said in evidence ("luhn"). passes: True raises the score to 1, False drops the match, None
    says nothing."""

    name: str
    passes: Callable[[str], bool | None]


@dataclass(frozen=True, slots=True)
class Pattern:
    """expression: compiled with `re.ASCII` (so that every engine reads it alike); where it has a group `value`, that is
    the finding. Its repetitions are bounded, so that matching stays linear. check and needs_context: of this pattern alone.
    trigger: a simpler expression that every text with a match contains, where the pattern itself makes a large automaton.
    """

    name: str
    expression: re.Pattern[str]
    score: float
    check: Check | None = None
    needs_context: bool | None = None
    trigger: re.Pattern[str] | None = None

    @classmethod
    def of(
        cls,
        name: str,
        expression: str,
        score: float,
        *,
        ignore_case: bool = False,
        check: Check | None = None,
        needs_context: bool | None = None,
        trigger: str = "",
    ) -> "Pattern":
        flags = re.ASCII | (re.IGNORECASE if ignore_case else 0)
        simpler = re.compile(trigger, flags) if trigger else None
        return cls(name, re.compile(expression, flags), score, check, needs_context, simpler)


@dataclass(frozen=True, slots=True)
class Recognizer:
    """Finds one kind.

    context: words that raise the score when they stand beside the value. needs_context: a match without any is dropped,
    unless its check passed with `check_suffices`. confirmed: the pattern alone settles the kind, against a model's guess.
    veto: drops a match by what stands around it, `veto(text, start, end)`.
    """

    name: str
    kind: str
    patterns: Sequence[Pattern]
    context: Context | None = None
    needs_context: bool = False
    check: Check | None = None
    check_suffices: bool = False
    confirmed: bool = False
    veto: Callable[[str, int, int], bool] | None = field(default=None, compare=False)

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset([self.kind])

    def triggers(self, pattern: Pattern) -> Sequence[re.Pattern[str]]:
        """Of what a text must contain one for the pattern to count: its words if it needs them, else a match of itself."""
        if self.context is not None and self.is_named(pattern):
            return self.context.triggers
        return (pattern.trigger or pattern.expression,)

    def is_named(self, pattern: Pattern) -> bool:
        """The pattern counts only beside one of the words."""
        return self.context is not None and self._needs_words(pattern) and not self.check_suffices

    def _needs_words(self, pattern: Pattern) -> bool:
        return self.needs_context if pattern.needs_context is None else pattern.needs_context

    def find(self, text: str, patterns: Iterable[Pattern]) -> Iterator[Finding]:
        """Findings of the given patterns (those that can match), the better of two on the same span."""
        best: dict[tuple[int, int], Finding] = {}
        for pattern in patterns:
            for start, end in spans(pattern.expression, text):
                finding = self._judged(text, start, end, pattern)
                if finding is not None and finding.score > getattr(best.get((start, end)), "score", 0.0):
                    best[start, end] = finding
        yield from best.values()

    def _judged(self, text: str, start: int, end: int, pattern: Pattern) -> Finding | None:
        if self.veto is not None and self.veto(text, start, end):
            return None
        check = pattern.check or self.check
        verdict = check.passes(text[start:end]) if check else None
        if verdict is False:
            return None
        nearby = self.context.nearest(text, start, end) if self.context else None
        must_be_named = self._needs_words(pattern) and not (verdict and self.check_suffices)
        if must_be_named and (nearby is None or called_otherwise(text, start, nearby)):
            return None
        passed = check.name if check and verdict else ""
        return self._finding((start, end), pattern, nearby, passed)

    def _finding(self, span: tuple[int, int], pattern: Pattern, nearby: Nearby | None, passed: str) -> Finding:
        score = 1.0 if passed else pattern.score
        if nearby is not None:
            score = min(1.0, max(score + _GAIN, _FLOOR))
        return Finding(
            *span,
            self.kind,
            score,
            self.name,
            f"context:{nearby.word}" if nearby else passed or pattern.name,
            confirmed=bool(self.confirmed or passed or nearby),
            pattern=pattern.name,
            context=nearby.word if nearby else "",
            original_score=pattern.score,
            validation=passed,
            context_distance=nearby.distance if nearby else 0,
        )


def spans(expression: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    """Where a pattern's values stand, without the empty ones."""
    group = expression.groupindex.get("value", 0)
    for match in expression.finditer(text):
        start, end = match.span(group)
        if end > start:
            yield start, end
