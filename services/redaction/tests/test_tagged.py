"""What is believed of the words that the name tagger marks."""

import pytest
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.names import names_in
from sluice_redaction.domain.tagged import is_plausible, without_words


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
        ("ip=1 sid=deadbeefcafe", "sid", "PERSON"),
        ("whatsapp me", "whatsapp", "PERSON"),
        ("sessionid=38afes7a8", "afes7", "STREET_ADDRESS"),
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
        ("in Hauptstraße, 10827 Berlin", "Hauptstraße", "STREET_ADDRESS"),
    ],
)
def test_whole_values_are_believed(text: str, value: str, kind: str) -> None:
    assert is_plausible(marked(text, value, kind), text)


@pytest.mark.parametrize(
    ("marked_too_far", "number"),
    [
        ("(415) 867-5309 tonight", "(415) 867-5309"),
        ("phone +49 (0)30\n901820 or", "+49 (0)30\n901820"),
        ("+(49) 30 901820", "+(49) 30 901820"),
    ],
)
def test_a_telephone_number_leaves_the_words_around_it(marked_too_far: str, number: str) -> None:
    text = f"call {marked_too_far}, please"
    trimmed = without_words(marked(text, marked_too_far, "PHONE_NUMBER"), text)
    assert text[trimmed.start : trimmed.end] == number


def test_only_telephone_numbers_lose_letters() -> None:
    text = "card AB 123456789 C"
    finding = marked(text, "AB 123456789 C", "GOVERNMENT_ID")
    assert without_words(finding, text) == finding


def test_two_names_joined_by_a_word_are_two_persons() -> None:
    text = "we met zhang wei and li na today"
    found = names_in(marked(text, "zhang wei and li na", "PERSON"), text)
    assert [text[one.start : one.end] for one in found] == ["zhang wei", "li na"]
