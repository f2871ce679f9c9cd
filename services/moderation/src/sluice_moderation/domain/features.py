"""Word and character features of a batch of texts, computed once for all linear heads, all at once in numpy.

A feature is a 64-bit key (polynomial hash over code points, as in `ngrams`). Words: single words, pairs, pairs with one word
between them, and triples; digits count as one digit, so that `4000 mg` and `5000 mg` are the same. Characters: 3- to 5-grams
inside words padded with one space. Words in quotation marks have other keys than the same words outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sluice_moderation.domain.ngrams import (
    BASE,
    BASE_INVERSE,
    CODE_POINT_KEYS,
    IS_WORD,
    QUOTED_SALT,
    Keys,
    Rows,
    mixed,
    powers,
    quoted_mask,
    string_key,
)

_BMP = 0x10000
_SPACE = 32
_PAIR, _SKIP, _TRIPLE = (np.uint64(m) for m in (0xC2B2AE3D27D4EB4F, 0x9FB21C651E98DF25, 0xA0761D6478BD642F))
_DIGITS = np.array([chr(c).isdigit() for c in range(_BMP)])
_POINT_KEYS = np.where(_DIGITS, CODE_POINT_KEYS[ord("0")], CODE_POINT_KEYS)
# Powers of the base, grown as needed: computing them anew costs as much as the sums they are for.
_POWERS = powers(BASE, 1 << 16)
_INVERSE_POWERS = powers(BASE_INVERSE, 1 << 16)


@dataclass(frozen=True)
class Occurrences:
    """`keys[k]` occurs in text `rows[k]`; rows ascend within each of the `groups` (kinds of n-gram)."""

    groups: tuple[tuple[Rows, Keys], ...]


@dataclass(frozen=True)
class Features:
    words: Occurrences
    characters: Occurrences


def features_of(texts: Sequence[str]) -> Features:
    """All features of all texts (any case). A text's features do not depend on its neighbours in the batch."""
    lowered = [" " + text.lower().replace("\n", " ") + " " for text in texts]
    joined = "\n".join(lowered) + "\n"  # a line break ends a quotation that a text leaves open
    raw = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    points: Rows = np.where(raw < _BMP, raw, 0xFFFD).astype(np.int64)
    rows = np.repeat(np.arange(len(texts)), [len(text) + 1 for text in lowered])
    hashes = _POINT_KEYS[points]
    word = IS_WORD[points]
    quoted = quoted_mask(joined) if _has_quotes(joined) else None
    return Features(_words(hashes, word, rows, quoted), _characters(hashes, word, rows))


def _has_quotes(joined: str) -> bool:
    return any(mark in joined for mark in "\"“«`'‘")


def _power_of(table: Keys, count: int, base: int) -> Keys:
    return table[:count] if count <= len(table) else powers(base, count)


def _words(hashes: Keys, word: npt.NDArray[np.bool_], rows: Rows, quoted: npt.NDArray[np.bool_] | None) -> Occurrences:
    edges = np.flatnonzero(word[1:] != word[:-1]) + 1  # texts start and end with a space, so edges alternate
    starts, ends = edges[0::2], edges[1::2]
    if not len(starts):
        return Occurrences(())
    weighted = hashes * _power_of(_POWERS, len(hashes), BASE)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weighted, dtype=np.uint64)])
    keys = mixed((sums[ends] - sums[starts]) * _power_of(_INVERSE_POWERS, len(hashes), BASE_INVERSE)[starts])
    salts = (
        np.where(quoted[starts], QUOTED_SALT, np.uint64(0)) if quoted is not None else np.zeros(len(keys), np.uint64)
    )
    row = rows[starts]
    one, two = row[1:] == row[:-1], row[2:] == row[:-2]
    pairs = mixed(keys[:-1] * _PAIR + keys[1:]) ^ salts[:-1]
    skips = mixed(keys[:-2] * _SKIP + keys[2:]) ^ salts[:-2]
    triples = mixed((keys[:-2] * _PAIR + keys[1:-1]) * _TRIPLE + keys[2:]) ^ salts[:-2]
    return Occurrences(
        ((row, keys ^ salts), (row[:-1][one], pairs[one]), (row[:-2][two], skips[two]), (row[:-2][two], triples[two]))
    )


def _characters(hashes: Keys, word: npt.NDArray[np.bool_], rows: Rows) -> Occurrences:
    """3- to 5-grams whose characters, but for a space or mark at either end, are all of one word."""
    outside = np.concatenate([[0], np.cumsum(~word)])
    groups = []
    rolling = hashes[:-1] + hashes[1:] * _POWERS[1]
    for n in (3, 4, 5):
        count = len(hashes) - n + 1
        if count <= 0:
            break
        rolling = rolling[:count] + hashes[n - 1 :] * _POWERS[n - 1]
        inside = np.flatnonzero(outside[n - 1 : n - 1 + count] == outside[1 : 1 + count])
        groups.append((rows[inside], mixed(rolling[inside] + np.uint64(n))))
    return Occurrences(tuple(groups))


def word_keys(words: Sequence[str], *, skipping: bool = False, quoted: bool = False) -> int:
    """The key of one, two or three words (two: `skipping` one between them), for building a vocabulary."""
    parts = [np.uint64(string_key(_one_digit(word))) for word in words]
    with np.errstate(over="ignore"):
        if len(parts) == 1:
            key = parts[0]
        elif len(parts) == 2:
            key = mixed(np.array([parts[0] * (_SKIP if skipping else _PAIR) + parts[1]]))[0]
        else:
            key = mixed(np.array([(parts[0] * _PAIR + parts[1]) * _TRIPLE + parts[2]]))[0]
    return int(key ^ QUOTED_SALT) if quoted else int(key)


def _one_digit(word: str) -> str:
    return "".join("0" if c.isdigit() else c for c in word)
