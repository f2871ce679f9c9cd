"""What is believed of the words that the name tagger marks."""

import pytest
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.names import names_in
from sluice_redaction.domain.tagged import is_plausible


def marked(text: str, value: str, kind: str) -> Finding:
    start = text.index(value)
    return Finding(start, start + len(value), kind, 0.9, "NameTagger", "label")


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("commit 9fceb02d0ae598e95dc970b74767f19372d61af8", "74767", "GOVERNMENT_ID"),
        ("uuid 123e4567-e89b-12d3-a456-426614174000", "426614174000", "PHONE_NUMBER"),
        ("tracking 1Z999AA10123456784 left", "10123456784", "PHONE_NUMBER"),
        ("page 939 of it", "939", "PHONE_NUMBER"),
        ("ask bryan_k about it", "bryan", "PERSON"),
        ("write to lbaron@example.com", "lbaron", "PERSON"),
        ("plate FE45 SZS", "FE", "PERSON"),
        ("VIN 1HGCM82633A004352", "VIN", "STREET_ADDRESS"),
        ("the ssh key", "ssh", "PERSON"),
    ],
)
def test_pieces_of_tokens_and_labels_are_no_values(text: str, value: str, kind: str) -> None:
    assert not is_plausible(marked(text, value, kind), text)


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("* Sophia Castiglione - 03434721815", "03434721815", "PHONE_NUMBER"),
        ("ask Bryan Kay about it", "Bryan Kay", "PERSON"),
        ("Ximena's daughter", "Ximena", "PERSON"),
        ("Jean-Luc said so", "Jean", "PERSON"),
        ("12 Main Street", "12 Main Street", "STREET_ADDRESS"),
    ],
)
def test_whole_values_are_believed(text: str, value: str, kind: str) -> None:
    assert is_plausible(marked(text, value, kind), text)


def test_two_names_joined_by_a_word_are_two_persons() -> None:
    text = "we met zhang wei and li na today"
    found = names_in(marked(text, "zhang wei and li na", "PERSON"), text)
    assert [text[one.start : one.end] for one in found] == ["zhang wei", "li na"]
