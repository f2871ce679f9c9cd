"""Many words and phrases looked for in a text at once, in any case and across any blanks, in time linear in the text."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# A word, or one sign: so that "@acme" is found in "(@acme)".
_PART = re.compile(r"\w+|[^\w\s]")
_WIDEST_GAP = 8


@dataclass(frozen=True, slots=True)
class _Part:
    """folded: for comparison. glued: nothing stands between it and the part before."""

    folded: str
    start: int
    end: int
    glued: bool


@dataclass(frozen=True, slots=True)
class Occurrence:
    """`text[start:end]` is a phrase, as `phrase` spells it."""

    start: int
    end: int
    phrase: str


class Phrases:
    """A set of phrases. A phrase is found as whole words only."""

    def __init__(self, phrases: Iterable[str] = ()) -> None:
        self._by_first: dict[str, list[tuple[Sequence[_Part], str]]] = {}
        self._known: set[str] = set()
        for phrase in phrases:
            self.add(phrase)

    def __len__(self) -> int:
        return len(self._known)

    def add(self, phrase: str) -> None:
        """Blank phrases are left out: they would stand everywhere."""
        parts = _parts(phrase)
        if not parts or phrase in self._known:
            return
        self._known.add(phrase)
        same = self._by_first.setdefault(parts[0].folded, [])
        same.append((parts, phrase))
        same.sort(key=lambda known: -len(known[0]))

    def occurrences(self, text: str) -> Iterator[Occurrence]:
        """In order, not overlapping, at each place the longest."""
        if not self._by_first:
            return
        parts, number = _parts(text), 0
        while number < len(parts):
            found = self._longest_at(parts, number)
            if found is None:
                number += 1
                continue
            length, phrase = found
            yield Occurrence(parts[number].start, parts[number + length - 1].end, phrase)
            number += length

    def _longest_at(self, parts: Sequence[_Part], number: int) -> tuple[int, str] | None:
        for wanted, phrase in self._by_first.get(parts[number].folded, ()):
            there = parts[number : number + len(wanted)]
            if len(there) == len(wanted) and all(map(_follows, there[1:], wanted[1:], there)):
                return len(wanted), phrase
        return None


def _follows(there: _Part, wanted: _Part, before: _Part) -> bool:
    return (
        there.folded == wanted.folded
        and there.glued == wanted.glued
        and (there.glued or there.start - before.end <= _WIDEST_GAP)
    )


def _parts(text: str) -> list[_Part]:
    parts: list[_Part] = []
    end = -1
    for match in _PART.finditer(text):
        parts.append(_Part(match[0].casefold(), match.start(), match.end(), match.start() == end))
        end = match.end()
    return parts
