"""Builds the tagger's lexicon: which words have a row of their own, and how common each word is as a given name, a
surname, a plain word and a town. Only hashes of words are written.

Bits. names: given name 0-3, surname 0-3 (<<2), plain word 0-7 (<<4). places: town 0-3, class 0-7 (<<2): country,
state, nationality, month or day, company suffix, title or kinship, street type.
"""

import bisect
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from names_data import NATIONALITIES, Culture, Places, counted
from safetensors.numpy import load_file
from sluice_redaction.adapters.word_features import Lexicon, key_of, words_of
from tokenizers import Tokenizer
from word_lists import word_list

WIDTH = 48
_CLASSES = {number: word_list(f"class {number}") for number in (4, 5, 6, 7)}


def _empty() -> Lexicon:
    return Lexicon(np.zeros(1, np.uint32), np.zeros(1, np.int32), np.zeros(1, np.uint8), np.zeros(1, np.uint8))


def word_counts(texts: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """How often each word stands in the texts, in any case and in small letters."""
    every: Counter[str] = Counter()
    small: Counter[str] = Counter()
    nothing = _empty()
    for text in texts:
        words = words_of(text, nothing)
        for start, end, lower in zip(words.starts, words.ends, words.is_lower, strict=True):
            word = text[start:end]
            every[word.lower()] += 1
            if lower:
                small[word] += 1
    return every, small


def plain_words(passages: Path, dictionary: Path, census_folder: Path, *, size: int = 9_000) -> list[str]:
    """Common words of the dictionary that hardly anybody is called."""
    words = set(dictionary.read_text().split())
    given = counted(census_folder, "census_2020_first_names.parquet")
    counts: Counter[str] = Counter(
        word for text in itertools.islice(texts_of(passages), 30_000) for word in re.findall(r"\b[a-z]{3,}\b", text)
    )
    common = (
        word for word, count in counts.most_common() if count > 2 and word in words and given.get(word, 0) < 2_000
    )
    return list(itertools.islice(common, size))


def bucket(value: float, edges: Sequence[float]) -> int:
    return bisect.bisect_right(edges, value)


def bits(
    census_folder: Path, cultures: Sequence[Culture], places: Places, small: Counter[str], dictionary: set[str]
) -> dict[str, list[int]]:
    """word -> [given name, surname, plain word, town, class], each as small number."""
    known: dict[str, list[int]] = {}

    def put(word: str, place: int, value: int) -> None:
        for part in word.lower().replace("-", " ").replace("'", " ").split():
            if len(part) > 1:
                entry = known.setdefault(part, [0, 0, 0, 0, 0])
                entry[place] = max(entry[place], value)

    for column, table in enumerate(("census_2020_first_names.parquet", "census_2020.parquet")):
        for name, count in counted(census_folder, table).items():
            put(name, column, 1 + bucket(count, [3_000, 60_000]))
    for culture in cultures:
        if culture.name[0].islower():
            for column, pool in enumerate((culture.first, culture.last)):
                for word in pool.words:
                    put(word, column, 1)
    for city, weight in zip(places.cities.words, places.cities.weights, strict=True):
        if " " not in city:
            put(city, 3, 1 + bucket(weight, [350, 1_000]))
    for country in places.countries:
        put(country.removeprefix("the "), 4, 1)
    for state, _ in places.states:
        put(state, 4, 2)
    for nationality in NATIONALITIES:
        put(nationality, 4, 3)
    for number, words in _CLASSES.items():
        for word in words:
            put(word, 4, number)
    for word in dictionary:
        if word in known or small[word] > 2:
            put(word, 2, 1)
    for word, count in small.items():
        if word in dictionary or count > 8:
            put(word, 2, 1 + bucket(count, [2, 8, 25, 80, 400, 2_500]))
    return known


def vocabulary(every: Counter[str], tokenizer: Tokenizer, *, least: int = 3, size: int = 30_000) -> list[str]:
    """The words that get a vector of their own: what is common here, then whole words of the embedding model."""
    common = [word for word, count in every.most_common() if count >= least]
    whole = sorted(
        word for word in tokenizer.get_vocab() if len(word) > 2 and word.isalpha() and not word.startswith("[")
    )
    return list(dict.fromkeys([*common, *whole]))[:size]


def vectors(words: Sequence[str], model: Path, tokenizer: Tokenizer) -> np.ndarray:
    """[words, WIDTH]: the mean of the pieces' input embeddings in MiniLM, reduced to their principal components."""
    table = next(
        value
        for name, value in load_file(model / "model.safetensors").items()
        if name.endswith("word_embeddings.weight")
    )
    rows = np.stack(
        [table[tokenizer.encode(word, add_special_tokens=False).ids or [100]].mean(axis=0) for word in words]
    )
    rows = rows - rows.mean(axis=0)
    _, _, axes = np.linalg.svd(rows[:: max(1, len(rows) // 6_000)], full_matrices=False)
    reduced = rows @ axes[:WIDTH].T
    return (reduced / reduced.std()).astype(np.float32)


def write(target: Path, known: dict[str, list[int]], words: Sequence[str]) -> None:
    rows = {word: number for number, word in enumerate(words, 2)}
    entries: dict[int, tuple[int, int, int]] = {}
    for word in [*known, *words]:
        given, surname, plain, town, kind = known.get(word, (0, 0, 0, 0, 0))
        key = key_of(word)
        row, names, towns = entries.get(key, (0, 0, 0))
        entries[key] = (
            row or rows.get(word, 0),
            names or given | surname << 2 | plain << 4,
            towns or town | kind << 2,
        )
    keys = np.array(sorted(entries), dtype=np.uint32)
    columns = np.array([entries[int(key)] for key in keys])
    np.savez_compressed(
        target,
        keys=keys,
        rows=columns[:, 0].astype(np.uint16),
        names=columns[:, 1].astype(np.uint8),
        places=columns[:, 2].astype(np.uint8),
    )
    print(f"{len(keys)} words, {len(words)} with a vector, {target.stat().st_size} bytes")


def texts_of(labelled: Path) -> Iterable[str]:
    with labelled.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]
