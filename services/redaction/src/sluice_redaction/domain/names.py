"""What belongs to a person's name and what a model only swept along with it."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

from .findings import Finding

# A name never runs over a line end, a quotation mark, a colon or a bracket.
_NAME_STRETCH = re.compile(r"[^\n\r\t\"“”:;()\[\]{}<>|/\\=*#]+")
_WORD = re.compile(r"[^\W_]+(?:[-'’.][^\W_]+)*\.?")
_POSSESSIVE = re.compile(r"['’](?:s|S)?$")
# Between two names that a model took for one.
_AND = re.compile(r"\s+(?:and|or|und|et|&)\s+")
# What tells what a value is, or greets: models take it for (a part of) a name where a name could stand.
_LABELS_TEXT = """
iban bic swift ssn ssh vin npi dea mrn dob pin tin bearer gp pcp passport steuer numéro
mon tue wed thu fri sat xl xxl nm
sid sessionid session whatsapp telegram meine nummer
"""
_LABELS = frozenset(_LABELS_TEXT.split())
_GREETINGS = frozenset(
    ["hi", "hello", "hey", "dear", "prescriber", "patient", "customer", "client", "tenant", "plaintiff", "defendant"]
)
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


def is_label(word: str) -> bool:
    """True for a word that tells what a value is and is no value itself."""
    return word.casefold() in _LABELS


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
        for first, last in _apart(text, *stretch.span()):
            start = _start_of_name(text, first, last)
            end = _end_of_name(text, start, last)
            if end is not None:
                yield replace(whole, start=start, end=end)


def _apart(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """What stands before, between and behind the words that join two names."""
    for joint in _AND.finditer(text, start, end):
        yield start, joint.start()
        start = joint.end()
    yield start, end


def _start_of_name(text: str, start: int, end: int) -> int:
    """Behind a greeting or a role, if more follows."""
    words = list(itertools.islice(_WORD.finditer(text, start, end), 2))
    return words[1].start() if len(words) == 2 and words[0][0].casefold() in _GREETINGS else start


def _end_of_name(text: str, start: int, end: int) -> int | None:
    """Where the name stops. Words in lower case end a name that began with a capital ("Everett flew"), particles do
    not."""
    words = list(_WORD.finditer(text, start, end))
    if not words or all(is_label(word[0]) for word in words):
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
