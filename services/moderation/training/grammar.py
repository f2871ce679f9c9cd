"""Sentences from the grammars in grammar/: seeded, diverse, labelled.

A file has blocks: `+ label label ?label` or `-` (none of the labels), then one pattern a line. `(a|b)` is a choice, `{slot}` a slot of
slots.txt, `?label` a label left open (the pattern says nothing about it). Every label that is not named is false. `{praise}` is filled
from VADER's lexicon (Hutto and Gilbert 2014, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text").
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "grammar"
_CHOICE = re.compile(r"\(([^()]*)\)|\{(\w+)\}")
# Words of VADER's lexicon from this score (of -4 to 4) on, in the forms that describe people.
_PRAISE_FROM = 1.6
_DESCRIBES = re.compile(r"[a-z]+(?:ful|ous|ive|able|ible|ing|ant|ent|al|ic|ed|some)")
# In groups.txt one pattern stands for many words.
_OFTEN = {"groups": 2}
_MOST_TRIES = 6  # per sentence wanted, before a pattern counts as exhausted


@dataclass(frozen=True)
class Sentence:
    text: str
    labels: frozenset[str]
    open_labels: frozenset[str]
    pattern: str
    file: str


def slots(lexicon: Path) -> dict[str, list[str]]:
    lines = (line for line in _lines(FOLDER / "slots.txt") if ":" in line)
    return {"praise": praise(lexicon)} | {
        name: [v.strip() for v in values.split("|")] for name, _, values in (line.partition(": ") for line in lines)
    }


def praise(lexicon: Path) -> list[str]:
    """Words that praise, of a file with a word, a tab and its mean score on a line."""
    scored = (line.split("\t")[:2] for line in lexicon.read_text(encoding="utf-8").splitlines() if line.strip())
    return [word for word, score in scored if float(score) >= _PRAISE_FROM and _DESCRIBES.fullmatch(word)]


def patterns(path: Path) -> Iterator[tuple[frozenset[str], frozenset[str], str]]:
    labels: list[str] = []
    for line in _lines(path):
        if line[:2] in ("+ ", "-"):
            labels = line[1:].split()
            continue
        named = frozenset(label for label in labels if label[0] != "?")
        yield named, frozenset(label[1:] for label in labels if label[0] == "?"), line


def sentences(per_pattern: int, seed: int, *, lexicon: Path, without: frozenset[str] = frozenset()) -> list[Sentence]:
    """At most `per_pattern` different sentences of each pattern (of groups.txt more), in the order of the files but those in `without`."""
    values, found = slots(lexicon), []
    for path in sorted(FOLDER.glob("*.txt")):
        if path.stem in without | {"slots"}:
            continue
        for labels, left_open, pattern in patterns(path):
            dice = random.Random(f"{seed}:{pattern}")
            wanted = per_pattern * _OFTEN.get(path.stem, 1)
            texts: dict[str, None] = {}
            for _ in range(wanted * _MOST_TRIES):
                texts[expand(pattern, values, dice)] = None
                if len(texts) == wanted:
                    break
            found += [Sentence(text, labels, left_open, pattern, path.stem) for text in texts]
    return found


def expand(pattern: str, values: dict[str, list[str]], dice: random.Random) -> str:
    text = pattern
    while match := _CHOICE.search(text):
        options = match[1].split("|") if match[1] is not None else values[match[2]]
        text = text[: match.start()] + dice.choice(options) + text[match.end() :]
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\b([Aa]) (?=[aeiouAEIOU]\w)", r"\1n ", text)
    text = re.sub(r" ([,.;!?])", r"\1", text)
    return text[:1].upper() + text[1:]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


if __name__ == "__main__":
    for sentence in sentences(2, 1, lexicon=Path(sys.argv[1])):
        print(",".join(sorted(sentence.labels)) or "-", "|", sentence.text)
