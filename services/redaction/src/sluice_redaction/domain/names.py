"""What belongs to a person's name and what a model only swept along with it."""

import re
from collections.abc import Iterator
from dataclasses import replace

from .findings import Finding

# A name never runs over a line end, a quotation mark, a colon or a bracket.
_NAME_STRETCH = re.compile(r"[^\n\r\t\"“”:;()\[\]{}<>|/\\=*#]+")
_WORD = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*\.?")
_POSSESSIVE = re.compile(r"['’](?:s|S)?$")
_PARTICLES = frozenset(
    [
        "al",
        "am",
        "bin",
        "da",
        "das",
        "de",
        "del",
        "della",
        "den",
        "der",
        "di",
        "do",
        "dos",
        "du",
        "e",
        "el",
        "ibn",
        "la",
        "le",
        "los",
        "of",
        "san",
        "ten",
        "ter",
        "the",
        "van",
        "von",
        "y",
        "zu",
    ]
)


def whole_words(finding: Finding, text: str) -> Finding:
    """Grown to the edges of the words it begins and ends in: models mark pieces of words."""
    start, end = finding.start, finding.end
    while 0 < start < end and text[start].isalnum() and text[start - 1].isalnum():
        start -= 1
    while start < end < len(text) and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return replace(finding, start=start, end=end)


def names_in(finding: Finding, text: str) -> Iterator[Finding]:
    """The names within one PERSON finding: cut at signs no name holds, without possessive, without words after it."""
    whole = whole_words(finding, text)
    for stretch in _NAME_STRETCH.finditer(text, whole.start, whole.end):
        end = _end_of_name(text, stretch.start(), stretch.end())
        if end is not None:
            yield replace(whole, start=stretch.start(), end=end)


def _end_of_name(text: str, start: int, end: int) -> int | None:
    """Where the name stops. Words in lower case end a name that began with a capital ("Everett flew"), particles do
    not."""
    words = list(_WORD.finditer(text, start, end))
    if not words:
        return None
    kept = words
    if words[0][0][0].isupper():
        stop = next((n for n, word in enumerate(words) if word[0].islower() and word[0] not in _PARTICLES), len(words))
        kept = words[: stop or 1]
        while len(kept) > 1 and kept[-1][0] in _PARTICLES:
            kept = kept[:-1]
    last = kept[-1]
    possessive = _POSSESSIVE.search(text[last.start() : last.end()])
    return last.end() - (len(possessive[0]) if possessive else 0)
