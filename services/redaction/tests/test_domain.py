"""Arbitration, placeholders, vault, names: tables and laws."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_redaction.domain.arbitration import arbitrate, join_addresses
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.kinds import KINDS
from sluice_redaction.domain.names import names_in
from sluice_redaction.domain.policy import Policy
from sluice_redaction.domain.redaction import redact
from sluice_redaction.domain.restoring import restore
from sluice_redaction.domain.vault import Entry, Vault


def found(text: str, value: str, kind: str, score: float = 0.9, *, confirmed: bool = False) -> Finding:
    start = text.index(value)
    return Finding(start, start + len(value), kind, score, "test", "", confirmed)


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("John Smith", [("John", "PERSON"), ("Smith", "PERSON")], [("John Smith", "PERSON")]),
        ("John Q. Public", [("John", "PERSON"), ("Public", "PERSON")], [("John Q. Public", "PERSON")]),
        ("John\nSmith", [("John", "PERSON"), ("Smith", "PERSON")], [("John", "PERSON"), ("Smith", "PERSON")]),
        ("Ann and Bob", [("Ann", "PERSON"), ("Bob", "PERSON")], [("Ann", "PERSON"), ("Bob", "PERSON")]),
        ("ann@example.com", [("ann@example.com", "EMAIL_ADDRESS"), ("ann", "PERSON")], [("ann@example.com", "EMAIL_ADDRESS")]),
        ("Ann Lee@x", [("Ann Lee", "PERSON"), ("Lee@x", "EMAIL_ADDRESS")], [("Ann Lee", "PERSON"), ("@x", "EMAIL_ADDRESS")]),
        ("  Ann ", [("  Ann ", "PERSON")], [("Ann", "PERSON")]),
        ("...", [("...", "PERSON")], []),
    ],
)  # fmt: skip
def test_overlaps_are_settled_and_halves_become_wholes(
    text: str, values: list[tuple[str, str]], expected: list[tuple[str, str]]
) -> None:
    settled = arbitrate([found(text, value, kind) for value, kind in values], text)
    assert [(text[one.start : one.end], one.kind) for one in settled] == expected


def test_of_two_equally_long_findings_the_confirmed_one_names_the_kind() -> None:
    text = "536-90-4399"
    guess, sure = found(text, text, "PHONE_NUMBER", 0.98), found(text, text, "US_SSN", 0.85, confirmed=True)
    assert arbitrate([guess, sure], text) == [sure]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at 12 Main Street, Springfield, IL 62704 now", ["12 Main Street, Springfield, IL 62704"]),
        ("in Springfield today", []),
    ],
)
def test_a_town_is_redacted_only_as_a_part_of_an_address(text: str, expected: list[str]) -> None:
    parts = [
        ("12 Main Street", "STREET_ADDRESS"),
        ("Springfield", "LOCATION"),
        ("IL", "LOCATION"),
        ("62704", "LOCATION"),
    ]
    candidates = [found(text, value, kind) for value, kind in parts if value in text]
    accepted = [one for one in join_addresses(candidates, text) if Policy().accepts(one, text)]
    assert [text[one.start : one.end] for one in arbitrate(accepted, text)] == expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Everett flew", ["Everett"]),
        ("Robert Clark's", ["Robert Clark"]),
        ("Ludwig van Beethoven", ["Ludwig van Beethoven"]),
        ("priya raghunathan", ["priya raghunathan"]),
        ("Christopher Ortega\nAddress", ["Christopher Ortega", "Address"]),
        ("J. R. R. Tolkien", ["J. R. R. Tolkien"]),
        ("O’Neil-Smith", ["O’Neil-Smith"]),
        ("...", []),
    ],
)
def test_a_name_is_freed_of_what_the_model_swept_along(text: str, names: list[str]) -> None:
    tidy = names_in(Finding(0, len(text), "PERSON", 0.9, "test"), text)
    assert [text[one.start : one.end] for one in tidy] == names


_FINDINGS = st.lists(
    st.builds(
        lambda start, length, kind, score: Finding(start, start + length, kind, score, "any"),
        st.integers(0, 60), st.integers(1, 30), st.sampled_from(sorted(KINDS)), st.floats(0, 1),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(text=st.text(alphabet="ab .,1\n", min_size=0, max_size=80), findings=_FINDINGS)
def test_settled_findings_do_not_overlap_and_cover_everything_that_was_flagged(
    text: str, findings: list[Finding]
) -> None:
    settled = arbitrate(findings, text)
    assert all(one.end <= two.start for one, two in itertools.pairwise(settled))
    covered = {place for one in settled for place in range(one.start, one.end)}
    flagged = {place for one in findings for place in range(one.start, min(one.end, len(text)))}
    assert {place for place in flagged if text[place].isalnum()} <= covered


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(st.text(max_size=60), min_size=1, max_size=4),
    spans=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(1, 20)), max_size=8),
)
def test_what_is_redacted_comes_back_exactly(texts: list[str], spans: list[tuple[int, int, int]]) -> None:
    findings = [
        arbitrate([Finding(start, start + size, "PERSON", 0.9, "any") for at, start, size in spans if at == n], text)
        for n, text in enumerate(texts)
    ]
    vault = Vault()
    redaction = redact(texts, findings, vault)
    assert [restore(one.text, vault).text for one in redaction.texts] == texts


def test_a_value_found_once_is_replaced_wherever_it_stands() -> None:
    texts = ["Call Ann Lee.", "ann lee is not ANN LEE, but Ann Lee is; Ann Leeward is not."]
    redaction = redact(texts, [[found(texts[0], "Ann Lee", "PERSON")], []], Vault())
    assert redaction.texts[1].text == "ann lee is not ANN LEE, but <PERSON_1> is; Ann Leeward is not."


def test_a_first_name_that_is_a_word_is_not_replaced_elsewhere() -> None:
    texts = ["I am Will.", "Will it rain?"]
    redaction = redact(texts, [[found(texts[0], "Will", "PERSON")], []], Vault())
    assert redaction.texts[1].text == "Will it rain?"


@pytest.mark.parametrize(
    "spelling",
    ["<PERSON_1>", "<person_1>", "<Person 1>", "<PERSON-1>", "<PERSON1>", "<PERSON\\_1>", "&lt;PERSON_1&gt;", "< PERSON_1 >"],
)  # fmt: skip
def test_every_usual_spelling_of_a_placeholder_is_restored(spelling: str) -> None:
    vault = Vault([Entry("<PERSON_1>", "Ann", "PERSON")])
    assert restore(f"To {spelling}, {spelling}'s and {spelling}s.", vault).text == "To Ann, Ann's and Anns."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<PERSON_1's> hat", "Ann's hat"),
        ("<PERSON_1s>", "Anns"),
        ("<PERSON_12> <PERSON_2> <PERSON> <PERSON_1", "<PERSON_12> <PERSON_2> <PERSON> <PERSON_1"),
        ("<<PERSON_1>>", "<Ann>"),
        ("[PERSON_2] and PERSON_2", "[PERSON_2] and PERSON_2"),
    ],
)
def test_what_is_not_ours_stays(text: str, expected: str) -> None:
    assert restore(text, Vault([Entry("<PERSON_1>", "Ann", "PERSON")])).text == expected


def test_a_restored_value_is_not_read_again() -> None:
    vault = Vault([Entry("<PERSON_1>", "<PERSON_2>", "PERSON"), Entry("<PERSON_2>", "Bob", "PERSON")])
    assert restore("<PERSON_1>", vault).text == "<PERSON_2>"


def test_values_are_kept_out_of_the_repr() -> None:
    assert "Ann" not in repr(Entry("<PERSON_1>", "Ann", "PERSON"))


def test_a_policy_names_the_mistake() -> None:
    with pytest.raises(ValueError, match="unknown kinds: NOPE"):
        Policy.of(["NOPE"])
    with pytest.raises(ValueError, match="between 0 and 1"):
        Policy.of(min_score=2)


def test_an_allowed_word_is_left_alone_in_any_case() -> None:
    policy = Policy.of(allowed=["Ann Lee"])
    assert not policy.accepts(found("ANN LEE", "ANN LEE", "PERSON"), "ANN LEE")
