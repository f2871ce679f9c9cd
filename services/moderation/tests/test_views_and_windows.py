"""The domain: views of a text, and where it is cut into windows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_moderation.domain.identity import neutralise
from sluice_moderation.domain.normalisation import views
from sluice_moderation.domain.windows import MAX_SENTENCE_CHARACTERS, SentenceCutter, sentences_of, windowed


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("y0u are an 1d10t", "you are an idiot"),
        ("you i d i o t", "you idiot"),
        ("k.i.l.l them", "kill them"),
        ("fuuuuck", "fuck"),
        ("ｆｕｌｌ width", "full width"),
        ("раураl", "paypal"),  # Cyrillic р, а, у
        ("ig\u200bnore\u00ad all", "ignore all"),
        ("tab\tand\x00control", "tab and control"),
        ("caf\u00e9 cr\u00e8me", "cafe creme"),
    ],
)
def test_a_disguised_text_is_also_seen_without_its_disguise(text: str, seen: str) -> None:
    assert seen in views(text)


@pytest.mark.parametrize("sign", ["🖕", "\ufdfa", "哈"])
def test_a_flood_of_one_sign_is_no_longer_than_three_of_it(sign: str) -> None:
    assert views(f"so {sign * 400} there") == views(f"so {sign * 3} there")


@pytest.mark.parametrize("text", ["You owe me 100 dollars, wow!", "Version 3.5 is out.", "Hello there", "a b c"])
def test_an_ordinary_text_has_one_view(text: str) -> None:
    assert len(views(text)) == 1


@pytest.mark.parametrize(
    ("text", "neutral", "groups"),
    [
        ("I am a gay man", "I am a person", ("gender", "sexual_orientation")),
        ("gay people are disgusting", "people are disgusting", ("sexual_orientation",)),
        ("Kill all Jews", "Kill all people", ("religion",)),
        ("I am black", "I am human", ("ethnicity",)),
        ("black coffee and white wine", "black coffee and white wine", ()),
        ("Jewelry from India", "Jewelry from India", ()),
    ],
)
def test_identity_terms_become_neutral_and_are_named_by_group(text: str, neutral: str, groups: tuple[str, ...]) -> None:
    found = neutralise(text)
    assert (found.text, found.groups) == (neutral, groups)


TEXTS = st.text(alphabet=st.sampled_from("ab .!?\n\"'é3d。"), max_size=900)


@given(TEXTS)
@settings(deadline=None)  # the machine may be busy
def test_the_sentences_of_a_text_are_the_text(text: str) -> None:
    sentences = sentences_of(text)
    assert "".join(sentences) == text
    assert all(0 < len(sentence) <= MAX_SENTENCE_CHARACTERS for sentence in sentences)


@given(TEXTS, st.lists(st.integers(1, 60), max_size=40))
@settings(deadline=None)  # the machine may be busy
def test_any_chunking_cuts_the_same_sentences_and_holds_little(text: str, sizes: list[int]) -> None:
    cutter, found, start = SentenceCutter(), [], 0
    for size in [*sizes, len(text)]:
        found += cutter.feed(text[start : start + size])
        start += size
        assert cutter.held_characters < MAX_SENTENCE_CHARACTERS
    assert found + cutter.finish() == sentences_of(text)


def test_every_character_of_a_long_text_without_sentence_ends_is_in_a_window() -> None:
    text = "word " * 1000
    assert "".join(sentences_of(text)) == text
    assert sum(map(len, windowed(text))) <= 3 * len(text)


def test_many_tiny_sentences_do_not_make_many_windows() -> None:
    assert len(list(windowed("a. " * 10_000))) <= 2 * 30_000 / 16
