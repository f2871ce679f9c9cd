"""Placeholders: what they look like, and what else could be read as one.

The canonical form is `<KIND_n>`. Models change it: `<Person 1>`, `<PERSON\\_1>` (Markdown), `&lt;PERSON_1&gt;` (HTML),
`[PERSON_1]`, `PERSON_1`. `tokens.TokenReader` reads these; here stands what keeps them apart from a user's own words.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from .kinds import KINDS

CANONICAL = re.compile(r"<([A-Z][A-Z0-9_]{0,62})_([1-9][0-9]{0,8})>")

_OPEN = r"(?:[<\[{＜‹〈⟨［【]|&(?:lt|LT|#60|#[xX]3[cC]);|\\{1,2}u003[cC])"
_CLOSE = r"(?:[>\]}＞›〉⟩］】]|&(?:gt|GT|#62|#[xX]3[eE]);|\\{1,2}u003[eE])"
# Joins the parts of a kind's name, or a line end in the middle of them. Every repetition is bounded, so a long hostile
# text costs linear time.
_JOINT = r"[\s_\-–\\*`~]{0,4}"
# Anything in brackets, and any name with a number, that the lenient reader could take for a token.
_BRACKETED = re.compile(rf"{_OPEN}(?=([^<>\[\]{{}}&＜‹〈⟨［【＞›〉⟩］】]{{1,160}}?){_CLOSE})")
_BARE = re.compile(r"(?<![A-Za-z0-9])[A-Z][A-Z0-9_\\]{0,80}_[1-9][0-9]{0,8}")
_ESCAPED_BLANK = re.compile(r"\\[nrt]")
_NOT_KEY = re.compile(r"[^a-z0-9]")


@lru_cache(maxsize=64)
def _like(more_kinds: frozenset[str]) -> re.Pattern[str]:
    """Anything that a reader could take for one of our placeholders, whatever its number: kinds longest first so that no
    kind hides another."""
    names = sorted({*KINDS, *more_kinds}, key=len, reverse=True)
    spelled = "|".join(_JOINT.join(map(re.escape, name.split("_"))) for name in names)
    bare = "|".join(name.replace("_", r"\\?_") for name in names)
    return re.compile(
        rf"{_OPEN}[\s\\]{{0,4}}(?i:{spelled}){_JOINT}[0-9]{{1,9}}(?:['’]?[sS])?[\s\\]{{0,4}}{_CLOSE}"
        rf"|(?<![A-Za-z0-9])(?:{bare})\\?_[0-9]{{1,9}}(?![0-9A-Za-rt-z])"
    )


def placeholder(kind: str, number: int) -> str:
    return f"<{kind}_{number}>"


def key_of(text: str) -> str:
    """The letters and digits alone, in lower case: equal for all spellings of one placeholder."""
    return _NOT_KEY.sub("", text.lower())


def placeholder_like(text: str, more_kinds: frozenset[str] = frozenset()) -> Iterator[tuple[int, int]]:
    """(start, end) of everything in the text that looks like a placeholder of a known kind, ours or not.

    more_kinds: those that a policy's own recognizers find.
    """
    return (match.span() for match in _like(more_kinds).finditer(text))


def keys_in(text: str) -> Iterator[str]:
    """Keys of everything in the text that a reader could find a placeholder in, and of more: no reader finds any other."""
    for match in _BRACKETED.finditer(text):
        for content in {match[1], _ESCAPED_BLANK.sub("", match[1])}:
            yield key_of(content).removesuffix("s")
    for match in _BARE.finditer(text):
        parts = match[0].split("_")
        # The name may begin behind any underscore: `_PERSON_1_` is emphasis.
        yield from (key_of("".join(parts[first:])) for first in range(len(parts) - 1))
