"""Texts as the name tagger reads them: words, and eight numbers for each, all computed at once by numpy.

A word is a run of letters or a run of digits; every other sign is a word of its own (a run of the same sign is one).
Nothing here loops over characters or words in Python, so five hundred words cost under a millisecond. The training
scripts import this module: what the model was trained on is what it is given.
"""

import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
SPACE, NEWLINE, LETTER, DIGIT, SIGN = range(5)
_LOWER, _UPPER, _CASELESS = range(3)
PREFIX_ROWS, SUFFIX_ROWS, ENDING_ROWS = 4_096, 4_096, 1_024
SHAPE_ROWS, GAP_ROWS, NAME_ROWS, PLACE_ROWS = 64, 8, 128, 32
FIRST_CHARACTER_ROW = 2  # vocabulary rows: 0 an unknown word, 1 reserved for padding
# Letters whose accent is part of them, so that Unicode does not take it off.
_PLAIN = str.maketrans("øłđıßæœþðħŋ", "oldisaethhn")
_BASE = np.uint64(0x9E3779B97F4A7C15 | 1)
_BASE_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))
_MIX = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True, slots=True)
class Words:
    """starts, ends: [n] code points. features: int32 [n, 8]. group: [n], what the word is made of. is_lower, joined: [n]
    booleans: begins with a small letter; nothing stands between it and the word before."""

    starts: Ints
    ends: Ints
    features: npt.NDArray[np.int32]
    group: npt.NDArray[np.int8]
    is_lower: npt.NDArray[np.bool_]
    joined: npt.NDArray[np.bool_]


class Lexicon:
    """Hashed words and what is known of them; the words themselves are not kept.

    keys: uint32 [n], sorted. rows: [n], row of the vocabulary (0: none; under 65,536). names, places: [n], seven and five
    bits: how common the word is as a given name, surname, plain word, town, as the training's `lexicon.py` packs it.
    """

    def __init__(self, keys: Any, rows: Any, names: Any, places: Any) -> None:
        # One more entry, so that a word behind the last key has a place to be compared with.
        self._keys = np.append(keys, np.uint32(0xFFFFFFFF))
        packed = rows.astype(np.int64) | names.astype(np.int64) << 16 | places.astype(np.int64) << 23
        self._packed = np.append(packed, 0)

    @classmethod
    def load(cls, path: Path) -> "Lexicon":
        """Raises FileNotFoundError or ValueError if the file is not there or not sound."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(arrays["keys"], arrays["rows"], arrays["names"], arrays["places"])

    def look_up(self, hashes: npt.NDArray[np.uint64], features: npt.NDArray[np.int32]) -> None:
        """Writes vocabulary row (column 0), name bits (6) and place bits (7) of each word, zero where it is unknown."""
        wanted = (hashes >> np.uint64(32)).astype(np.uint32)
        place = self._keys.searchsorted(wanted)
        packed = self._packed[place]
        packed *= self._keys[place] == wanted
        features[:, 0] = packed & 0xFFFF
        features[:, 6] = packed >> 16 & 0x7F
        features[:, 7] = packed >> 23


@dataclass(frozen=True, slots=True)
class _Tables:
    """For every code point of the basic plane: group, case, and a number for its folded form."""

    group: npt.NDArray[np.int8]
    case: npt.NDArray[np.int8]
    number: npt.NDArray[np.uint64]


@cache
def _tables() -> _Tables:
    """Folded: no case, no accent, full width made narrow, every digit alike. Takes a tenth of a second, once."""
    group = np.full(65_536, SIGN, dtype=np.int8)
    case = np.full(65_536, _CASELESS, dtype=np.int8)
    folded = np.arange(65_536, dtype=np.uint64)
    for code in range(65_536):
        character = chr(code)
        kind = unicodedata.category(character)
        if kind[0] in "LM":
            group[code] = LETTER
            case[code] = _UPPER if kind in ("Lu", "Lt") else _LOWER if kind == "Ll" else _CASELESS
            folded[code] = ord(_folded(character))
        elif kind == "Nd":
            group[code], folded[code] = DIGIT, ord("0")
        elif character in "\n\r\v\f\x85\u2028\u2029":
            group[code], folded[code] = NEWLINE, ord("\n")
        elif character.isspace() or kind == "Cf":
            group[code] = SPACE
        elif kind[0] in "PS":
            folded[code] = ord(_folded(character))
    folded[ord("’")] = folded[ord("‘")] = folded[ord("`")] = ord("'")
    return _Tables(group, case, _mixed(folded))


def _folded(character: str) -> str:
    lower = character.lower().translate(_PLAIN)
    return (unicodedata.normalize("NFKD", lower) or lower)[0]


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = (values + np.uint64(1)) * _BASE
    values = (values ^ (values >> np.uint64(29))) * _MIX
    return np.asarray(values ^ (values >> np.uint64(32)))


_POWERS = np.ones(1, dtype=np.uint64)
_INVERSES = np.ones(1, dtype=np.uint64)


def _powers(length: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The first powers of the hash's base and of its inverse, modulo 2^64."""
    global _POWERS, _INVERSES  # a cache that only grows; a race computes it twice
    powers, inverses = _POWERS, _INVERSES
    if len(powers) < length or len(inverses) < length:
        size = max(4_096, 2 * length)
        powers = np.concatenate([[np.uint64(1)], np.full(size - 1, _BASE, np.uint64)]).cumprod(dtype=np.uint64)
        inverses = np.concatenate([[np.uint64(1)], np.full(size - 1, _BASE_INVERSE, np.uint64)]).cumprod(
            dtype=np.uint64
        )
        _POWERS, _INVERSES = powers, inverses
    return powers, inverses


