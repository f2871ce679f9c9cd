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


class _Node:
    """What may follow in a phrase. phrase: the one that ends here."""

    __slots__ = ("following", "phrase")

    def __init__(self) -> None:
        self.following: dict[tuple[str, bool], _Node] = {}
        self.phrase: str | None = None


class Phrases:
    """A set of phrases. A phrase is found as whole words only."""

    def __init__(self, phrases: Iterable[str] = ()) -> None:
        self._root = _Node()
        for phrase in phrases:
            self.add(phrase)

    def add(self, phrase: str) -> None:
        """Blank phrases are left out: they would stand everywhere."""
        node, glued = self._root, False
        for part in _parts(phrase):
            node = node.following.setdefault((part.folded, glued and part.glued), _Node())
            glued = True
        if node is not self._root:
            node.phrase = phrase

    def occurrences(self, text: str) -> Iterator[Occurrence]:
        """In order, not overlapping, at each place the longest."""
        if not self._root.following:
            return
        parts, number = _parts(text), 0
        while number < len(parts):
            length, phrase = self._longest_at(parts, number)
            if length:
                yield Occurrence(parts[number].start, parts[number + length - 1].end, phrase)
            number += length or 1

    def _longest_at(self, parts: Sequence[_Part], number: int) -> tuple[int, str]:
        """How many parts, and which phrase; 0 for none."""
        found, node, place = (0, ""), self._root, number
        while place < len(parts):
            part = parts[place]
            first = place == number
            if not first and part.start - parts[place - 1].end > _WIDEST_GAP:
                break
            following = node.following.get((part.folded, part.glued and not first))
            if following is None:
                break
            node, place = following, place + 1
            if node.phrase is not None:
                found = (place - number, node.phrase)
        return found


def _parts(text: str) -> list[_Part]:
    parts: list[_Part] = []
    end = -1
    for match in _PART.finditer(text):
        parts.append(_Part(match[0].casefold(), match.start(), match.end(), match.start() == end))
        end = match.end()
    return parts
