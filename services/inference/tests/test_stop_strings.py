"""Stop strings: never leaked, in any chunking, and nothing held back without need."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sluice_inference.domain.stop_strings import StopStrings

# A small alphabet makes overlaps and near misses likely.
TEXTS = st.text("abX\n", max_size=60)
STOPS = st.lists(st.text("abX\n", min_size=1, max_size=5), max_size=4)


def run(chunks: list[str], stops: list[str], *, include: bool = False) -> tuple[str, str | None]:
    filtered, shown = StopStrings(stops, include=include), ""
    for chunk in chunks:
        released = filtered.feed(chunk)
        shown += released.text
        if released.matched is not None:
            return shown, released.matched
    return shown + filtered.flush(), None


def cut(text: str, points: list[int]) -> list[str]:
    edges = [0, *sorted(point % (len(text) + 1) for point in points), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


@given(TEXTS, STOPS, st.lists(st.integers(0, 1000), max_size=20), st.booleans())
def test_any_chunking_gives_the_same_text(text: str, stops: list[str], points: list[int], include: bool) -> None:
    assert run(cut(text, points), stops, include=include) == run(list(text), stops, include=include)


@given(TEXTS, STOPS, st.lists(st.integers(0, 1000), max_size=20))
def test_a_stop_string_never_leaks(text: str, stops: list[str], points: list[int]) -> None:
    shown, matched = run(cut(text, points), stops)
    assert not any(stop in shown for stop in stops)
    assert (matched is not None) == any(stop in text for stop in stops)
    assert text.startswith(shown)


@given(TEXTS, STOPS)
def test_only_a_possible_start_is_held_back(text: str, stops: list[str]) -> None:
    filtered, shown = StopStrings(stops), ""
    for index, character in enumerate(text):
        released = filtered.feed(character)
        shown += released.text
        if released.matched is not None:
            return
        held = text[len(shown) : index + 1]
        assert not held or any(stop.startswith(held) for stop in stops)


@pytest.mark.parametrize(
    ("chunks", "stops", "shown", "matched"),
    [
        (["Hel", "lo EN", "D now"], ["END"], "Hello ", "END"),
        (["Hello EN", "TER"], ["END"], "Hello ENTER", None),
        (["abc"], ["abcX", "b"], "a", "b"),
        (["aab"], ["aab", "ab"], "", "aab"),
        (["one\n", "\ntwo"], ["\n\n"], "one", "\n\n"),
        (["ends with a start: EN"], ["END"], "ends with a start: EN", None),
        (["né", "e"], ["ée"], "n", "ée"),
        (["text"], [], "text", None),
    ],
)
def test_these_texts_end_here(chunks: list[str], stops: list[str], shown: str, matched: str | None) -> None:
    assert run(chunks, stops) == (shown, matched)


def test_the_stop_string_stays_when_it_is_asked_for() -> None:
    assert run(["so: E", "ND and on"], ["END"], include=True) == ("so: END", "END")
