"""A policy's own words: terms that are always acted on, and terms that never count."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from sluice_moderation.domain.normalisation import views

if TYPE_CHECKING:
    from sluice_moderation.domain.policy import Action, Direction


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
        return self._allowed.sub(" ", text) if self.allowed else text

    def find(self, text: str, direction: Direction) -> int | None:
        """Place of the strictest denied term in a text; None where there is none. Time is linear in the text."""
        found = [
            place
            for view in views(text)
            for match in self._denied.finditer(view.lower())
            for place in self._places.get(match.group(), ())
            if direction in self.denied[place].directions
        ] if self.denied else []  # fmt: skip
        return max(found, key=lambda place: self.denied[place].action, default=None)

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        places: dict[str, list[int]] = {}
        for place, term in enumerate(self.denied):
            for view in views(term.phrase):
                places.setdefault(view.lower(), []).append(place)
        return places

    @cached_property
    def _denied(self) -> re.Pattern[str]:
        return _any_of(self._places)

    @cached_property
    def _allowed(self) -> re.Pattern[str]:
        return _any_of(self.allowed)


def _any_of(phrases: object) -> re.Pattern[str]:
    """Whole words; the longest of several that begin at one place. Words of scripts without spaces match anywhere."""
    longest_first = sorted(phrases, key=len, reverse=True)  # type: ignore[call-overload]
    return re.compile("|".join(map(_whole, longest_first)), re.IGNORECASE)


def _whole(phrase: str) -> str:
    before = r"(?<!\w)" if _is_spaced(phrase[0]) else ""
    after = r"(?!\w)" if _is_spaced(phrase[-1]) else ""
    return before + re.escape(phrase) + after


def _is_spaced(character: str) -> bool:
    """A word character of a script that parts words by spaces (all below the South-East and East Asian ones)."""
    return (character.isalnum() or character == "_") and character < "\u0e00"
