"""From what the teachers said of natural passages to labels: where they agree a label, where they differ nothing is
learnt, and names are exchanged for others so that it is the sentence that is learnt."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from synthesis import IGNORED, Example, Filler, Span, roughened

_KINDS = {
    "PERSON": "PERSON",
    "LOCATION": "LOCATION",
    "ORGANIZATION": "ORGANIZATION",
    "NRP": "NRP",
    "DATE_TIME": "DATE_TIME",
}
_NEWS = ("XSum", "BoolQ", "Quac", "MultiLexSum", "lee", "NarrativeQA", "NQ-open", "imdb", "Legal-Support")
_CERTAIN, _HINT, _DOUBT = 0.85, 0.02, 0.2


def labels_of(piece: dict[str, Any]) -> list[Span]:
    """Spans that do not overlap."""
    code, news = piece["source"] == "code", piece["source"].startswith(_NEWS)
    names = [(start, end, label, p, name) for start, end, label, p, name in piece["rampart"]]
    spans: list[Span] = []
    for start, end, kind in piece["spacy"]:
        hint = max((name for first, last, _, _, name in names if first < end and last > start), default=0.0)
        if code or (kind == "ORGANIZATION" and not news):
            spans.append((start, end, IGNORED))
        elif kind == "PERSON":
            spans.append((start, end, "PERSON" if hint >= _HINT else IGNORED))
        elif hint >= 0.5 and kind != "NRP":
            spans.append((start, end, IGNORED))
        else:
            spans.append((start, end, _KINDS[kind]))
    spans += [
        one
        for one in _of_rampart(names, piece["text"])
        if not any(one[0] < end and one[1] > start for start, end, _ in spans)
    ]
    return sorted(spans)


def _of_rampart(names: list[tuple[int, int, str, float, float]], text: str) -> Iterator[Span]:
    for start, end, label, probability, name in names:
        if label in ("GIVEN_NAME", "SURNAME"):
            certain = probability >= _CERTAIN and text[start].isupper()
            yield start, end, "PERSON" if certain else IGNORED
        elif label or name >= _DOUBT:
            yield start, end, IGNORED


def swapped(text: str, spans: list[Span], filler: Filler, rate: float) -> tuple[str, list[Span]]:
    """With some of the names replaced by others of about the same form."""
    chance = filler.chance
    out, moved, at = "", [], 0
    for start, end, label in spans:
        out += text[at:start]
        value = text[start:end]
        if label == "PERSON" and chance.random() < rate:
            value = filler.part_of_a_name() if len(value.split()) == 1 else filler.person()
        elif label == "LOCATION" and " " not in value and chance.random() < 0.3:
            value = filler.value("place")[0][0]
        elif label == "ORGANIZATION" and chance.random() < 0.2:
            value = filler.org()
        moved.append((len(out), len(out) + len(value), label))
        out, at = out + value, end
    return out + text[at:], moved


def examples(labelled: Path, filler: Filler, rate: float) -> Iterator[Example]:
    with labelled.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                piece = json.loads(line)
            except json.JSONDecodeError:  # the last line, while the teachers still write
                return
            text, spans = swapped(piece["text"], labels_of(piece), filler, rate)
            yield roughened(Example(text, spans, "silver:" + piece["source"]), filler.chance)
