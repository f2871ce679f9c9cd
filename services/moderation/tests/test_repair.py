"""Broken words are mended, ordinary ones left alone."""

import time

import pytest
from sluice_moderation.domain.identity import MARK, marked
from sluice_moderation.domain.repair import Repairer

WORDS = """i a hate you kill all people the of and to are so going nice day please could summarise article duck ducking shift kiln"""
KNOWN = frozenset(WORDS.split())
CHARGED = frozenset(["stupid", "idiot", "kill", "fuck", "shit", "hate", "moron"])
REPAIRER = Repairer(KNOWN | CHARGED, CHARGED)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("ihateyou", "i hate you"),
        ("killallpeople", "kill all people"),
        ("you are so stpuid", "you are so stupid"),
        ("you are so stupd!", "you are so stupid!"),
        ("id*ot", "idiot"),
        ("f*ck you", "fuck you"),
        ("k*ill you", "kill you"),
        ("fcuk", "fuck"),
        ("stu pid", "stupid"),
        ("i will ki ll you", "i will kill you"),
    ],
)
def test_broken_words_are_mended(text: str, mended: str) -> None:
    assert REPAIRER.repaired(text) == mended


@pytest.mark.parametrize(
    "text", ["nice ducking day", "the duck and the kiln", "shift", "", "xyzzy plugh", "Zebulon", "hate the day"]
)
def test_other_words_are_left_alone(text: str) -> None:
    assert REPAIRER.repaired(text) == text


@pytest.mark.parametrize("piece", ["a", "kill", "zq", "st upid ", "x*"])
def test_the_time_grows_with_the_length_of_the_text_and_no_faster(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        began = time.process_time()
        REPAIRER.repaired(text)
        return time.process_time() - began

    # Sixteen times the text: quadratic growth would take 256 times as long.
    assert min(seconds(64_000) for _ in range(2)) < 100 * max(min(seconds(4_000) for _ in range(3)), 1e-3)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("Muslim people live here", f"{MARK} people live here"),
        ("I am an Indian woman", f"I am a {MARK} person"),
        ("Jews and Muslims pray", f"{MARK}s and {MARK}s pray"),
        ("a Muslim and gay family", f"a {MARK} family"),
        ("black coffee, white wine, polish the table", "black coffee, white wine, polish the table"),
        ("She is blind", f"She is {MARK}"),
        ("the man said hello", "the person said hello"),
    ],
)
def test_identity_terms_become_one_mark(text: str, seen: str) -> None:
    assert marked(text) == seen
