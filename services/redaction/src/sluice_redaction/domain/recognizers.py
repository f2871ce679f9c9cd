"""Recognizers that a policy brings along: patterns, words, context and checks from its file, no code."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from .checksums import CHECKSUMS
from .findings import Finding
from .phrases import Phrases

DENY_LIST = "deny list"
# As in Presidio's enhancer: what a context word adds to a score, and the least it makes of it.
CONTEXT_GAIN, CONTEXT_FLOOR = 0.35, 0.4
_CONTEXT_BEFORE, _CONTEXT_AFTER = 60, 24
_WORD = re.compile(r"[^\W_]+")


class TextPattern(Protocol):
    """A compiled pattern whose matching takes time linear in the text, whatever pattern and text."""

    @property
    def source(self) -> str: ...

    def spans(self, text: str) -> Iterable[tuple[int, int]]:
        """(start, end) of every match, in code points: of its group `value` where it has one."""
        ...

    def is_whole(self, text: str) -> bool:
        """Whether the whole text matches."""
        ...


class Recognizer(Protocol):
    """Finds values of one kind."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def pattern_count(self) -> int: ...

    def find(self, text: str) -> Iterable[Finding]: ...


@dataclass(frozen=True, slots=True)
class ScoredPattern:
    """score: 0..1, what a match is worth without context and checks."""

    name: str
    pattern: TextPattern
    score: float


@dataclass(frozen=True, slots=True)
class PatternRecognizer:
    """context: words, lower case, one of which beside the value raises its score. needs_context: without one there is no
    finding. checksum: a name of `CHECKSUMS` that values must pass, and that makes them certain; empty for none."""

    name: str
    kind: str
    patterns: tuple[ScoredPattern, ...]
    context: frozenset[str] = frozenset()
    needs_context: bool = False
    checksum: str = ""

    @property
    def digest(self) -> str:
        rows = [f"{one.name}\0{one.score}\0{one.pattern.source}" for one in self.patterns]
        return _digest([self.name, self.kind, *rows, *sorted(self.context), str(self.needs_context), self.checksum])

    @property
    def pattern_count(self) -> int:
        return len(self.patterns)

    def find(self, text: str) -> Iterator[Finding]:
        check = CHECKSUMS.get(self.checksum)
        for one in self.patterns:
            for start, end in one.pattern.spans(text):
                if end > start and (check is None or check(text[start:end])):
                    found = self._finding(text, start, end, one, check)
                    if found is not None:
                        yield found

    def _finding(
        self, text: str, start: int, end: int, one: ScoredPattern, check: Callable[[str], bool] | None
    ) -> Finding | None:
        word = _context_word(text, start, end, self.context) if self.context else ""
        if self.needs_context and not word:
            return None
        score = 1.0 if check else one.score
        if word:
            score = min(1.0, max(score + CONTEXT_GAIN, CONTEXT_FLOOR))
        return Finding(
            start, end, self.kind, score, self.name,
            explanation=f"context:{word}" if word else "checksum" if check else one.name,
            confirmed=bool(check or word), pattern=one.name, context=word, original_score=one.score,
            validation=self.checksum,
        )  # fmt: skip


@dataclass(frozen=True)
class WordRecognizer:
    """Words and phrases that are always of a kind, in any case, as whole words."""

    name: str
    kind: str
    words: tuple[str, ...]
    _phrases: Phrases = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_phrases", Phrases(self.words))

    @property
    def digest(self) -> str:
        return _digest([self.name, self.kind, *sorted(self.words)])

    @property
    def pattern_count(self) -> int:
        return len(self.words)

    def find(self, text: str) -> Iterator[Finding]:
        for found in self._phrases.occurrences(text):
            yield Finding(
                found.start, found.end, self.kind, 1.0, self.name,
                explanation="word list", confirmed=True, pattern="word list", original_score=1.0,
            )  # fmt: skip


def _context_word(text: str, start: int, end: int, context: frozenset[str]) -> str:
    beside = text[max(0, start - _CONTEXT_BEFORE) : start] + " " + text[end : end + _CONTEXT_AFTER]
    return next((word for match in _WORD.finditer(beside) if (word := match[0].lower()) in context), "")


def _digest(parts: Iterable[str]) -> str:
    return "sha256:" + hashlib.sha256("\1".join(parts).encode()).hexdigest()
