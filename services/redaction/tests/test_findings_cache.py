"""The cache of findings: right, bounded, and without a text in it."""

import pickle

from hypothesis import given
from hypothesis import strategies as st
from sluice_redaction.adapters.findings_cache import SHORTEST, FindingsCache, RememberingDetector
from sluice_redaction.adapters.listed import Listed
from sluice_redaction.domain.findings import Finding

PERSON, PHONE = frozenset({"PERSON"}), frozenset({"PHONE_NUMBER"})


class Counting:
    """Finds the kinds it is asked for at a place that depends on the text; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, text: str, kinds: frozenset[str]) -> list[Finding]:
        self.calls += 1
        return [Finding(len(text) % 7, 9, kind, 0.5, "counting") for kind in sorted(kinds)]

    detect_patterns = detect

    def listed(self) -> list[Listed]:
        return []


def test_a_text_seen_before_costs_nothing_and_says_the_same() -> None:
    detector, text = Counting(), "a system prompt. " * 40
    remembering = RememberingDetector(detector, FindingsCache())
    first, second = list(remembering.detect(text, PERSON)), list(remembering.detect(text, PERSON))
    assert first == second == list(Counting().detect(text, PERSON))
    assert detector.calls == 1


def test_other_kinds_are_another_question() -> None:
    remembering, text = RememberingDetector(Counting(), FindingsCache()), "x" * SHORTEST
    assert [one.kind for one in remembering.detect(text, PERSON)] == ["PERSON"]
    assert [one.kind for one in remembering.detect(text, PHONE)] == ["PHONE_NUMBER"]


@given(texts=st.lists(st.text(min_size=SHORTEST, max_size=SHORTEST + 20), max_size=12))
def test_remembering_never_changes_an_answer(texts: list[str]) -> None:
    remembering, plain = RememberingDetector(Counting(), FindingsCache(entries=3)), Counting()
    for text in [*texts, *reversed(texts)]:
        assert list(remembering.detect(text, PERSON)) == plain.detect(text, PERSON)


def test_the_least_recently_used_goes_first() -> None:
    cache = FindingsCache(entries=2)
    keys = [cache.key(name, PERSON) for name in "abc"]
    cache.put(keys[0], ())
    cache.put(keys[1], ())
    cache.get(keys[0])
    cache.put(keys[2], ())
    assert [cache.get(key) for key in keys] == [(), None, ()]


def test_it_is_bounded_in_bytes_too() -> None:
    cache = FindingsCache(size=10_000)
    for number in range(200):
        cache.put(cache.key(str(number), PERSON), (Finding(0, 1, "PERSON", 1.0, "counting"),) * 5)
    assert cache.size_bytes <= 10_000
    assert 0 < len(cache) < 200


def test_neither_text_nor_value_is_kept() -> None:
    cache, text = FindingsCache(), "Xanthippe lives here. " * 20
    list(RememberingDetector(Counting(), cache).detect(text, PERSON))
    kept = pickle.dumps(dict(cache._kept))
    assert b"Xanthippe" not in kept


def test_two_processes_give_a_text_different_keys() -> None:
    assert FindingsCache().key("x", PERSON) != FindingsCache().key("x", PERSON)
