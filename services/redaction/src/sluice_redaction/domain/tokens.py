"""Reading tokens out of an answer: what redaction put in, however the model has spelled it since.

Tokens in brackets (`<PERSON_1>`) are read leniently: any case, other brackets, blanks, line ends or Markdown between
their parts, a possessive or plural s. Without brackets only the upper-case form counts, as a whole word. Made-up values
(surrogates) are read as whole words, across any blank; in capitals they stand for the value in capitals.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .placeholders import key_of

_ANGLES = (
    (
        "<",
        "\\<",
        "&lt;",
        "&LT;",
        "&#60;",
        "&#x3c;",
        "&#x3C;",
        "\\u003c",
        "\\u003C",
        "\\\\u003c",
        "\\\\u003C",
        *"＜‹〈⟨",
    ),
    (
        ">",
        "\\>",
        "&gt;",
        "&GT;",
        "&#62;",
        "&#x3e;",
        "&#x3E;",
        "\\u003e",
        "\\u003E",
        "\\\\u003e",
        "\\\\u003E",
        *"＞›〉⟩",
    ),
)
_SQUARES = (("[", "\\[", *"［【"), ("]", "\\]", *"］】"))
_DOUBLE_CURLIES, _CURLIES = (("{{",), ("}}",)), (("{", "\\{"), ("}", "\\}"))
_OPENERS = "<[{&\\＜‹〈⟨［【"
# Between the parts of a token: what joins words, what Markdown and line breaking put in, what nobody sees.
_BETWEEN = frozenset(" \t\r\n_-–\u00a0\u2011\u200b\u00ad*`~\\")
_MOST_BETWEEN = 6
_SUFFIXES = ("'s", "’s", "'S", "’S", "s", "S", "")
_BLANK = frozenset(" \t\r\n\u00a0")
_WIDEST_GAP = 8
# `[PERSON_1](...)` is a link and `array[PERSON_1]` an index: their brackets stay.
_AFTER_LINK = "([:"
_NO_BRACKET_AFTER = frozenset("$#%!")


@dataclass(frozen=True, slots=True)
class Reading:
    """What stands at a position up to `end`. value: of the token, None while it could still become one.

    escaped: how many times the token was written as inside a JSON string. suffix: what follows the value.
    """

    end: int
    value: str | None
    suffix: str = ""
    escaped: int = 0


@dataclass(frozen=True, slots=True)
class _Literal:
    """A token without brackets. exact: only spelled like this."""

    token: str
    value: str
    exact: bool


class TokenReader:
    """For a fixed set of (token, value)."""

    def __init__(self, tokens: Iterable[tuple[str, str]]) -> None:
        self._by_key: dict[str, str] = {}
        self._literals: dict[str, _Literal] = {}
        for token, value in tokens:
            if token.startswith("<") and token.endswith(">"):
                self._by_key[key_of(token)] = value
                self._add(_Literal(token[1:-1], value, exact=True))
            else:
                self._add(_Literal(token, value, exact=False))
        self._keys = sorted(self._by_key)
        self._spelled = sorted(self._literals)
        self._starts = self._compiled_starts()

    def next_start(self, text: str, position: int) -> int:
        """Where a token could begin, at or after a position; -1: nowhere, and nothing of the text need be held."""
        found = self._starts.search(text, position) if self._starts else None
        return -1 if found is None else found.start()

    def read(self, text: str, start: int, before: str, *, final: bool) -> Reading | None:
        """The token at `start`, the beginning of one up to the end of the text, or None: neither.

        before: the two characters before `start`, or what there is of them. final: no more text comes.
        """
        unfinished: Reading | None = None
        for opening, closings in self._openings_at(text, start, before):
            if len(text) - start < len(opening):
                unfinished = Reading(len(text), None)
                continue
            reading = self._bracketed(text, start + len(opening), closings, final)
            if reading is not None and reading.value is not None:
                if _is_the_users(opening, text[start + len(opening) : reading.end]):
                    continue
                slashes = len(opening) - len(opening.lstrip("\\")) if "u003" in opening else 0
                return Reading(reading.end, reading.value, reading.suffix, slashes)
            unfinished = unfinished or reading
        if unfinished is not None and not final:
            return unfinished
        return self._literal(text, start, before, final)

    # --- in brackets ---

    def _openings_at(self, text: str, start: int, before: str) -> Iterable[tuple[str, Sequence[str]]]:
        if not self._keys or text[start] not in _OPENERS:
            return
        rest = text[start : start + 8]
        indexed = before.rstrip("_")[-1:].isalnum() or (before[-1:] in _NO_BRACKET_AFTER and before != "")
        for openings, closings in (_ANGLES, _SQUARES, _DOUBLE_CURLIES, _CURLIES):
            if indexed and openings is not _ANGLES[0]:
                continue
            for opening in openings:
                if rest.startswith(opening) or opening.startswith(rest):
                    yield opening, closings

    def _bracketed(self, text: str, position: int, closings: Sequence[str], final: bool) -> Reading | None:
        """Letters and digits with few separators between them, as long as a known key can come of it."""
        key, between = "", 0
        while position < len(text):
            character = text[position]
            if character.isascii() and character.isalnum() and self._leads_on(key + character.lower()):
                key, between = key + character.lower(), 0
            elif between < _MOST_BETWEEN and character in _BETWEEN and not _closes(closings, text, position):
                if not final and _begins(closings, text, position):
                    return Reading(len(text), None)
                between += 1
                if character == "\\" and text[position + 1 : position + 2] in ("n", "r", "t"):
                    position += 1  # a line end inside a JSON string
            else:
                return self._ending(text, position, key, closings, final)
            position += 1
        return None if final else Reading(position, None)

    def _leads_on(self, key: str) -> bool:
        place = bisect_left(self._keys, key)
        return place < len(self._keys) and self._keys[place].startswith(key)

    def _ending(self, text: str, position: int, key: str, closings: Sequence[str], final: bool) -> Reading | None:
        """An optional s, optional blanks, and the closing bracket."""
        value = self._by_key.get(key)
        if value is None:
            return None
        unfinished = False
        for suffix in _SUFFIXES:
            rest = text[position : position + len(suffix)]
            if rest != suffix:
                unfinished |= suffix.startswith(rest) and position + len(rest) == len(text)
                continue
            place = position + len(suffix)
            while place < len(text) and text[place] in _BLANK and place - position < _MOST_BETWEEN:
                place += 1
            closed = next((closing for closing in closings if text.startswith(closing, place)), None)
            if closed is not None:
                return self._closed(text, place + len(closed), value, suffix, closings, final)
            unfinished |= _begins(closings, text, place)
        return Reading(len(text), None) if unfinished and not final else None

    def _closed(
        self, text: str, end: int, value: str, suffix: str, closings: Sequence[str], final: bool
    ) -> Reading | None:
        """What follows a square bracket tells whether it is a link's."""
        if closings is _SQUARES[1]:
            if end == len(text) and not final:
                return Reading(end, None)
            if text[end : end + 1] and text[end] in _AFTER_LINK:
                return None
        return Reading(end, value, suffix)

    # --- without brackets ---

    def _add(self, literal: _Literal) -> None:
        self._literals.setdefault(_folded(literal.token), literal)

    def _compiled_starts(self) -> re.Pattern[str] | None:
        if not self._literals:
            return None
        firsts = {literal.token[0] for literal in self._literals.values()}
        loose = {literal.token[0] for literal in self._literals.values() if not literal.exact}
        letters = {case for first in loose for case in (first.lower(), first.upper()) if len(case) == 1} | firsts
        word = "".join(re.escape(letter) for letter in sorted(letters) if letter.isalnum())
        signs = "".join(re.escape(letter) for letter in sorted(letters) if not letter.isalnum())
        brackets = re.escape(_OPENERS) if self._by_key else ""
        options = [rf"(?<![^\W_])[{word}]"] if word else []
        options += [f"[{signs}{brackets}]"] if signs or brackets else []
        return re.compile("|".join(options))

    def _literal(self, text: str, start: int, before: str, final: bool) -> Reading | None:
        """The longest token without brackets that stands at `start` as a whole word."""
        if not _may_begin(text[start], before):
            return None
        low, high = 0, len(self._spelled)
        spelled, position = "", start
        found: Reading | None = None
        while position < len(text):
            character, end = _next(text, position)
            if character == "\\" and end == len(text) and not final:
                character = "_"  # Markdown's escape, if the underscore comes
                end += 1
            spelled += character
            low = bisect_left(self._spelled, spelled, low, high)
            high = bisect_right(self._spelled, spelled + "\U0010ffff", low, high)
            if low == high:
                return found
            if end > len(text) or (end == len(text) and text[position] in _BLANK and not final):
                return Reading(len(text), None)  # the escape or the gap goes on
            position = end
            if self._spelled[low] == spelled:
                shown = _shown(self._literals[spelled], text[start:position])
                after = text[position : position + 3]
                if shown is None:
                    continue
                if not final and after in ("", "s"):
                    return Reading(len(text), None)
                if _may_end(text[position - 1], after, before):
                    found = Reading(position, shown)
        return found if final else Reading(len(text), None)


