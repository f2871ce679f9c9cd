"""Cuts text into sentence windows; where it cuts depends on the text alone, never on how the text arrived."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_SENTENCE_CHARACTERS = 400
# Shorter sentences wait for the next one: "a. a. a. ..." would otherwise cost a model run for each letter.
MIN_SENTENCE_CHARACTERS = 16
# A sentence without an end is cut at the last space in its last quarter, else in mid-word.
_FORCED_CUT_SEARCH = 100

# An end mark, at most three closing quotes or brackets, one white space. The white space must have arrived: "3." may
# become "3.5". No end mark is also a closing mark, so a longer text never moves a cut that a shorter one allowed.
# The marks of scripts that put no space behind them (Chinese, Japanese) or need none (danda, Arabic and Urdu) stand alone.
_SENTENCE_END = re.compile(r"[.!?…][\"')\]”’»*_]{0,3}\s|[。！？।॥؟۔\n]")


def _next_cut(text: str, start: int, *, complete: bool) -> int:
    """Where the sentence that starts at `start` ends; -1 while that is not known yet."""
    limit = start + MAX_SENTENCE_CHARACTERS
    for match in _SENTENCE_END.finditer(text, start, min(limit, len(text))):
        if match.end() - start >= MIN_SENTENCE_CHARACTERS:
            return match.end()
    if len(text) < limit:
        return len(text) if complete and start < len(text) else -1
    for position in range(limit - 1, limit - _FORCED_CUT_SEARCH, -1):
        if text[position].isspace():
            return position + 1
    return limit


@dataclass
class SentenceCutter:
    """Cuts a growing text. Holds back at most MAX_SENTENCE_CHARACTERS characters between calls."""

    _pending: str = field(default="", init=False)

    def feed(self, text: str) -> list[str]:
        """Sentences that are complete now. Joined in order, all sentences are the text again."""
        return self._cut(text, complete=False)

    def finish(self) -> list[str]:
        """What is left, once no more text comes."""
        return self._cut("", complete=True)

    @property
    def held_characters(self) -> int:
        return len(self._pending)

    def _cut(self, text: str, *, complete: bool) -> list[str]:
        buffer, start, sentences = self._pending + text, 0, []
        while (end := _next_cut(buffer, start, complete=complete)) >= 0:
            sentences.append(buffer[start:end])
            start = end
        self._pending = buffer[start:]
        return sentences


def sentences_of(text: str) -> list[str]:
    """All sentences of a whole text, in linear time."""
    cutter = SentenceCutter()
    return cutter.feed(text) + cutter.finish()


def windows_of(previous: str, sentence: str) -> tuple[str, ...]:
    """The windows that must be checked before `sentence` may go on: it alone, and joined to the one before it.

    Alone, so that a harmless neighbour does not dilute it; joined, so that a cut does not split what is harmful as one.
    """
    return (sentence, previous + sentence) if previous else (sentence,)


def windowed(text: str) -> Iterator[str]:
    """All windows of a whole text; each character is in at most three."""
    previous = ""
    for sentence in sentences_of(text):
        yield from windows_of(previous, sentence)
        previous = sentence
