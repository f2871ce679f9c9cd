"""Tells in one pass over a text which of several hundred patterns can match it at all.

With Hyperscan the patterns are a few automata; without it (no wheel for the machine, a processor it does not know) each is
searched for in turn: slower, same answer. Why Hyperscan: docs/decisions/0004-pattern-engine.md.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

try:
    import hyperscan
except ImportError:  # pragma: no cover - a machine without a wheel
    hyperscan = None  # type: ignore[assignment,unused-ignore]

# Repetitions longer than this are let run on in the automaton: it may then say yes too often, never too seldom, and
# compiles in a second instead of a minute.
_LONGEST_REPEAT = 8
# Expressions in one automaton. All 600 in one take 10 s to compile and 45 us to run over 600 characters; 64 at a time 4 s
# and 75 us; one by one 4 s and a millisecond.
_TOGETHER = 64
_REPEAT = re.compile(r"\{(\d+)(,?)(\d*)\}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Scan(Protocol):
    """What can match in one text."""

    @property
    def hits(self) -> set[int]:
        """Numbers of the triggers: all that match, perhaps some that do not."""
        ...

    def may_match(self, expression: re.Pattern[str]) -> bool:
        """False only if the expression does not match the text."""
        ...


class Prefilter(Protocol):
    """Tells which expressions may match a text."""

    def scan(self, text: str) -> Scan: ...


class PlainPrefilter:
    """One search a trigger: exact, and as slow as that."""

    def __init__(self, triggers: Sequence[re.Pattern[str]]) -> None:
        self._triggers = tuple(triggers)

    def scan(self, text: str) -> "_PlainScan":
        return _PlainScan({number for number, trigger in enumerate(self._triggers) if trigger.search(text)})


@dataclass(frozen=True, slots=True)
class _PlainScan:
    hits: set[int]

    def may_match(self, _: re.Pattern[str]) -> bool:
        return True


class HyperscanPrefilter:
    """A few automata for all triggers, and one each for the expressions that a text is asked for only sometimes.

    Not for two threads at once: each needs working memory of its own.
    """

    def __init__(self, triggers: Sequence[re.Pattern[str]], others: Sequence[re.Pattern[str]]) -> None:
        """Raises hyperscan's error where it cannot run on this machine."""
        databases, self._always = _compiled(tuple(triggers))
        self._databases = [(database, hyperscan.Scratch(database)) for database in databases]
        self._singles = {
            expression: (database, hyperscan.Scratch(database))
            for expression, database in _compiled_singly(tuple(others)).items()
        }

    def scan(self, text: str) -> "_HyperscanScan":
        content, found = _bytes(text), set(self._always)
        add = found.add

        def hit(number: int, _start: int, _end: int, _flags: int, _context: object) -> None:
            add(number)

        for database, scratch in self._databases:
            database.scan(content, match_event_handler=hit, scratch=scratch)
        return _HyperscanScan(found, content, self._singles)


@dataclass(frozen=True, slots=True)
class _HyperscanScan:
    hits: set[int]
    content: bytes
    singles: Mapping[re.Pattern[str], tuple[Any, Any]]

    def may_match(self, expression: re.Pattern[str]) -> bool:
        if expression not in self.singles:
            return True
        database, scratch = self.singles[expression]
        seen: list[int] = []
        database.scan(self.content, match_event_handler=lambda number, *_: seen.append(number), scratch=scratch)
        return bool(seen)


def prefilter(
    triggers: Sequence[re.Pattern[str]], others: Sequence[re.Pattern[str]], *, plain: bool = False
) -> Prefilter:
    """Hyperscan's if it can run here and `plain` does not forbid it. others: what `Scan.may_match` is asked for."""
    if hyperscan is None or plain:
        return PlainPrefilter(triggers)
    try:
        return HyperscanPrefilter(triggers, others)
    except hyperscan.error:  # pragma: no cover - an old processor
        return PlainPrefilter(triggers)


@functools.lru_cache(maxsize=8)
def _compiled(expressions: tuple[re.Pattern[str], ...]) -> tuple[Sequence[Any], frozenset[int]]:
    """The automata, shared by all threads, and the expressions that none would take, which therefore always count as hit."""
    databases, refused = [], set()
    for first in range(0, len(expressions), _TOGETHER):
        numbers = range(first, min(first + _TOGETHER, len(expressions)))
        try:
            databases.append(_database(expressions, numbers))
        except hyperscan.error:
            taken = [number for number in numbers if _takes(expressions, number)]
            refused |= set(numbers) - set(taken)
            databases.append(_database(expressions, taken))
    return databases, frozenset(refused)


@functools.lru_cache(maxsize=8)
def _compiled_singly(expressions: tuple[re.Pattern[str], ...]) -> Mapping[re.Pattern[str], Any]:
    """142 patterns of digits take 0.7 s one by one; in automata of 64 they take 9 s."""
    return {
        expression: _database(expressions, [number])
        for number, expression in enumerate(expressions)
        if _takes(expressions, number)
    }


def _takes(expressions: Sequence[re.Pattern[str]], number: int) -> bool:
    try:
        _database(expressions, [number])
    except hyperscan.error:
        return False
    return True


def _database(expressions: Sequence[re.Pattern[str]], numbers: Sequence[int]) -> Any:
    database = hyperscan.Database()
    database.compile(
        expressions=[_loosened(expressions[number].pattern) for number in numbers],
        ids=list(numbers),
        flags=[_flags(expressions[number]) for number in numbers],
    )
    return database


def _flags(expression: re.Pattern[str]) -> int:
    flags: int = hyperscan.HS_FLAG_PREFILTER | hyperscan.HS_FLAG_SINGLEMATCH | hyperscan.HS_FLAG_UTF8
    for python, theirs in (
        (re.IGNORECASE, hyperscan.HS_FLAG_CASELESS),
        (re.MULTILINE, hyperscan.HS_FLAG_MULTILINE),
        (re.DOTALL, hyperscan.HS_FLAG_DOTALL),
    ):
        if expression.flags & python:
            flags |= theirs
    return flags if expression.flags & re.ASCII else flags | hyperscan.HS_FLAG_UCP


def _loosened(expression: str) -> bytes:
    return _REPEAT.sub(_looser, expression).encode()


def _looser(repeat: re.Match[str]) -> str:
    least = int(repeat[1])
    most = int(repeat[3]) if repeat[3] else (least if not repeat[2] else None)
    if most is not None and most <= _LONGEST_REPEAT:
        return repeat[0]
    return f"{{{min(least, _LONGEST_REPEAT)},}}"


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: not text, and no pattern asks for it
        return _SURROGATE.sub("\ufffd", text).encode()
