"""The real detectors: Presidio's patterns, ours, Rampart and spaCy, on texts as people write them."""

import itertools
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sluice_redaction.adapters.detector import DetectorFactory
from sluice_redaction.adapters.listed import ListedDetector
from sluice_redaction.adapters.patterns.detector import PatternDetector
from sluice_redaction.adapters.patterns.sources import pattern_sources
from sluice_redaction.domain.detection import detect
from sluice_redaction.domain.kinds import KINDS
from sluice_redaction.domain.policy import Policy
from sluice_redaction.domain.redaction import RedactingStream, redact
from sluice_redaction.domain.vault import Entry, Vault


@pytest.fixture(scope="module")
def detector() -> ListedDetector:
    return DetectorFactory()()


@pytest.fixture(scope="module")
def patterns() -> PatternDetector:
    """Presidio's and our patterns without the models: fast, and the only ones that cost more on odd texts."""
    return PatternDetector(pattern_sources(("US", "GB")))


def redacted(detector: ListedDetector, text: str, policy: Policy | None = None) -> str:
    return redact([text], [detect(text, detector, policy or Policy())], Vault()).texts[0].text


_PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq\nqqXw9+/a==\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My name is John Smith.", "My name is <PERSON_1>."),
        ("Mail john.smith@example.com please.", "Mail <EMAIL_ADDRESS_1> please."),
        ("mail t.brackenwold@quillmoor.local or x@y.internal", "mail <EMAIL_ADDRESS_1> or <EMAIL_ADDRESS_2>"),
        ("mail me: bob@corp.example", "mail me: <EMAIL_ADDRESS_1>"),
        ("Ask otto.quellmann@zyx.example now.", "Ask <EMAIL_ADDRESS_1> now."),
        ("Call me at +1 212 555 0123.", "Call me at <PHONE_NUMBER_1>."),
        ("Reach us on 001-340-909-1714x521.", "Reach us on <PHONE_NUMBER_1>."),
        ("My card is 4111 1111 1111 1111.", "My card is <CREDIT_CARD_1>."),
        ("IBAN: DE89370400440532013000", "IBAN: <IBAN_CODE_1>"),
        ("Her SSN is 536-90-4399.", "Her SSN is <US_SSN_1>."),
        ("The server is 10.1.2.3.", "The server is <IP_ADDRESS_1>."),
        ("I was born on 3 April 1985.", "I was born on <DATE_OF_BIRTH_1>."),
        ("DOB: 12/03/1980", "DOB: <DATE_OF_BIRTH_1>"),
        ("MRN 00123456", "MRN <MEDICAL_RECORD_NUMBER_1>"),
        ("Patient ID: AB-123456 was seen.", "Patient ID: <MEDICAL_RECORD_NUMBER_1> was seen."),
        ("I live at 12 Main Street, Springfield, IL 62704.", "I live at <STREET_ADDRESS_1>."),
        ("key sk-proj-abcdefghijklmnopqrstuvwxyz123456", "key <API_KEY_1>"),
        ("token ghp_abcdefghijklmnopqrstuvwxyz0123456789", "token <API_KEY_1>"),
        ("AKIAIOSFODNN7EXAMPLE", "<API_KEY_1>"),
        ("password: hunter2!!", "password: <PASSWORD_1>"),
        ("my password is hunter2", "my password is <PASSWORD_1>"),
        ("Authorization: Bearer abcdef0123456789abcdef", "Authorization: Bearer <API_KEY_1>"),
        ("postgres://app:s3cretpw@db.local/x", "postgres://<USERNAME_1>:<PASSWORD_1>@db.local/x"),
        (f"Here:\n{_PEM}\nthanks", "Here:\n<API_KEY_1>\nthanks"),
    ],
)
def test_personal_data_is_found(detector: ListedDetector, text: str, expected: str) -> None:
    assert redacted(detector, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France? Paris, of course.",
        "Write a Python function that reads README.md and main.py.",
        "Order 123456789 ships in 3 to 5 days.",
        "The Treaty of Versailles was signed on 28 June 1919.",
        "Compare Python and Java. What about Rust?",
        "The password is wrong and the token has expired.",
        "Use asyncio.run(main()) on https://docs.python.org.",
        "Version 10.4.2 of the library fixes bug 48213.",
    ],
)
def test_what_only_looks_personal_is_left_alone(detector: ListedDetector, text: str) -> None:
    assert redacted(detector, text) == text


