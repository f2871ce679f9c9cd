"""Which stretches of a text the teachers should see: the sentences in which the tagger is in two minds about a name."""

import re
from collections.abc import Iterator

from .name_tagger import Tagged

# Probability of being in a name between which the tagger was measured to be wrong often enough (MODEL_CARD.md).
LOW, HIGH = 0.1, 0.7
_REACH = 80  # characters to each side, if the sentence has no end before
_MOST_SHARE = 0.25  # of a text
_LEAST = 240  # characters that even a short text may have looked at
_END = re.compile(r"[.!?]\s|\n")


def doubtful_stretches(tagged: Tagged, text: str) -> list[tuple[int, int]]:
    """(start, end) of stretches to look at again, in order, not overlapping; bounded in all by a share of the text."""
    budget = max(_LEAST, int(len(text) * _MOST_SHARE))
    stretches: list[tuple[int, int]] = []
    for start, end in _sentences(tagged, text):
        if stretches and start <= stretches[-1][1]:
            start = stretches[-1][0]
            stretches.pop()
        if sum(last - first for first, last in stretches) + end - start > budget:
            break
        stretches.append((start, end))
    return stretches


def _sentences(tagged: Tagged, text: str) -> Iterator[tuple[int, int]]:
    for start, end in tagged.doubts(LOW, HIGH):
        first, last = max(0, start - _REACH), min(len(text), end + _REACH)
        for stop in _END.finditer(text, first, start):
            first = stop.end()
        stop_after = _END.search(text, end, last)
        last = stop_after.start() + 1 if stop_after else last
        # Whole words at the edges.
        while first > 0 and text[first - 1].isalnum():
            first -= 1
        while last < len(text) and text[last].isalnum():
            last += 1
        yield first, last
