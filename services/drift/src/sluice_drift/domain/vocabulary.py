"""What numbers tell of a text's vocabulary: how rare its words are, and how often they return."""

from __future__ import annotations

FEWEST_WORDS = 10
"""Of fewer words nearly all are different."""
COUNTED_WORDS = 100
"""Different words are counted among so many at most: of a longer text more return, whoever writes it."""
_MOST_PIECES = 4


def rarity_bin(pieces: int, words: int) -> str:
    """Pieces of the tokenizer a word, in quarters: prose of common words has little more than one."""
    quarters = min(4 * pieces // max(words, 1), 4 * _MOST_PIECES)
    return f"{quarters / 4:.2f}" + ("+" if quarters == 4 * _MOST_PIECES else "")


def variety_bin(distinct: int, words: int) -> str:
    """Different words of each word, in tenths: `0.9` is from 0.9 to 1."""
    return f"{min(10 * distinct // max(min(words, COUNTED_WORDS), 1), 9) / 10:.1f}"
