"""Words beside a value that say what it is ("passport", "Steuer-ID"), and words that say it is something else."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

BEFORE, AFTER = 64, 24
# A word behind the value speaks for it less than one before it: "NHS 943 476 5919, passport 12345".
_AFTER_PENALTY = 24
_LETTER = "A-Za-zÀ-ɏ"
# `userId`: a word also ends where a small letter is followed by a capital.
_WORD_END = rf"(?:(?![{_LETTER}])|(?-i:(?<=[a-z])(?=[A-Z])))"
_PLAIN = re.compile(r"[a-z0-9]+")
_BLANKS = re.compile(r"[\s_\-]+")
# A number that is called one of these right before it is no passport, whatever the sentence is about.
_OTHERWISE = re.compile(
    rf"(?i)(?<![{_LETTER}])(?:orders?|invoices?|tickets?|tracking|shipments?|parcels?|bugs?|issues?|pull requests?|pr|commits?|builds?"
    r"|versions?|releases?|pages?|isbn|issn|doi|sku|item|part|model|article|rfc|cve|chapter|section|room|flight|error|code"
    r"|port|pid|total|amounts?|price|costs?|usd|eur|gbp|population|steps?|transactions?|hash|checksum|commit|uuid)"
    rf"{_WORD_END}[^\n.;]{{0,16}}$"
)


@dataclass(frozen=True, slots=True)
class Nearby:
    """word: as the recognizer lists it, never the user's spelling. distance: in characters."""

    word: str
    distance: int


class Context:
    """A recognizer's words. Blanks in a phrase stand for blanks, hyphens and underscores; a plural s is allowed."""

    def __init__(self, words: Iterable[str]) -> None:
        listed = sorted({_BLANKS.sub(" ", word.lower()).strip() for word in words}, key=lambda one: (-len(one), one))
        self.words = tuple(listed)
        # Letters with accents are given in both cases, because only ASCII is compared without regard to case.
        spelt = [
            form for word in listed for form in ([word] if word.isascii() else [word, word.upper(), word.capitalize()])
        ]
        choices = "|".join(re.escape(form).replace(r"\ ", r"[\s_\-]{0,3}") for form in dict.fromkeys(spelt))
        self.expression = re.compile(rf"(?<![{_LETTER}])(?:{choices})s?{_WORD_END}", re.ASCII | re.IGNORECASE)
        self.triggers = tuple(dict.fromkeys(_trigger(word) for word in listed))
        self._listed = {_BLANKS.sub("", word): word for word in listed}

    def nearest(self, text: str, start: int, end: int) -> Nearby | None:
        """The word closest to text[start:end], looking `BEFORE` characters back and `AFTER` ahead."""
        best: Nearby | None = None
        for match in self.expression.finditer(text, max(0, start - BEFORE), start):
            best = Nearby(self._name(match[0]), start - match.end())
        # From the value's start, so that the word's own edge is seen; `end` itself cannot lie inside a word.
        after = self.expression.search(text, end, min(len(text), end + AFTER))
        if after is not None and (best is None or best.distance > after.start() - end + _AFTER_PENALTY):
            best = Nearby(self._name(after[0]), after.start() - end + _AFTER_PENALTY)
        return best

    def _name(self, written: str) -> str:
        bare = _BLANKS.sub("", written.lower())
        return self._listed.get(bare) or self._listed.get(bare.removesuffix("s")) or self.words[0]


def called_otherwise(text: str, start: int, nearby: Nearby | None) -> bool:
    """The word right before the value, nearer than any context word, names another thing: "order 123456789"."""
    match = _OTHERWISE.search(text, max(0, start - 32), start)
    return match is not None and (nearby is None or start - match.start() < nearby.distance)


def _trigger(word: str) -> re.Pattern[str]:
    """A plain stretch of letters without which the word is not in a text; short ones where a word begins."""
    parts = _PLAIN.findall(word)
    part = max(parts, key=len) if parts else ""
    if len(part) < 2:
        return re.compile(f"{re.escape(word)}|{re.escape(word.upper())}", re.ASCII | re.IGNORECASE)
    if len(part) >= 5 or not word.startswith(part):
        return re.compile(part, re.ASCII | re.IGNORECASE)
    # Both cases spelt out: without regard to case Hyperscan takes the long s and the Kelvin sign for letters of A-Z, and the
    # edge would not be seen behind them.
    return re.compile("(?:^|[^A-Za-z])" + "".join(f"[{sign}{sign.upper()}]" for sign in part), re.ASCII)
