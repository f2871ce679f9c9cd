"""Word and character n-grams of a batch of texts as 64-bit keys, all at once in numpy.

Word 1-2-grams and `char_wb` 3-5-grams as scikit-learn defines them (n-grams inside white-space separated words, padded with
one space). A key is a polynomial hash over the code points modulo 2**64; with ~10**5 features a collision is unlikely
(~10**-9), so keys stand for the n-grams themselves. Words inside quotation marks get other keys than the same words
outside: a quoted attack is mostly somebody talking about an attack.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BASE = 0x9E3779B97F4A7C15 | 1
BASE_INVERSE = pow(BASE, -1, 2**64)
_MASK = 2**64 - 1
_BMP = 0x10000
_SPACE = 32
QUOTED_SALT = np.uint64(0xD6E8FEB86659FD93)
_PAIR_MULTIPLIER = np.uint64(0xC2B2AE3D27D4EB4F)
# A quotation: paired marks on one line, at most 300 characters. A lone apostrophe opens nothing.
_QUOTATION = re.compile(
    r"\"[^\"\n]{3,300}\"|“[^”\n]{3,300}”|«[^»\n]{3,300}»|`[^`\n]{3,300}`|(?<!\w)'[^\n']{3,300}'(?!\w)|‘[^’\n]{3,300}’"
)


def mixed(values: Keys) -> Keys:
    """Finaliser of splitmix64: every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def powers(base: int, count: int) -> Keys:
    factors = np.full(count, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


CODE_POINT_KEYS = mixed(np.arange(1, _BMP + 1, dtype=np.uint64))
IS_WORD = np.array([chr(c).isalnum() for c in range(_BMP)], dtype=bool)


@dataclass(frozen=True)
class Ngrams:
    """N-grams of a batch: `keys[k]` occurs in text `rows[k]`; duplicates stand for counts."""

    words: tuple[Rows, Keys]
    characters: tuple[Rows, Keys]


def ngrams_of(texts: Sequence[str]) -> Ngrams:
    """All n-grams of all texts (plain views, any case)."""
    # The line break ends a quotation that a text leaves open, so that no text changes the reading of the next in the batch.
    # No n-gram holds it: it stands behind a space and before another text.
    lowered = [" " + text.lower().replace("\n", " ") + " \n" for text in texts]
    joined = "".join(lowered)
    raw = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    points: Rows = np.where(raw < _BMP, raw, 0xFFFD).astype(np.int64)
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in lowered])
    hashes = CODE_POINT_KEYS[points]
    quoted = quoted_mask(joined)
    return Ngrams(words=_word_ngrams(points, hashes, rows, quoted), characters=_character_ngrams(points, hashes, rows))


def _character_ngrams(points: Rows, hashes: Keys, rows: Rows) -> tuple[Rows, Keys]:
    factors = powers(BASE, 5)
    spaces = np.concatenate([[0], np.cumsum(points == _SPACE)])
    found_rows, found_keys = [], []
    rolling = hashes[:-1] + hashes[1:] * factors[1]
    for n in (3, 4, 5):
        if len(points) < n:
            break
        rolling = rolling[: len(points) - n + 1] + hashes[n - 1 :] * factors[n - 1]
        starts = np.arange(len(points) - n + 1)
        inside_one_word = (spaces[starts + n - 1] == spaces[starts + 1]) & (rows[starts] == rows[starts + n - 1])
        found_rows.append(rows[starts[inside_one_word]])
        found_keys.append(mixed(rolling[inside_one_word] + np.uint64(n)))
    return np.concatenate(found_rows), np.concatenate(found_keys)


def _word_ngrams(points: Rows, hashes: Keys, rows: Rows, quoted: Flags) -> tuple[Rows, Keys]:
    word = IS_WORD[points]
    edges = np.flatnonzero(word[1:] != word[:-1]) + 1  # texts start and end with a space, so edges alternate
    starts, ends = edges[0::2], edges[1::2]
    if not len(starts):
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes * powers(BASE, len(points)), dtype=np.uint64)])
    keys = mixed((sums[ends] - sums[starts]) * powers(BASE_INVERSE, len(points))[starts])
    word_rows = rows[starts]
    neighbours = word_rows[1:] == word_rows[:-1]
    pairs = mixed(keys[:-1] * _PAIR_MULTIPLIER + keys[1:])[neighbours]
    quoted = quoted[starts]
    keys = np.where(quoted, keys ^ QUOTED_SALT, keys)
    pairs = np.where(quoted[:-1][neighbours], pairs ^ QUOTED_SALT, pairs)
    return np.concatenate([word_rows, word_rows[:-1][neighbours]]), np.concatenate([keys, pairs])


def quoted_mask(joined: str) -> Flags:
    """Which code points stand in a quotation."""
    mask = np.zeros(len(joined), np.bool_)
    for quotation in _QUOTATION.finditer(joined):
        mask[quotation.start() : quotation.end()] = True
    return mask


def word_key(first: str, second: str | None = None, *, quoted: bool = False) -> int:
    """The key of a word or a pair of words, for building a vocabulary."""
    key = string_key(first)
    if second is not None:
        pair = np.array([(key * int(_PAIR_MULTIPLIER) + string_key(second)) & _MASK], np.uint64)
        key = int(mixed(pair)[0])
    return key ^ int(QUOTED_SALT) if quoted else key


def string_key(word: str) -> int:
    total = sum(
        int(CODE_POINT_KEYS[min(ord(c), 0xFFFD) if ord(c) < _BMP else 0xFFFD]) * pow(BASE, i, 2**64)
        for i, c in enumerate(word)
    )
    return int(mixed(np.array([total & _MASK], np.uint64))[0])
