"""Values split over the texts of one request: both parts are found, each is replaced, each comes back to its place."""

import pytest
from sluice_redaction.adapters.offline import use_packaged_suffix_list
from sluice_redaction.adapters.patterns.detector import PatternDetector
from sluice_redaction.adapters.patterns.sources import pattern_sources
from sluice_redaction.domain.across import across, chains
from sluice_redaction.domain.detection import detect
from sluice_redaction.domain.policy import Policy
from sluice_redaction.domain.redaction import redact
from sluice_redaction.domain.restoring import restore
from sluice_redaction.domain.vault import Vault


@pytest.fixture(scope="module")
def patterns() -> PatternDetector:
    use_packaged_suffix_list()
    return PatternDetector(pattern_sources(("US", "GB")))


def parts(patterns: PatternDetector, texts: list[str]) -> list[list[str]]:
    found = across(texts, [detect(text, patterns, Policy()) for text in texts], patterns, Policy())
    return [[text[one.start : one.end] for one in findings] for text, findings in zip(texts, found, strict=True)]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["my card is 4111 1111", "1111 1111"], [["4111 1111"], ["1111 1111"]]),
        (["my card is 4111 1111 ", " 1111 1111, thanks"], [["4111 1111"], ["1111 1111"]]),
        (["4111", "1111", "1111", "1111"], [["4111"], ["1111"], ["1111"], ["1111"]]),
        (["my card is 4111 1111", "Go on, please.", "1111 1111"], [["4111 1111"], [], ["1111 1111"]]),
        (["the card: 4111 1111", "and the rest is 1111 1111."], [["4111 1111"], ["1111 1111"]]),
        (["write to john.smith@exam", "ple.com please"], [["john.smith@exam"], ["ple.com"]]),
        (["write to john.smith", "@example.com"], [["john.smith"], ["@example.com"]]),
        (["john dot smith at", "example dot com"], [["john dot smith at"], ["example dot com"]]),
        (["sk-proj-abcdefghijklmnop", "qrstuvwxyz123456"], [["sk-proj-abcdefghijklmnop"], ["qrstuvwxyz123456"]]),
        (
            ["it is four one one one one one one one", "one one one one one one one one"],
            [["four one one one one one one one"], ["one one one one one one one one"]],
        ),
        (["４１１１ １１１１", "１１１１ １１１１"], [["４１１１ １１１１"], ["１１１１ １１１１"]]),
    ],
)  # fmt: skip
def test_both_parts_of_a_split_value_are_found(
    patterns: PatternDetector, texts: list[str], expected: list[list[str]]
) -> None:
    assert parts(patterns, texts) == expected


@pytest.mark.parametrize(
    "texts",
    [
        ["I have 3", "apples and 4 pears"],
        ["The code is 1234", "5678 is the other"],
        ["john@example.com", "thanks"],
        ["Write to john@example.com.", "Bob will"],
        ["Meet me at", "noon, dot your i's"],
        ["One of the two", "one of the three"],
        ["Fine.", "Fine."],
        ["", ""],
        ["Version 1.2.345", "678 bugs were fixed"],
    ],
)
def test_texts_that_only_follow_each_other_are_left_alone(patterns: PatternDetector, texts: list[str]) -> None:
    assert parts(patterns, texts) == [
        [text[one.start : one.end] for one in detect(text, patterns, Policy())] for text in texts
    ]


def test_each_part_is_replaced_and_comes_back_to_its_place(patterns: PatternDetector) -> None:
    texts = ["my card is 4111 1111", "That is wrong, it is", "1111 1111", "john.smith@exam", "ple.com"]
    vault = Vault()
    found = across(texts, [detect(text, patterns, Policy()) for text in texts], patterns, Policy())
    sent = [one.text for one in redact(texts, found, vault).texts]
    assert sent == [
        "my card is <CREDIT_CARD_1>",
        "That is wrong, it is",
        "<CREDIT_CARD_2>",
        "<EMAIL_ADDRESS_1>",
        "<EMAIL_ADDRESS_2>",
    ]
    assert [restore(text, vault).text for text in sent] == texts


def test_a_part_says_that_it_was_split(patterns: PatternDetector) -> None:
    texts = ["my card is 4111 1111", "1111 1111"]
    found = across(texts, [[], []], patterns, Policy())
    assert [(one.kind, one.disguise) for findings in found for one in findings] == [("CREDIT_CARD", "split")] * 2


def test_where_no_value_can_run_over_no_detector_is_asked() -> None:
    assert chains(["The quick brown fox.", "jumps over", "the lazy dog", "and is gone."]) == []
