"""A policy's own words: terms that are always acted on, and terms that never count."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from sluice_moderation.domain.normalisation import views

if TYPE_CHECKING:
    from sluice_moderation.domain.policy import Action, Direction

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class DeniedTerm:
    """A phrase, whole words in any case, and what is done where it is found, also in disguise."""

    phrase: str
    action: Action
    directions: frozenset[Direction]


@dataclass(frozen=True)
class Terms:
    """Both lists of a policy. Evidence names a denied term by its place in the list, never by its words."""

    denied: tuple[DeniedTerm, ...] = ()
    allowed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.denied or self.allowed)

    def without_allowed(self, text: str) -> str:
        """The text as detectors may see it: each allowed term is a blank."""
        if not self.allowed:
            return text
        lowered = text.lower()
        here = tuple(phrase for phrase in self._allowed if phrase in lowered)
        return _any_of(here).sub(" ", text) if here else text

    def find(self, text: str, direction: Direction) -> int | None:
        """Place of the strictest denied term in a text; None where there is none."""
        if not self.denied:
            return None
        found = [
            place
            for view in views(text)
            for place in self._denied.places_in(view.lower())
            if direction in self.denied[place].directions
        ]
        return max(found, key=lambda place: self.denied[place].action, default=None)

    @cached_property
    def _allowed(self) -> tuple[str, ...]:
        return tuple(phrase.lower() for phrase in self.allowed)

    @cached_property
    def _denied(self) -> _Index:
        return _Index.of([term.phrase for term in self.denied])


@dataclass(frozen=True)
class _Index:
    """Finds phrases at a cost that hardly depends on how many there are: 2,000 alternatives of a regex take 30 ms a window.

    `by_word` has the phrases that are words with spaces between them, by their first word; they also match where other signs
    stand between the words. `others` have signs in them, or belong to scripts without spaces.
    """

    by_word: dict[str, list[tuple[tuple[str, ...], int]]]
    others: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, phrases: Sequence[str]) -> _Index:
        by_word: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        others: dict[tuple[str, int], None] = {}
        for place, phrase in enumerate(phrases):
            for view in views(phrase):
                words = tuple(_WORD.findall(view.lower()))
                if " ".join(words) == view.lower() and all(_is_spaced(word[0]) for word in words):
                    by_word.setdefault(words[0], []).append((words, place))
                else:
                    others[view.lower(), place] = None
        return cls(by_word, tuple(others))

    def places_in(self, view: str) -> Iterator[int]:
        """The places of all phrases in a lower-case view."""
        words = _WORD.findall(view) if self.by_word else []
        for at, word in enumerate(words):
            for spelled, place in self.by_word.get(word, ()):
                if tuple(words[at : at + len(spelled)]) == spelled:
                    yield place
        for phrase, place in self.others:
            if phrase in view and _any_of((phrase,)).search(view):
                yield place


@lru_cache(maxsize=4096)
def _any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """Whole words; the longest of several that begin at one place."""
    return re.compile("|".join(map(_whole, sorted(phrases, key=len, reverse=True))), re.IGNORECASE)


def _whole(phrase: str) -> str:
    before = r"(?<!\w)" if _is_spaced(phrase[0]) else ""
    after = r"(?!\w)" if _is_spaced(phrase[-1]) else ""
    return before + re.escape(phrase) + after


def _is_spaced(character: str) -> bool:
    """A word character of a script that parts words by spaces (all below the South-East and East Asian ones)."""
    return (character.isalnum() or character == "_") and character < "\u0e00"