def words_of(text: str, lexicon: Lexicon) -> Words:
    """The words of a text with their features; offsets are code points of the text."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    tables = _tables()
    narrow = np.minimum(codes, 65_535) if codes.size and codes.max() > 65_535 else codes
    group = tables.group[narrow]
    starts, ends = _edges(codes, group)
    numbers = tables.number[narrow]
    if narrow is not codes:
        numbers = np.where(codes < 65_536, numbers, codes.astype(np.uint64) * _MIX)
    first_group = group[starts]
    distance = np.full(len(starts), 3, dtype=np.int64)
    np.minimum(starts[1:] - ends[:-1], 2, out=distance[1:])
    case = _Case(tables.case[narrow], starts, ends)
    features = np.empty((len(starts), 8), dtype=np.int32)
    hashes = _hashes(numbers, starts, ends)
    lexicon.look_up(hashes[0], features)
    features[:, 1] = hashes[1] >> np.uint64(52)
    features[:, 2] = hashes[2] >> np.uint64(52)
    features[:, 3] = hashes[3] >> np.uint64(54)
    features[:, 4] = case.shapes(first_group) * 7 + _LENGTH_CLASS[np.minimum(ends - starts, 15)]
    features[:, 5] = distance
    return Words(starts, ends, features, first_group, case.starts_lower, distance == 0)


_LENGTH_CLASS = np.array([0, 0, 1, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6])


def _hashes(numbers: npt.NDArray[np.uint64], starts: Ints, ends: Ints) -> npt.NDArray[np.uint64]:
    """[4, n]: of each word, of its first three letters, of its last three and last two.

    A polynomial hash out of sums from the start of the text, so that any stretch costs the same (Karp and Rabin 1987).
    """
    powers, inverses = _powers(len(numbers) + 1)
    sums = np.zeros(len(numbers) + 1, dtype=np.uint64)
    np.cumsum(numbers * powers[: len(numbers)], out=sums[1:])
    count = len(starts)
    first, last = np.empty((4, count), dtype=np.int64), np.empty((4, count), dtype=np.int64)
    first[:2], last[:] = starts, ends
    np.minimum(starts + 3, ends, out=last[1])
    np.maximum(ends - 3, starts, out=first[2])
    np.maximum(ends - 2, starts, out=first[3])
    value = (sums[last] - sums[first]) * inverses[first]
    value = (value ^ (value >> np.uint64(31))) * _MIX
    return np.asarray(value ^ (value >> np.uint64(29)))


def _edges(codes: npt.NDArray[np.uint32], group: npt.NDArray[np.int8]) -> tuple[Ints, Ints]:
    if not len(codes):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    new = np.empty(len(codes) + 1, dtype=np.bool_)
    new[0] = new[-1] = True
    # Signs are words of their own unless they repeat; elsewhere the group tells.
    kind = np.where(group == SIGN, codes + np.uint32(8), group)
    np.not_equal(kind[1:], kind[:-1], out=new[1:-1])
    edges = np.flatnonzero(new)
    starts = edges[:-1]
    wanted = group[starts] != SPACE
    return starts[wanted], edges[1:][wanted]


# Letter shapes by (capitals 0, 1, more) * 4 + (begins with a capital) * 2 + (has small letters).
_SHAPES = np.array([5, 0, 5, 0, 3, 4, 3, 1, 2, 4, 2, 4])
_OTHER_SHAPES = np.array([0, 8, 0, 6, 7])


class _Case:
    """Capitals and small letters of each word."""

    def __init__(self, case: npt.NDArray[np.int8], starts: Ints, ends: Ints) -> None:
        sums = np.zeros(len(case) + 1, dtype=np.int64)
        np.cumsum(_CASE_COUNTS[case], out=sums[1:])
        self._counts = sums[ends] - sums[starts]
        first = case[starts]
        self._starts_upper = first == _UPPER
        self.starts_lower = first == _LOWER

    def shapes(self, first_group: npt.NDArray[np.int8]) -> Ints:
        """0 small letters, 1 capitalised, 2 capitals, 3 one capital, 4 mixed, 5 caseless script, 6 digits, 7 sign, 8 line
        end."""
        upper, lower = self._counts >> 32, self._counts & 0xFFFFFFFF
        index = np.minimum(upper, 2) * 4 + self._starts_upper * 2 + (lower > 0)
        return np.where(first_group == LETTER, _SHAPES[index], _OTHER_SHAPES[first_group])


_CASE_COUNTS = np.array([1, 1 << 32, 0], dtype=np.int64)


def key_of(word: str) -> int:
    """The lexicon's key of a word: as `words_of` hashes it. For a string that is one word."""
    codes = np.frombuffer(word.encode("utf-32-le"), dtype=np.uint32)
    numbers = _tables().number[np.minimum(codes, 65_535)]
    powers, _ = _powers(len(codes) + 1)
    with np.errstate(over="ignore"):
        value = np.sum(numbers * powers[: len(codes)], dtype=np.uint64, keepdims=True)
        value = (value ^ (value >> np.uint64(31))) * _MIX
    return int(np.asarray(value ^ (value >> np.uint64(29)))[0]) >> 32
