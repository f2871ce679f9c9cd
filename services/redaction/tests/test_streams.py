"""The law of the streams: however a text is cut into pieces, the output is the output of one piece."""

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_redaction.domain.detection import STREAM, WHOLE_TEXT, SegmentedDetection, detect
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.operators import Operation
from sluice_redaction.domain.policy import Policy
from sluice_redaction.domain.redaction import RedactingStream
from sluice_redaction.domain.restoring import RestoringStream, restore
from sluice_redaction.domain.segments import CutRule
from sluice_redaction.domain.vault import Entry, Vault

_PATTERNS = {
    "EMAIL_ADDRESS": re.compile(r"[\w.]{1,40}@[\w.]{1,40}\w"),
    "PERSON": re.compile(r"\b(?:Ann|Bob|Zoë|J\.)(?: (?:Lee|Ray|Q\.))?"),
    "PHONE_NUMBER": re.compile(r"\+?\d[\d ()\n-]{6,16}\d"),
    "API_KEY": re.compile(r"-----BEGIN KEY-----[A-Z\s]*(?:-----END KEY-----)?|tok_[a-z]{4,}"),
}


class Patterns:
    """A detector simple enough to see through."""

    def detect_patterns(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        return self.detect(text, kinds)

    def detect(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        for kind, pattern in _PATTERNS.items():
            for match in pattern.finditer(text):
                yield Finding(*match.span(), kind, 0.9, "patterns")


_PIECES = st.sampled_from(
    [
        "Ann", "Ann Lee", "Bob", "J. Q.", "Zoë", "ann.lee@example.com", "a@b.c", "+1 212 555 0123", "212",
        "555 0199", "tok_abcdefgh", "-----BEGIN KEY-----\nABC\nDEF\n-----END KEY-----", "-----BEGIN KEY-----\nXYZ",
        "<PERSON_1>", "<Person 1>", "<PERSON_1's>", "<PERSON_2>", "<PERS", "<", "&lt;PERSON_1&gt;", "&l",
        "<EMAIL_ADDRESS_1>", "<PERSON_11>", " ", " ", "\n", ". ", "! ", "\n\n", "the", "word", "Dr. ", "。",
        "x" * 45, " " * 70, ", ", "'s", "é", "🙂", "\r\n", "\t", "(", ")", '"',
    ]
)  # fmt: skip
_TEXTS = st.lists(_PIECES | st.text(max_size=8), max_size=40).map("".join)


def _cut(text: str, places: Iterable[int]) -> list[str]:
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


_PLACES = st.lists(st.integers(min_value=0, max_value=10_000), max_size=30)


def _vault() -> Vault:
    return Vault(
        [
            Entry("<PERSON_1>", "Zoë <Ray>", "PERSON"),
            Entry("<PERSON_11>", "Bob Lee", "PERSON"),
            Entry("<EMAIL_ADDRESS_1>", "zoe@example.org", "EMAIL_ADDRESS"),
        ]
    )


def _stream(chunks: Iterable[str], *, restoring: bool = True, rule: CutRule = STREAM) -> tuple[str, list[Finding], int]:
    stream = RedactingStream(Policy(), _vault(), restoring=restoring)
    stream._detection._rule = rule
    released, findings, most_held = [], [], 0
    for chunk in chunks:
        stream.push(chunk)
        while stream.has_work():
            step = stream.step(Patterns())
            released.append(step.text)
            findings.extend(step.findings)
        most_held = max(most_held, stream.held_characters)
    while stream.has_work(final=True):
        step = stream.step(Patterns(), final=True)
        released.append(step.text)
        findings.extend(step.findings)
    released.append(stream.finish().text)
    return "".join(released), findings, most_held


@settings(max_examples=400, deadline=None)
@given(text=_TEXTS, places=_PLACES, restoring=st.booleans())
def test_any_chunking_of_an_answer_gives_what_one_chunk_gives(text: str, places: list[int], restoring: bool) -> None:
    whole, findings, _ = _stream([text], restoring=restoring)
    assert _stream(_cut(text, places), restoring=restoring)[:2] == (whole, findings)


@settings(max_examples=150, deadline=None)
@given(text=_TEXTS)
def test_one_character_at_a_time_gives_what_one_chunk_gives(text: str) -> None:
    assert _stream(list(text))[:2] == _stream([text])[:2]


@settings(max_examples=300, deadline=None)
@given(
    text=_TEXTS, places=_PLACES,
    rule=st.builds(
        CutRule, st.integers(1, 20), st.integers(1, 40), st.integers(1, 200), st.integers(0, 40),
        st.integers(0, 80), st.integers(1, 4),
    ),
)  # fmt: skip
def test_the_law_holds_for_any_sizes(text: str, places: list[int], rule: CutRule) -> None:
    assert _stream(_cut(text, places), rule=rule)[:2] == _stream([text], rule=rule)[:2]


@settings(max_examples=300, deadline=None)
@given(text=_TEXTS, places=_PLACES, json_text=st.booleans())
def test_any_chunking_restores_what_one_chunk_restores(text: str, places: list[int], json_text: bool) -> None:
    stream = RestoringStream(_vault(), json_text=json_text)
    pieces = [stream.push(chunk) for chunk in _cut(text, places)] + [stream.finish()]
    assert "".join(pieces) == restore(text, _vault(), json_text=json_text).text


@settings(max_examples=300, deadline=None)
@given(text=_TEXTS)
def test_segments_put_together_are_the_text_and_findings_stay_inside(text: str) -> None:
    for rule in (STREAM, WHOLE_TEXT):
        detection = SegmentedDetection(Policy(), rule)
        detection.push(text)
        rebuilt = ""
        while detection.has_work(final=True):
            segment = detection.step(Patterns(), final=True)
            if segment is not None:
                rebuilt += segment.text
                assert all(0 <= finding.start < finding.end <= len(segment.text) for finding in segment.findings)
        assert rebuilt == text


@settings(max_examples=200, deadline=None)
@given(text=_TEXTS)
def test_cutting_loses_no_finding_of_a_text_short_enough_to_be_seen_whole(text: str) -> None:
    uncut = CutRule(shortest=100_000, patience=1, longest=200_000, context=0)
    covered = {place for found in detect(text, Patterns(), Policy(), STREAM) for place in range(found.start, found.end)}
    for found in detect(text, Patterns(), Policy(), uncut):
        if found.kind in ("EMAIL_ADDRESS", "API_KEY"):
            assert covered >= {place for place in range(found.start, found.end) if text[place].isalnum()}


@pytest.mark.parametrize("size", [1, 3, 7, 100])
@pytest.mark.parametrize(
    "value",
    [
        "ann.lee@example.com",
        "+1 212 555 0123",
        "Ann Lee",
        "-----BEGIN KEY-----\n" + "ABCDEFGH\n" * 60 + "-----END KEY-----",
        "tok_" + "q" * 3_000,
    ],
)
def test_a_value_is_never_cut_in_two(value: str, size: int) -> None:
    text = f"Well, here it is at last: {value}. And that is all. " * 2
    output, findings, _ = _stream([text[at : at + size] for at in range(0, len(text), size)])
    assert len({finding.kind for finding in findings}) == 1
    assert re.sub(r"<[A-Z_]+_\d+>", "@", output) == "Well, here it is at last: @. And that is all. " * 2


def test_a_secret_longer_than_any_segment_is_covered_to_its_end() -> None:
    text = "Key: tok_" + "q" * 30_000 + " and no more."
    output, _, most_held = _stream([text[at : at + 50] for at in range(0, len(text), 50)])
    assert "q" not in output
    assert output.endswith(" and no more.")
    assert most_held < 10_000


def test_an_ordinary_answer_begins_after_its_first_sentence_and_is_held_back_for_three_at_most() -> None:
    sentence = "The quick brown fox jumps over the lazy dog near the river. "
    _, _, most_held = _stream(list(sentence * 20))
    assert most_held <= 3 * len(sentence) + 1
    stream = RedactingStream(Policy(), _vault())
    stream.push(sentence + "T")
    assert stream.step(Patterns()).text == sentence


def test_restoring_holds_back_only_what_could_become_a_placeholder() -> None:
    stream = RestoringStream(_vault())
    assert stream.push("a < b and <div> & c") == "a < b and <div> & c"
    assert stream.push(" <PERS") == " "
    assert stream.held_characters == 5
    assert stream.push("ONAL>") == "<PERSONAL>"
    assert stream.push("<PERSON_1") == ""
    assert stream.push(">'s") == "Zoë <Ray>'s"


def test_nothing_is_held_back_where_there_is_no_vault() -> None:
    stream = RestoringStream(Vault())
    assert stream.push("<PERSON_") == "<PERSON_"


def test_the_callers_own_value_in_the_clear_stays_in_the_clear() -> None:
    output, findings, _ = _stream(["I told Bob Lee, and Ann Lee."])
    assert output == "I told Bob Lee, and <PERSON_2>."
    assert [finding.kind for finding in findings] == ["PERSON"]


_MADE_UP = [
    Entry("Maria Keller", "Zoë Ray", "PERSON", Operation.SURROGATE),
    Entry("Maria", "Zoë", "PERSON", Operation.SURROGATE),
    Entry("maria.keller@example.net", "zoe@example.org", "EMAIL_ADDRESS", Operation.SURROGATE),
]
_MADE_UP_TEXTS = st.lists(
    st.sampled_from(["Maria", "Maria Keller", "MARIA KELLER", "maria.keller@example.net", "Keller", "Mar", "Ann Lee", "Bob", "'s", "s"])
    | _PIECES,
    max_size=30,
).map("".join)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(text=_MADE_UP_TEXTS, places=_PLACES)
def test_any_chunking_of_an_answer_with_made_up_values_gives_what_one_chunk_gives(text: str, places: list[int]) -> None:
    def streamed(chunks: Iterable[str]) -> str:
        stream = RedactingStream(Policy(), Vault(_MADE_UP))
        released = ""
        for chunk in chunks:
            stream.push(chunk)
            while stream.has_work():
                released += stream.step(Patterns()).text
        while stream.has_work(final=True):
            released += stream.step(Patterns(), final=True).text
        return released + stream.finish().text

    whole = streamed([text])
    assert streamed(_cut(text, places)) == whole
    assert streamed(list(text)) == whole


def test_made_up_values_in_an_answer_become_the_callers_own_and_others_are_redacted() -> None:
    stream = RedactingStream(Policy(), Vault(_MADE_UP))
    stream.push("Maria Keller's mail is maria.keller@example.net; Bob asked Maria.")
    released = ""
    while stream.has_work(final=True):
        released += stream.step(Patterns(), final=True).text
    assert released + stream.finish().text == "Zoë Ray's mail is zoe@example.org; <PERSON_1> asked Zoë."