def _is_the_users(opening: str, rest: str) -> bool:
    """The slash before the bracket: Markdown's escape has another one further on, a Windows path (`C:\\Users\\<PERSON_1>`)
    has not."""
    return len(opening) == 2 and opening[0] == "\\" and "\\" not in rest


def _closes(closings: Sequence[str], text: str, position: int) -> bool:
    return any(text.startswith(closing, position) for closing in closings)


def _begins(closings: Sequence[str], text: str, position: int) -> bool:
    """The text ends here, or in the middle of a closing bracket."""
    rest = text[position : position + 8]
    return any(closing.startswith(rest) for closing in closings)


def _folded(token: str) -> str:
    return "".join(_next(character, 0)[0] for character in " ".join(token.split()))


def _next(text: str, position: int) -> tuple[str, int]:
    """The next character as tokens are compared, and where the one after it stands."""
    character = text[position]
    if character == "\\" and text[position + 1 : position + 2] == "_":
        return "_", position + 2
    if character in _BLANK:
        end = position + 1
        while end < len(text) and text[end] in _BLANK and end - position < _WIDEST_GAP:
            end += 1
        return " ", end
    lower = character.lower()
    return (lower if len(lower) == 1 else character), position + 1


def _shown(literal: _Literal, written: str) -> str | None:
    """The value in the case it was written in; None if it was written so that it may be an ordinary word."""
    plain = " ".join(written.split()).replace("\\_", "_")
    if plain == literal.token:
        return literal.value
    if literal.exact:
        return None
    if plain.isupper():
        return literal.value.upper()
    if plain.islower() and plain.isalpha():
        return None
    return literal.value


def _is_word(character: str) -> bool:
    return character.isalnum()


def _may_begin(first: str, before: str) -> bool:
    """Not inside a word, nor behind an angle bracket that was never closed. `_PERSON_1_` is emphasis."""
    if not _is_word(first):
        return True
    last = before[-1:]
    if last == "_":
        return not before[:-1].isalnum()
    return last != "<" and not _is_word(last)


def _may_end(last: str, after: str, before: str) -> bool:
    if not _is_word(last) or not after:
        return True
    if after[0] == "s":
        return not after[1:2].isalnum() and after[1:2] != "_"
    if after[0] == "_":
        return before[-1:] == "_"
    return not _is_word(after[0])
