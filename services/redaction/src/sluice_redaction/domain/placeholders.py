"""Placeholders: what they look like, and how much of a mangled one is still readable.

The canonical form is `<KIND_n>`. Models change it: `<Person 1>`, `<PERSON\\_1>` (Markdown), `&lt;PERSON_1&gt;` (HTML),
`<PERSON_1's>`. `Reader` reads all of these, for a known set of placeholders, and says of an unfinished text whether it
could still become one: a stream holds back exactly that much.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .kinds import KINDS

CANONICAL = re.compile(r"<([A-Z][A-Z0-9_]{0,62})_([1-9][0-9]{0,8})>")

# Anything that a reader could take for one of our placeholders, whatever its number: kinds longest first so that
# no kind hides another. Every repetition is bounded, so a long hostile text costs linear time.
_LIKE = re.compile(
    r"(?:<|&lt;)[ ]?(?:"
    + "|".join(
        r"\\?[ \-_]?".join(re.escape(part) for part in name.split("_")) for name in sorted(KINDS, key=len, reverse=True)
    )
    + r")\\?[ \-_]?[0-9]{1,9}(?:['’]?s)?[ ]?(?:>|&gt;)",
    re.IGNORECASE,
)
# Anything in brackets that could spell a placeholder for the lenient `Reader`: a superset of `_LIKE`, in linear time.
_BRACKETED = re.compile(r"(?:<|&lt;)([^<>&]{1,160})(?:>|&gt;)")
_OPENINGS = ("<", "&lt;")
_CLOSINGS = {"<": ">", "&lt;": "&gt;"}
_SEPARATORS = "_- "
_NOT_KEY = re.compile(r"[^a-z0-9]")


def placeholder(kind: str, number: int) -> str:
    return f"<{kind}_{number}>"


def key_of(text: str) -> str:
    """The letters and digits alone, in lower case: equal for all spellings of one placeholder."""
    return _NOT_KEY.sub("", text.replace("&lt;", "").replace("&gt;", "").lower())


def placeholder_like(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of everything in the text that looks like a placeholder of a known kind, ours or not."""
    return (match.span() for match in _LIKE.finditer(text))


def keys_in(text: str) -> Iterator[str]:
    """Keys of everything in brackets in the text, without a plural or possessive s: no `Reader` finds any other."""
    for match in _BRACKETED.finditer(text):
        yield key_of(match[1]).removesuffix("s")


@dataclass(frozen=True, slots=True)
class Reading:
    """What stands at a position. key: of the placeholder that ends at `end`; None while it is `unfinished`."""

    end: int
    key: str | None
    suffix: str = ""

    @property
    def unfinished(self) -> bool:
        return self.key is None


class Reader:
    """Reads placeholders out of text, for a fixed set of keys."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = sorted(set(keys))
        self._known = frozenset(self._keys)

    def opening(self, text: str, start: int) -> int:
        """Position of the next `<` or `&`, or -1: nothing before it needs to be held."""
        if not self._keys:
            return -1
        found = [position for position in (text.find("<", start), text.find("&", start)) if position >= 0]
        return min(found, default=-1)

    def read(self, text: str, start: int) -> Reading | None:
        """What stands at `start`: a placeholder, the beginning of one up to the end of the text, or None: neither."""
        for opening in _OPENINGS:
            if text.startswith(opening, start):
                return self._body(text, start + len(opening), _CLOSINGS[opening])
            if opening.startswith(text[start : start + len(opening)]):
                return Reading(len(text), None)
        return None

    def _body(self, text: str, position: int, closing: str) -> Reading | None:
        """Letters and digits with at most one separator between them, as long as a known key can come of it."""
        key, separated = "", False
        while position < len(text):
            character = text[position]
            if character in _SEPARATORS and not separated:
                separated = True
            elif character == "\\" and not separated and text[position + 1 : position + 2] in ("_", ""):
                pass  # Markdown's escape; the underscore itself comes next
            elif character.isascii() and character.isalnum() and self._leads_on(key + character.lower()):
                key, separated = key + character.lower(), False
            else:
                return self._ending(text, position, key, closing)
            position += 1
        return Reading(position, None)

    def _leads_on(self, key: str) -> bool:
        place = bisect_left(self._keys, key)
        return place < len(self._keys) and self._keys[place].startswith(key)

    def _ending(self, text: str, position: int, key: str, closing: str) -> Reading | None:
        """An optional possessive or plural s, an optional blank, and the closing bracket."""
        if key not in self._known:
            return None
        rest = text[position : position + 3 + len(closing)]
        for suffix in ("'s", "’s", "s", ""):
            for blank in ("", " "):
                tail = suffix + blank + closing
                if rest.startswith(tail):
                    return Reading(position + len(tail), key, suffix)
        if any((suffix + blank + closing).startswith(rest) for suffix in ("'s", "’s", "s", "") for blank in ("", " ")):
            return Reading(len(text), None)
        return None
