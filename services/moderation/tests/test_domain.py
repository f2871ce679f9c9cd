"""The domain: views, windows, policies and the streaming gate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_moderation.domain.detector import CATEGORIES, PROMPT_INJECTION, TOXICITY, Scores
from sluice_moderation.domain.gate import Gate
from sluice_moderation.domain.identity import neutralise
from sluice_moderation.domain.judgement import Judgement, Panel
from sluice_moderation.domain.normalisation import views
from sluice_moderation.domain.policy import Action, Direction, Policy, Rule
from sluice_moderation.domain.windows import MAX_SENTENCE_CHARACTERS, SentenceCutter, sentences_of, windowed

POLICY = Policy(
    "test",
    3,
    "",
    (Rule(TOXICITY, Direction.OUTPUT, 0.5, Action.FLAG), Rule(TOXICITY, Direction.OUTPUT, 0.8, Action.BLOCK)),
    True,
)


class WordDetector:
    """Scores 0.9 for `bad`, 0.6 for `meh`, else 0.1."""

    name, digest, categories = "words", "sha256:0", (TOXICITY,)

    def scores(self, texts: list[str]) -> Scores:
        return np.array(
            [[0.9 if "bad" in t.lower() else 0.6 if "meh" in t.lower() else 0.1] for t in texts], np.float32
        )


class BrokenDetector(WordDetector):
    name = "broken"

    def scores(self, texts: list[str]) -> Scores:
        raise RuntimeError("weights are gone")


PANEL = Panel([WordDetector()])


def stream(chunks: list[str], panel: Panel = PANEL, policy: Policy = POLICY) -> tuple[str, Gate]:
    gate = Gate(Judgement(policy, Direction.OUTPUT, "en"))
    names = panel.needed(policy.categories(Direction.OUTPUT))
    released = ""
    for held in [*map(gate.feed, chunks), gate.finish()]:
        for sentence in held:
            released += gate.settle(sentence, panel.score(sentence.windows, names))
    return released, gate


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


SENTENCES = st.lists(
    st.sampled_from(
        ["This is fine. ", "So is this one here! ", "This one is really bad. ", "meh, they said today.\n", "x"]
    ),
    max_size=8,
)


@given(SENTENCES, st.lists(st.integers(1, 25), max_size=30))
@settings(max_examples=200, deadline=None)
def test_any_chunking_of_a_stream_releases_the_same_text_and_gives_the_same_verdict(
    parts: list[str], sizes: list[int]
) -> None:
    text = "".join(parts)
    chunks, start = [], 0
    for size in [*sizes, len(text)]:
        chunks.append(text[start : start + size])
        start += size
    whole, whole_gate = stream([text])
    released, gate = stream(chunks)
    assert released == whole
    assert gate.judgement.verdict("d", PANEL) == whole_gate.judgement.verdict("d", PANEL)
    assert "bad" not in released
    assert text.startswith(released)


@given(SENTENCES)
@settings(deadline=None)  # the machine may be busy
def test_a_harmless_stream_comes_out_whole(parts: list[str]) -> None:
    text = "".join(parts).replace("bad", "good")
    assert stream([text])[0] == text


def test_no_character_of_a_blocked_sentence_and_nothing_after_it_is_released() -> None:
    released, gate = stream(["This is fine and dandy. This one is ", "bad, very. And this would have been fine."])
    assert released == "This is fine and dandy. "
    assert gate.is_blocked
    assert gate.judgement.verdict("d", PANEL).action is Action.BLOCK


def test_a_word_that_a_forced_cut_splits_is_still_seen() -> None:
    _, gate = stream(["a" * (MAX_SENTENCE_CHARACTERS - 1) + "bad" + "a" * 50])
    assert gate.judgement.verdict("d", PANEL).action is Action.BLOCK


def test_a_flagged_stream_is_released_and_says_so() -> None:
    released, gate = stream(["That was rather meh today."])
    verdict = gate.judgement.verdict("d", PANEL)
    assert (released, verdict.action) == ("That was rather meh today.", Action.FLAG)
    assert (verdict.deciding.score, verdict.deciding.threshold) == (0.6, 0.5)


def test_what_the_policy_leaves_out_is_not_run_and_is_named_as_skipped() -> None:
    panel = Panel([BrokenDetector()])
    judgement = Judgement(Policy("none", 1, "", (), True), Direction.OUTPUT, "en")
    assert panel.needed(judgement.categories) == frozenset()
    assert {s.check for s in judgement.verdict("d", panel).skipped if s.reason == "not_in_policy"} == set(CATEGORIES)


@pytest.mark.parametrize(
    ("fail_closed", "action", "released"), [(True, Action.BLOCK, ""), (False, Action.SKIPPED, "All is well today.")]
)
def test_a_broken_detector_blocks_where_the_policy_fails_closed_and_is_named_where_not(
    fail_closed: bool, action: Action, released: str
) -> None:
    panel = Panel([BrokenDetector()])
    policy = Policy("p", 1, "", POLICY.rules, fail_closed)
    text, gate = stream(["All is well today."], panel, policy)
    verdict = gate.judgement.verdict("d", panel)
    assert (text, verdict.action) == (released, action)
    assert [s.reason for s in verdict.skipped if s.check == TOXICITY] == ["detector_error"]


def test_another_language_is_judged_but_marked_as_untested() -> None:
    judgement = Judgement(POLICY, Direction.OUTPUT, "de")
    judgement.add("a", ["bad"], PANEL.score(["bad"], frozenset({"words"})))
    verdict = judgement.verdict("d", PANEL)
    assert verdict.action is Action.BLOCK
    assert [s.check for s in verdict.skipped if s.reason == "language_untested"] == [TOXICITY]


def test_offending_segments_are_named_in_order() -> None:
    judgement = Judgement(POLICY, Direction.OUTPUT, "en")
    for segment_id, text in [("a", "bad"), ("b", "fine"), ("c", "meh"), ("d", "")]:
        windows = list(windowed(text))
        judgement.add(segment_id, windows, PANEL.score(windows, frozenset({"words"})))
    assert judgement.offending_segment_ids == ("a", "c")
    assert PROMPT_INJECTION not in judgement.categories
