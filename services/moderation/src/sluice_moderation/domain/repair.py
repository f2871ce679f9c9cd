"""Puts words together that were taken apart or misspelt, so that a model meets words it knows.

Only words nobody knows are touched: a long run of letters is cut into known words (`ihateyou`), neighbours that make up one charged word are
joined (`stu pid`), and a word one letter away from a charged word (left out, doubled, swapped, replaced, masked: `stpuid`, `id*ot`) is read
as that word. A charged word is one that moves a score much; see SymSpell (Garbe 2012) for the index by deletions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_TOKEN = re.compile(r"[a-z*']+")
_SHORTEST_CHARGED = 4
_SHORTEST_RUN = 7  # a run of letters shorter than this is not cut into words
_LONGEST_RUN = 200
_LONGEST_WORD = 16
_ONE_LETTER_WORDS = frozenset("aiu")
_UNKNOWN_COST, _WORD_COST = 3.0, 1.0  # of a letter that no word covers; of each word


def _deletions(word: str) -> set[str]:
    return {word[:i] + word[i + 1 :] for i in range(len(word))}


@dataclass(frozen=True)
class Repairer:
    """`known`: words of ordinary language, left alone. `charged`: words worth looking for (a subset of the known)."""

    known: frozenset[str]
    charged: frozenset[str]
    _near: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        near: dict[str, str] = {}
        for word in sorted(w for w in self.charged if len(w) >= _SHORTEST_CHARGED):
            for shorter in _deletions(word):
                near.setdefault(shorter, word)
        object.__setattr__(self, "_near", near)

    def repaired(self, text: str) -> str:
        """The text (lower case) with its broken words mended; itself where there are none."""
        words = text.split(" ")
        if all(word in self.known for word in words):
            return text
        return " ".join(self._joined([self._mended(word) for word in words]))

    def _mended(self, word: str) -> str:
        if word in self.known or len(word) < _SHORTEST_CHARGED:
            return word
        return _TOKEN.sub(lambda token: self._read(token.group()), word)

    def _read(self, token: str) -> str:
        letters = token.replace("*", "")
        if token in self.known or not _SHORTEST_CHARGED - 1 <= len(letters) <= _LONGEST_RUN:
            return token
        if letters in self.known:
            return letters
        return self._nearest(token) or (self._cut(letters) if len(letters) >= _SHORTEST_RUN else None) or token

    def _nearest(self, token: str) -> str | None:
        """A charged word one deletion, insertion, replacement or swap away, with the same first letter."""
        letters = token.replace("*", "")
        if len(letters) > _LONGEST_WORD + 1:
            return None
        for candidate in (self._near.get(token), self._near.get(letters) if letters != token else None):
            if candidate and candidate[0] == token[0]:
                return candidate
        for shorter in sorted(_deletions(token)):
            found = shorter if shorter in self.charged else self._near.get(shorter)
            if found and found[0] == token[0] and self._is_safe(token, found) and _is_near(token, found):
                return found
        return None

    @staticmethod
    def _is_safe(token: str, word: str) -> bool:
        """Words of four letters have too many neighbours: of them only swapped letters are mended here."""
        return len(word) > _SHORTEST_CHARGED or sorted(token) == sorted(word)

    def _cut(self, token: str) -> str | None:
        """The cheapest way to read a run of letters as words; None where much of it is no word."""
        if len(token) > _LONGEST_RUN:
            return None
        best: list[tuple[float, int, bool]] = [(0.0, 0, True)]
        for end in range(1, len(token) + 1):
            options = [(best[end - 1][0] + _UNKNOWN_COST, end - 1, False)]
            for start in range(max(0, end - _LONGEST_WORD), end):
                piece = token[start:end]
                if piece in self.known and (len(piece) > 1 or piece in _ONE_LETTER_WORDS):
                    options.append((best[start][0] + _WORD_COST + 2.0 / len(piece), start, True))
            best.append(min(options))
        pieces, end = [], len(token)
        while end:
            _, start, is_word = best[end]
            pieces.append((token[start:end], is_word))
            end = start
        unknown = sum(len(piece) for piece, is_word in pieces if not is_word)
        return " ".join(piece for piece, _ in reversed(pieces)) if unknown * 5 <= len(token) else None

    def _joined(self, words: Iterable[str]) -> list[str]:
        """Neighbours of which one is no word, but which are a charged word together."""
        found: list[str] = []
        for word in words:
            if found and (word not in self.known or found[-1] not in self.known):
                together = found[-1] + word.rstrip(".,!?;:")
                if together in self.charged:
                    found[-1] = together
                    continue
            found.append(word)
        return found


def _is_near(token: str, word: str) -> bool:
    """One replacement, insertion, deletion or swap of neighbours apart."""
    if abs(len(token) - len(word)) == 1:
        longer, shorter = (token, word) if len(token) > len(word) else (word, token)
        return shorter in _deletions(longer)
    if len(token) != len(word):
        return False
    apart = [i for i, (a, b) in enumerate(zip(token, word, strict=True)) if a != b]
    if len(apart) == 1:
        return True
    return (
        len(apart) == 2
        and apart[1] == apart[0] + 1
        and token[apart[0]] == word[apart[1]]
        and token[apart[1]] == word[apart[0]]
    )
