"""COVERAGE.md is true: a row for every kind, and every example is found."""

import re
from pathlib import Path

import pytest
from sluice_redaction.adapters.patterns.detector import PatternDetector
from sluice_redaction.adapters.patterns.sources import pattern_sources
from sluice_redaction.domain.kinds import KINDS

_PAGE = (Path(__file__).parents[1] / "COVERAGE.md").read_text(encoding="utf-8")
_ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")] for line in _PAGE.splitlines() if line.startswith("| `")
]
_HIPAA = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in _PAGE.splitlines()
    if re.match(r"\| [0-9]+ \|", line)
]
_FOUND_BY_MODEL = [row for row in _ROWS if row[2] == "model"]
_FOUND_BY_PATTERN = [row for row in _ROWS if row[2] != "model"]


@pytest.fixture(scope="module")
def detector() -> PatternDetector:
    return PatternDetector(pattern_sources())


def test_every_kind_has_one_row_that_tells_its_meaning_and_default() -> None:
    told = [(row[0].strip("`"), row[1], row[3]) for row in _ROWS]
    assert told == [(kind.name, kind.meaning, "default" if kind.by_default else "opt-in") for kind in KINDS.values()]


@pytest.mark.parametrize("row", _FOUND_BY_PATTERN, ids=lambda row: row[0].strip("`"))
def test_the_example_of_a_kind_is_found(detector: PatternDetector, row: list[str]) -> None:
    before, value, after = re.fullmatch(r"(.*?)\[(.*)\](.*)", row[4]).groups()  # type: ignore[union-attr]
    kind, text = row[0].strip("`"), before + value + after
    spans = [
        (one.start, one.end)
        for one in detector.detect(text, frozenset([kind]))
        if one.kind == kind and one.score >= 0.4
    ]
    assert (len(before), len(before) + len(value)) in spans


def test_only_what_a_model_finds_has_no_pattern() -> None:
    by_pattern = {recognizer.kind for recognizer in pattern_sources()}
    assert {row[0].strip("`") for row in _FOUND_BY_MODEL} == KINDS.keys() - by_pattern


def test_each_of_the_18_identifiers_of_hipaa_names_kinds_that_exist_or_says_that_it_is_no_text() -> None:
    assert [int(row[0]) for row in _HIPAA] == list(range(1, 19))
    for row in _HIPAA:
        kinds = re.findall(r"`([A-Z_]+)`", row[2])
        assert kinds or row[2] == "out of scope"
        assert set(kinds) <= KINDS.keys()
