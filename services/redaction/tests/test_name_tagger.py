"""The name tagger: how it reads words, that batches change nothing, and what it finds."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_redaction.adapters.name_tagger import NameTagger, TaggerModel
from sluice_redaction.adapters.word_features import Lexicon, key_of, words_of
from sluice_redaction.domain.names import names_in


@pytest.fixture(scope="module")
def tagger() -> NameTagger:
    return NameTagger(TaggerModel())


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    keys = sorted((key_of(word), row) for row, word in enumerate(("priya", "o", "00"), 2))
    columns = (np.array([key for key, _ in keys], np.uint32), np.array([row for _, row in keys], np.int32))
    return Lexicon(*columns, np.zeros(3, np.uint8), np.zeros(3, np.uint8))


def people(tagger: NameTagger, text: str) -> list[str]:
    found = [name for one in tagger.find(text) if one.kind == "PERSON" for name in names_in(one, text)]
    return [text[one.start : one.end] for one in found]


def test_words_are_runs_of_letters_or_digits_and_single_signs(lexicon: Lexicon) -> None:
    text = "Ann O'Neil,  12A --x\n\né😀"
    words = words_of(text, lexicon)
    assert [text[start:end] for start, end in zip(words.starts, words.ends, strict=True)] == [
        "Ann", "O", "'", "Neil", ",", "12", "A", "--", "x", "\n\n", "é", "😀",
    ]  # fmt: skip


@pytest.mark.parametrize("written", ["priya", "Priya", "PRIYA", "Príya", "Ｐｒｉｙａ"])
def test_a_word_is_known_in_any_case_width_and_with_accents(lexicon: Lexicon, written: str) -> None:
    assert words_of(f"hi {written}!", lexicon).features[1, 0] == words_of("priya", lexicon).features[0, 0] != 0


def test_every_digit_is_the_same_digit(lexicon: Lexicon) -> None:
    assert words_of("12", lexicon).features[0, 0] == words_of("98", lexicon).features[0, 0] == 4


@given(text=st.text(max_size=60), before=st.text(max_size=20))
def test_what_stands_before_a_line_end_changes_no_word_behind_it(lexicon: Lexicon, text: str, before: str) -> None:
    alone = words_of("\n" + text, lexicon)
    behind = words_of(before + "x\n" + text, lexicon)
    count = len(alone.starts)
    assert np.array_equal(behind.features[-count + 1 :, 1:5], alone.features[1:, 1:5]) or count == 1
    assert np.array_equal(behind.ends[-count:] - len(before) - 1, alone.ends)


_PIECES = st.sampled_from(
    ["John Smith", "my name is priya raghunathan", " ", "\n", "12 Main Street, Springfield", "!", "😀", "Dr. Lee", "x" * 40, "a.b", "и"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.lists(_PIECES, max_size=6).map(" ".join), max_size=7))
def test_texts_read_together_give_what_each_gives_alone(tagger: NameTagger, texts: list[str]) -> None:
    together = [list(one.findings()) for one in tagger.tag_all(texts)]
    for text, found in zip(texts, together, strict=True):
        alone = tagger.find(text)
        assert [(one.start, one.end, one.kind) for one in found] == [(one.start, one.end, one.kind) for one in alone]
        assert all(abs(one.score - other.score) < 1e-5 for one, other in zip(found, alone, strict=True))


def test_a_long_batch_is_cut_and_stays_in_order(tagger: NameTagger) -> None:
    chance = random.Random(1)
    texts = ["word " * chance.randint(0, 700) + "call Maria Garcia" for _ in range(12)]
    assert [found[-1].end for found in ([*one.findings()] for one in tagger.tag_all(texts))] == [
        len(text) for text in texts
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("My name is John Smith.", ["John Smith"]),
        ("my name is priya raghunathan and i live in pune", ["priya raghunathan"]),
        ("DEAR MR. OKONKWO, YOUR FLIGHT IS LATE", ["OKONKWO"]),
        ("Dr. Maria Garcia-Lopez was seen by Anna.", ["Maria Garcia-Lopez", "Anna"]),
        ("hi it's mehmet, can you ask Thandiwe?", ["mehmet", "Thandiwe"]),
        ('{"name": "Wei Zhang", "id": 7}', ["Wei Zhang"]),
        ("From: Siobhan O'Neill <s@example.com>", ["Siobhan O'Neill"]),
        ("Krzysztof's sister Agnieszka called.", ["Krzysztof", "Agnieszka"]),
    ],
)
def test_names_are_found_however_they_are_written(tagger: NameTagger, text: str, names: list[str]) -> None:
    assert people(tagger, text) == names


@pytest.mark.parametrize(
    "text",
    [
        "May I ask whether Grace under pressure can be learnt?",
        "Compare Python and Java. How do Kafka and Redis differ?",
        'if __name__ == "__main__": asyncio.run(main())',
        "Turing machines, Bayes nets and Markov chains are models.",
        "Will it rain in April or in June?",
        "Summarise the following text in three sentences.",
        "",
        " \n ",
        "1234 5678",
    ],
)
def test_what_only_looks_like_a_name_is_left_alone(tagger: NameTagger, text: str) -> None:
    assert people(tagger, text) == []


def test_findings_lie_in_the_text_in_order_and_carry_their_probability(tagger: NameTagger) -> None:
    text = "Ann Lee (12 Oak Road, Leeds) met Bob at Siemens in Berlin. " * 40
    found = tagger.find(text)
    assert all(one.end <= other.start for one, other in itertools.pairwise(found))
    assert all(0 <= one.start < one.end <= len(text) and 0 < one.score <= 1 for one in found)
    assert {"PERSON", "LOCATION", "STREET_ADDRESS"} <= {one.kind for one in found}
    assert {one.recognizer for one in found} == {"NameTagger"}
