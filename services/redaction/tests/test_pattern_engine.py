"""The engine of the pattern recognizers: one pass tells what can match, and says the same with and without Hyperscan."""

import importlib.util

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sluice_redaction.adapters.patterns.context import Context
from sluice_redaction.adapters.patterns.detector import PatternDetector
from sluice_redaction.adapters.patterns.prefilter import HyperscanPrefilter, PlainPrefilter, prefilter
from sluice_redaction.adapters.patterns.recognizer import Check, Pattern, Recognizer
from sluice_redaction.adapters.patterns.sources import pattern_sources
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.kinds import KINDS

EVERY_KIND = frozenset(KINDS)


@pytest.fixture(scope="module")
def fast() -> PatternDetector:
    return PatternDetector(pattern_sources())


@pytest.fixture(scope="module")
def plain() -> PatternDetector:
    return PatternDetector(pattern_sources(), plain=True)


_PIECES = st.sampled_from(
    [
        "Call ", "me at ", "+1 212 555 0123", "(415) 555-2671", " or ", "020 7946 0958", ". ", ", ", "\n", " ", ": ", "passport ", "number ",
        "123456789", "X12345678", "SSN ", "536-90-4399", "4111 1111 1111 1111", "DE89370400440532013000", "12 Main Street",
        ", Springfield, IL 62704",
        "Hauptstraße 12, 10115 Berlin", "born on ", "3 April 1985", "MRN ", "00123456", "Führerscheinnummer ", "FÜHRERSCHEIN ", "주민등록번호 ",
        "900101-1234568", "password: ", "hunter2!!", "sk-proj-abcdefghijklmnopqrstuvwxyz123456", "userId=",
        "jdoe", "10.1.2.3", "fe80::1ff:fe23:4567:890a",

        "a@b.co", "é", "ſ", "\u212a", "\u0130", "🙂", "\ud800", "\x1c", "\x00", "１２３", "order ", "aged ", "47", " years old", "NW1 6XE", "IBAN ",
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(_PIECES, max_size=12).map("".join))
@example(text="ſDE89370400440532013000")
@example(text="\u212adl D1234567")
@example(text="ſpin: 4821 ſpassword: hunter2!! \u212aMRN 00123456 ſ4111 1111 1111 1111")
def test_hyperscan_and_plain_search_find_the_same(fast: PatternDetector, plain: PatternDetector, text: str) -> None:
    assert sorted(fast.detect(text, EVERY_KIND)) == sorted(plain.detect(text, EVERY_KIND))


def test_hyperscan_is_used_where_it_is_installed() -> None:
    """A silent fallback would cost twenty times the time and no test would notice."""
    assert importlib.util.find_spec("hyperscan") is not None
    expressions = [pattern.expression for one in pattern_sources() for pattern in one.patterns]
    assert isinstance(prefilter(expressions[:8], expressions[8:16]), HyperscanPrefilter)
    assert isinstance(prefilter(expressions[:8], [], plain=True), PlainPrefilter)


def staff_number(**more: object) -> Recognizer:
    """As a configuration would bring it along."""
    return Recognizer("StaffRecognizer", "GOVERNMENT_ID", [Pattern.of("staff", r"\bE[0-9]{5}\b", 0.5)], **more)  # type: ignore[arg-type]


def found(recognizer: Recognizer, text: str) -> list[Finding]:
    return PatternDetector([recognizer]).detect(text, EVERY_KIND)


def test_a_recognizer_that_needs_a_word_finds_nothing_without_it() -> None:
    named = staff_number(context=Context(["staff"]), needs_context=True)
    assert found(named, "Part E12345 is in stock.") == []
    (one,) = found(named, "Staff E12345 is in.")
    assert (one.start, one.end, one.context, one.pattern, one.original_score) == (6, 12, "staff", "staff", 0.5)
    assert one.score == pytest.approx(0.85)
    assert one.confirmed


def test_a_check_drops_what_fails_it_and_names_itself_where_it_passes() -> None:
    checked = staff_number(check=Check("last digit", lambda value: value[-1] == "5"))
    assert found(checked, "E12346") == []
    (one,) = found(checked, "E12345")
    assert (one.validation, one.score, one.explanation) == ("last digit", 1.0, "last digit")


def test_a_number_that_is_called_something_else_is_left_alone() -> None:
    named = staff_number(context=Context(["staff"]), needs_context=True)
    assert found(named, "Staff wrote that order E12345 is late.") == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("passport_number=X", "passport number"),
        ("passportNumber: X", "passport number"),
        ("Passports X", "passport"),
        ("my PASSPORT X", "passport"),
        ("Führerschein X", "führerschein"),
        ("FÜHRERSCHEIN X", "führerschein"),
        ("주민등록번호 X", "주민등록번호"),
        ("spinning X", None),
        ("passportless X", None),
    ],
)
def test_words_are_found_as_people_and_programs_write_them(text: str, word: str | None) -> None:
    context = Context(["passport", "passport number", "führerschein", "주민등록번호", "pin"])
    nearby = context.nearest(text, len(text) - 1, len(text))
    assert (nearby.word if nearby else None) == word


def test_of_two_words_the_nearer_one_names_the_number(fast: PatternDetector) -> None:
    text = "The passport is 123456789, the routing number 021000021."
    kinds = {(text[one.start : one.end], one.kind) for one in fast.detect(text, EVERY_KIND) if one.score >= 0.4}
    assert ("021000021", "ABA_ROUTING_NUMBER") in kinds
    assert ("021000021", "US_PASSPORT") not in kinds
    assert ("123456789", "ABA_ROUTING_NUMBER") not in kinds


def test_findings_never_carry_the_value(fast: PatternDetector) -> None:
    text = (
        "My passport number is 123456789, my card 4111 1111 1111 1111, my key ghp_abcdefghijklmnopqrstuvwxyz0123456789."
    )
    for one in fast.detect(text, EVERY_KIND):
        value = text[one.start : one.end]
        assert all(
            value not in told for told in (one.explanation, one.pattern, one.context, one.validation, one.recognizer)
        )


def test_every_recognizer_tells_how_many_patterns_it_has_and_their_digest(fast: PatternDetector) -> None:
    listed = fast.listed()
    assert all(one.pattern_count >= 1 and one.digest.startswith("sha256:") for one in listed)
    assert len({one.digest for one in listed}) == len(listed)