def test_places_companies_dates_and_addresses_of_pages_are_found_when_asked_for(detector: ListedDetector) -> None:
    text = "Microsoft opened an office in Berlin on Monday: see https://example.com/a."
    policy = Policy.of(["ORGANIZATION", "LOCATION", "DATE_TIME", "URL"])
    assert redacted(detector, text, policy) == (
        "<ORGANIZATION_1> opened an office in <LOCATION_1> on <DATE_TIME_1>: see <URL_1>."
    )


_PIECES = st.sampled_from(
    [
        "Dear ", "John Smith", "Maria Garcia", " wrote to ", "ann.lee@example.com", ". ", ", ", "\n", " ", "My card is ",
        "4111 1111 1111 1111", "I live at ", "12 Main Street", "Springfield, IL 62704", "call +1 212 555 0123", "! ",
        "sk-proj-abcdefghijklmnopqrstuvwxyz123456", _PEM, "<PERSON_1>", "<person 2>", "Dr. ", "born on 3 April 1985",
        "john dot smith at example dot com", "Jоhn Smіth", "jo\u200bhn@example.com", "four one one one ", "**Ann Lee**", "(at) ",
        "the quick brown fox ", "SSN 536-90-4399", "Paris", " is lovely", "'s", "🙂", "Zoë",
    ]
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.lists(_PIECES, max_size=14).map("".join), places=st.lists(st.integers(0, 9_999), max_size=20))
def test_any_chunking_gives_what_one_chunk_gives(detector: ListedDetector, text: str, places: list[int]) -> None:
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    chunks = [text[start:end] for start, end in itertools.pairwise(edges)]
    assert streamed(detector, chunks) == streamed(detector, [text])


def streamed(detector: ListedDetector, chunks: list[str]) -> str:
    stream = RedactingStream(Policy(), Vault([Entry("<PERSON_1>", "Bob Ray", "PERSON")]))
    released = ""
    for chunk in chunks:
        stream.push(chunk)
        while stream.has_work():
            released += stream.step(detector).text
    while stream.has_work(final=True):
        released += stream.step(detector, final=True).text
    return released + stream.finish().text


def test_a_value_deep_in_a_long_text_is_found_at_its_place(detector: ListedDetector) -> None:
    text = (
        "The committee met again and nothing was decided. " * 150
        + "Write to ann.lee@example.com. "
        + "So it goes. " * 200
    )
    found = detect(text, detector, Policy())
    assert [text[one.start : one.end] for one in found] == ["ann.lee@example.com"]


_HOSTILE = [
    "a.", "1", "1-", "@", "a@", "a@b.", "<", "<PERSON_", "password=", "password is ", "born ", "born 1 ", "patient id ", "12 A ",
    "http://", "www.", "eyJ", "eyJaaaaaaaaaaaa.", "aws ", "ab://a:", "+1 212 ", "(", "phone 1", "Jan 1 ", "DE89 ", "sk-", " ", "\n",
    "-----BEGIN PRIVATE KEY-----", "x.com/", "ff:", "'\"http", "Abc ",
]  # fmt: skip


@pytest.mark.parametrize("unit", _HOSTILE)
def test_patterns_stay_linear_on_hostile_texts(patterns: PatternDetector, unit: str) -> None:
    policy = Policy(kinds=frozenset(KINDS))
    text = (unit * 20_000)[:20_000]
    begun = time.process_time()
    redact([text], [detect(text, patterns, policy)], Vault())
    # About 0.1 s on an idle core; a quadratic pattern needs minutes. Process time, so that neighbours do not count.
    assert time.process_time() - begun < 6


def test_nothing_touches_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a name was looked up or a connection opened")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    offline = DetectorFactory()()
    assert redacted(offline, "Mail ann.lee@example.co.uk, John Smith.") == "Mail <EMAIL_ADDRESS_1>, <PERSON_1>."
