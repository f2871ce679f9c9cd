"""The domain: verdicts over sentences, the streaming gate, redaction, holds and shadows."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_moderation.domain.detector import CATEGORIES, Scores
from sluice_moderation.domain.gate import Gate
from sluice_moderation.domain.hearing import Hearing, marked, released
from sluice_moderation.domain.judgement import Judgement
from sluice_moderation.domain.panel import Panel, unscored
from sluice_moderation.domain.policy import Action, Direction, Policy, Rule
from sluice_moderation.domain.sentences import Sentence, Text, read
from sluice_moderation.domain.terms import DeniedTerm, Terms
from sluice_moderation.domain.windows import MAX_SENTENCE_CHARACTERS

OUTPUT = Direction.OUTPUT


class WordDetector:
    """toxicity: 0.9 for `bad`, 0.6 for `meh`, else 0.1. insult: 0.7 for `oaf`. threat: 0.9 where `wait` stands before `and see`."""

    name, digest, categories = "words", "sha256:0", ("toxicity", "insult", "threat")

    def scores(self, texts: Sequence[str]) -> Scores:
        return np.array([self._score(text.lower()) for text in texts], np.float32).reshape(-1, 3)

    def _score(self, text: str) -> tuple[float, float, float]:
        toxicity = 0.9 if "bad" in text else 0.6 if "meh" in text else 0.1
        return (
            toxicity,
            0.7 if "oaf" in text else 0.0,
            0.9 if "wait" in text.partition("and see")[0] and "and see" in text else 0.0,
        )


class BrokenDetector(WordDetector):
    name = "broken"

    def scores(self, texts: Sequence[str]) -> Scores:
        raise RuntimeError("weights are gone")


PANEL = Panel([WordDetector()])


def policy(*rules: tuple[str, float, Action], fail_closed: bool = True, **fields: object) -> Policy:
    """A policy for output with these (category, threshold, action)."""
    made = tuple(Rule(category, OUTPUT, threshold, action) for category, threshold, action in rules)
    return Policy(str(fields.pop("policy_id", "test")), 3, "", made, fail_closed, **fields)  # type: ignore[arg-type]


FLAG_THEN_BLOCK = policy(("toxicity", 0.5, Action.FLAG), ("toxicity", 0.8, Action.BLOCK))
REDACTING = policy(("toxicity", 0.8, Action.REDACT), ("insult", 0.5, Action.REDACT), ("threat", 0.5, Action.BLOCK))


def stream(
    chunks: Sequence[str], *, panel: Panel = PANEL, under: Policy = FLAG_THEN_BLOCK, shadows: Sequence[Policy] = ()
) -> tuple[str, Gate]:
    """The released text and the gate after a stream in these pieces."""
    enforced = Judgement(under, OUTPUT, "en", panel)
    gate = Gate(Hearing(enforced, [Judgement(s, OUTPUT, "en", panel, enforced.detectors) for s in shadows]))
    released = ""
    for sentences in [*map(gate.feed, chunks), gate.finish()]:
        for sentence in sentences:
            windows = [window.text for window in sentence.windows]
            released += gate.settle(sentence, panel.score(windows, enforced.detectors))
    return released, gate


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    """The text in pieces of these sizes, and the rest."""
    pieces, start = [], 0
    for size in [*sizes, len(text)]:
        pieces.append(text[start : start + size])
        start += size
    return pieces


PARTS = st.lists(
    st.sampled_from(
        [
            "This is fine. ", "So is this one here! ", "This one is really bad. ", "meh, they said today.\n", "x", "You great oaf, you. ",
            "I can wait for you. ", "Let us go and see it. ", "这是一个很长的句子没有空格而且是 bad 的。", "y" * 500, "\n\n", "👩‍👩‍👧 is a family! ",
        ]
    ),
    max_size=8,
)  # fmt: skip
POLICIES = st.sampled_from(
    [
        FLAG_THEN_BLOCK,
        REDACTING,
        policy(("toxicity", 0.5, Action.REDACT), ("toxicity", 0.8, Action.HOLD)),
        policy(("threat", 0.5, Action.REDACT), ("insult", 0.5, Action.FLAG)),
        policy(
            ("insult", 0.5, Action.REDACT), terms=Terms((DeniedTerm("family", Action.REDACT, frozenset({OUTPUT})),))
        ),
    ]
)


@given(PARTS, st.lists(st.integers(1, 25), max_size=60), POLICIES, st.lists(POLICIES, max_size=2))
@settings(max_examples=300, deadline=None)
def test_any_chunking_of_a_stream_releases_the_same_text_and_gives_the_same_verdicts(
    parts: list[str], sizes: list[int], under: Policy, shadows: list[Policy]
) -> None:
    text = "".join(parts)
    whole, whole_gate = stream([text], under=under, shadows=shadows)
    released_text, gate = stream(cut(text, sizes), under=under, shadows=shadows)
    assert released_text == whole
    judgements = (gate.hearing.enforced, *gate.hearing.shadows)
    expected = (whole_gate.hearing.enforced, *whole_gate.hearing.shadows)
    assert [j.verdict("d") for j in judgements] == [j.verdict("d") for j in expected]
    assert [j.offences for j in judgements] == [j.offences for j in expected]


@given(PARTS, POLICIES, st.lists(POLICIES, min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_a_shadow_never_changes_what_is_released_nor_the_verdict(
    parts: list[str], under: Policy, shadows: list[Policy]
) -> None:
    text = "".join(parts)
    alone, gate_alone = stream([text], under=under)
    beside, gate = stream([text], under=under, shadows=shadows)
    assert beside == alone
    assert gate.hearing.enforced.verdict("d") == gate_alone.hearing.enforced.verdict("d")
    assert gate.hearing.enforced.offences == gate_alone.hearing.enforced.offences


@given(PARTS, POLICIES)
@settings(max_examples=200, deadline=None)
def test_a_whole_text_and_a_stream_of_it_get_the_same_verdict_and_the_same_replacements(
    parts: list[str], under: Policy
) -> None:
    text = "".join(parts)
    streamed, gate = stream([text], under=under)
    judgement = Judgement(under, OUTPUT, "en", PANEL)
    whole = whole_text(judgement, text)
    if not gate.is_closed:
        assert judgement.verdict("d") == gate.hearing.enforced.verdict("d")
        assert whole == streamed


def whole_text(judgement: Judgement, text: str) -> str:
    return "".join(
        released(s, judgement.add(s, PANEL.score([w.text for w in s.windows], judgement.detectors)))
        for s in read([Text("stream", text)])
    )


@given(PARTS)
@settings(deadline=None)
def test_a_harmless_stream_comes_out_whole(parts: list[str]) -> None:
    text = "".join(parts).replace("bad", "good")
    assert stream([text])[0] == text


def test_no_character_of_a_blocked_sentence_and_nothing_after_it_is_released() -> None:
    text, gate = stream(["This is fine and dandy. This one is ", "bad, very. And this would have been fine."])
    assert text == "This is fine and dandy. "
    assert gate.is_closed
    assert gate.hearing.enforced.verdict("d").action is Action.BLOCK


def test_a_held_stream_ends_like_a_blocked_one_and_says_held() -> None:
    text, gate = stream(
        ["This is fine and dandy. This one is bad, very. More."], under=policy(("toxicity", 0.8, Action.HOLD))
    )
    assert (text, gate.is_closed) == ("This is fine and dandy. ", True)
    assert gate.hearing.enforced.verdict("d").action is Action.HOLD


def test_a_redacted_sentence_becomes_a_marker_and_the_rest_goes_on() -> None:
    text, gate = stream(["This is fine and dandy. You great oaf, you.\nAnd this is fine, too."], under=REDACTING)
    assert text == "This is fine and dandy. [removed: insult]\nAnd this is fine, too."
    verdict = gate.hearing.enforced.verdict("d")
    assert (verdict.action, gate.hearing.enforced.redacted_sentences) == (Action.REDACT, 1)


def test_a_replaced_sentence_does_not_drag_its_harmless_neighbour_along() -> None:
    text, gate = stream(["This one is really bad. A harmless one follows. And another one here."], under=REDACTING)
    assert text == "[removed: toxicity] A harmless one follows. And another one here."
    assert [(o.sentence, o.joined) for o in gate.hearing.enforced.offences] == [(0, False)]


def test_a_replaced_sentence_still_counts_for_what_it_was_not_replaced_for() -> None:
    text, gate = stream(["Wait, you great oaf! Then go and see what comes."], under=REDACTING)
    assert text == "[removed: insult] "
    assert gate.hearing.enforced.verdict("d").deciding.category == "threat"


def test_what_is_harmful_only_together_replaces_the_later_sentence() -> None:
    under = policy(("threat", 0.5, Action.REDACT))
    text, gate = stream(["I shall wait for you. Let us go and see it. All good now."], under=under)
    assert text == "I shall wait for you. [removed: threat] All good now."
    (offence,) = gate.hearing.enforced.offences
    assert (offence.sentence, offence.start, offence.end, offence.joined) == (1, 22, 44, True)


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [(" oaf. ", " [removed: insult] "), ("oaf\n", "[removed: insult]\n"), ("oaf", "[removed: insult]"), (" \n", " \n")],
)
def test_a_marker_stands_between_the_white_space_of_its_sentence(sentence: str, shown: str) -> None:
    assert marked(sentence, "insult") == shown


def test_a_word_that_a_forced_cut_splits_is_still_seen() -> None:
    _, gate = stream(["a" * (MAX_SENTENCE_CHARACTERS - 1) + "bad" + "a" * 50])
    assert gate.hearing.enforced.verdict("d").action is Action.BLOCK


def test_a_flagged_stream_is_released_and_says_so() -> None:
    text, gate = stream(["That was rather meh today."])
    verdict = gate.hearing.enforced.verdict("d")
    assert (text, verdict.action) == ("That was rather meh today.", Action.FLAG)
    assert (verdict.deciding.score, verdict.deciding.threshold) == (0.6, 0.5)


def test_what_the_policy_leaves_out_is_not_run_and_is_named_as_skipped() -> None:
    judgement = Judgement(policy(), OUTPUT, "en", Panel([BrokenDetector()]))
    assert judgement.detectors == frozenset()
    assert {s.check for s in judgement.verdict("d").skipped if s.reason == "not_in_policy"} == set(CATEGORIES)


@pytest.mark.parametrize(
    ("fail_closed", "action", "text"), [(True, Action.BLOCK, ""), (False, Action.SKIPPED, "All is well today.")]
)
@pytest.mark.parametrize("reason", ["detector_error", "deadline"])
def test_a_check_that_was_not_made_blocks_where_the_policy_fails_closed_and_is_named_where_not(
    fail_closed: bool, action: Action, text: str, reason: str
) -> None:
    judgement = Judgement(policy(("toxicity", 0.8, Action.BLOCK), fail_closed=fail_closed), OUTPUT, "en", PANEL)
    (sentence,) = read([Text("a", "All is well today.")])
    outcome = judgement.add(sentence, unscored(1, {"words": reason}))
    assert released(sentence, outcome) == text
    assert judgement.verdict("d").action is action
    assert [s.reason for s in judgement.verdict("d").skipped if s.check == "toxicity"] == [reason]


@pytest.mark.parametrize("first", [True, False])
def test_what_a_detector_found_before_it_failed_still_counts_where_the_policy_fails_open(first: bool) -> None:
    judgement = Judgement(policy(("toxicity", 0.8, Action.BLOCK), fail_closed=False), OUTPUT, "en", PANEL)
    bad, calm = read([Text("a", "This one is really bad."), Text("b", "All is well today.")])
    failed = unscored(1, {"words": "deadline"})
    scored = PANEL.score([bad.text], judgement.detectors)
    for sentence, found in ((bad, scored), (calm, failed)) if first else ((calm, failed), (bad, scored)):
        judgement.add(sentence, found)
    verdict = judgement.verdict("d")
    assert verdict.action is Action.BLOCK
    assert verdict.deciding is not None
    assert ("toxicity", "deadline") in [(s.check, s.reason) for s in verdict.skipped]


class NumberlessDetector(WordDetector):
    def scores(self, texts: Sequence[str]) -> Scores:
        return np.full((len(texts), 3), np.nan, np.float32)


class ShapelessDetector(WordDetector):
    def scores(self, texts: Sequence[str]) -> Scores:
        return super().scores(texts)[:, :1]


@pytest.mark.parametrize("detector", [NumberlessDetector(), ShapelessDetector()])
def test_scores_that_are_no_numbers_or_too_few_are_a_failure_and_never_harmless(detector: WordDetector) -> None:
    text, gate = stream(["All is well today."], panel=Panel([detector]))
    assert text == ""
    assert gate.hearing.enforced.verdict("d").action is Action.BLOCK


def test_a_broken_detector_is_named_as_failed() -> None:
    text, gate = stream(["All is well today."], panel=Panel([BrokenDetector()]))
    assert text == ""
    assert ("toxicity", "detector_error") in [(s.check, s.reason) for s in gate.hearing.enforced.verdict("d").skipped]


def test_a_category_without_a_detector_is_skipped_and_never_scored_zero() -> None:
    judgement = Judgement(policy(("self_harm", 0.5, Action.BLOCK)), OUTPUT, "en", PANEL)
    verdict = judgement.verdict("d")
    assert verdict.scores == ()
    assert [s.reason for s in verdict.skipped if s.check == "self_harm"] == ["detector_unavailable"]


def test_a_shadow_is_not_scored_for_what_the_enforced_policy_does_not_run() -> None:
    shadow = Judgement(policy(("toxicity", 0.5, Action.BLOCK)), OUTPUT, "en", PANEL, scored_by=frozenset())
    (sentence,) = read([Text("a", "This one is really bad.")])
    shadow.add(sentence, unscored(1, {}))
    verdict = shadow.verdict("d")
    assert (verdict.action, verdict.scores, verdict.model_digests) == (Action.ALLOW, (), {})
    assert [s.reason for s in verdict.skipped if s.check == "toxicity"] == ["not_scored"]


def test_a_shadow_that_fails_is_left_out_and_the_answer_goes_on() -> None:
    class Failing(Judgement):
        def add(self, sentence: Sentence, scored: object) -> object:  # type: ignore[override]
            raise ZeroDivisionError

    errors: list[Exception] = []
    enforced = Judgement(FLAG_THEN_BLOCK, OUTPUT, "en", PANEL)
    hearing = Hearing(enforced, [Failing(FLAG_THEN_BLOCK, OUTPUT, "en", PANEL)], errors.append)
    (sentence,) = read([Text("a", "All is well today.")])
    assert hearing.add(sentence, PANEL.score([sentence.text], enforced.detectors)).action is Action.ALLOW
    assert (len(errors), hearing.shadows) == (1, [])


def test_a_language_with_rules_of_its_own_is_judged_by_them_and_marked_as_untested() -> None:
    rules = (Rule("toxicity", OUTPUT, 0.8, Action.BLOCK), Rule("toxicity", OUTPUT, 0.95, Action.FLAG, "de"))
    under = Policy("p", 1, "", rules, True)
    for language, action in [("en", Action.BLOCK), ("fr", Action.BLOCK), ("de", Action.ALLOW)]:
        judgement = Judgement(under, OUTPUT, language, PANEL)
        (sentence,) = read([Text("a", "This one is really bad.")])
        judgement.add(sentence, PANEL.score([sentence.text], judgement.detectors))
        verdict = judgement.verdict("d")
        assert verdict.action is action
        untested = [s.check for s in verdict.skipped if s.reason == "language_untested"]
        assert untested == ([] if language == "en" else ["toxicity"])


def test_offending_segments_and_places_are_named_in_order() -> None:
    judgement = Judgement(FLAG_THEN_BLOCK, OUTPUT, "en", PANEL)
    texts = [
        Text("a", "That is bad."),
        Text("b", "That is fine."),
        Text("c", "That was fine yesterday. That is meh today."),
        Text("d", ""),
    ]
    for sentence in read(texts):
        judgement.add(sentence, PANEL.score([w.text for w in sentence.windows], judgement.detectors))
    assert judgement.offending_segment_ids == ("a", "c")
    assert [(o.segment_id, o.sentence, o.start, o.end) for o in judgement.offences] == [
        ("a", 0, 0, 12),
        ("c", 1, 25, 43),
    ]


def test_evidence_says_when_a_disguise_had_to_be_undone() -> None:
    judgement = Judgement(FLAG_THEN_BLOCK, OUTPUT, "en", PANEL)
    for sentence in read([Text("a", "That is so b4d today."), Text("b", "That is so bad today.")]):
        judgement.add(sentence, PANEL.score([w.text for w in sentence.windows], judgement.detectors))
    assert [(o.segment_id, o.view) for o in judgement.offences] == [("a", "folded"), ("b", "as_written")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Tell me of Project Titan now.", True), ("project\u00a0titan", True), ("pr0ject t1tan", True), ("Projects Titanic", False),
        ("nothing", False), ("这里有秘密计划吗", True),
    ],
)  # fmt: skip
def test_denied_terms_are_whole_words_in_any_case_and_disguise(text: str, found: bool) -> None:
    terms = Terms((DeniedTerm("project titan", Action.BLOCK, frozenset(Direction)),
                   DeniedTerm("秘密计划", Action.HOLD, frozenset(Direction))))  # fmt: skip
    assert (terms.find(text, OUTPUT) is not None) is found


@pytest.mark.parametrize(
    ("phrase", "text", "found"),
    [
        ("c++", "I write c++ code", True), ("c++", "vitamin c is fine", False), ("#metoo", "the #metoo movement", True),
        ("a b", "a b", True), ("a b", "a-b", True), ("a b", "ab", False), ("x.y", "x.y is", True), ("x.y", "ax.yb", False),
    ],
)  # fmt: skip
def test_terms_with_signs_are_found_as_they_are(phrase: str, text: str, found: bool) -> None:
    terms = Terms((DeniedTerm(phrase, Action.BLOCK, frozenset(Direction)),))
    assert (terms.find(text, OUTPUT) is not None) is found


def test_many_terms_are_all_found_and_none_besides() -> None:
    terms = Terms(tuple(DeniedTerm(f"term{i} number {i}", Action.BLOCK, frozenset(Direction)) for i in range(2000)))
    assert [terms.find(f"See TERM{i} number {i}.", OUTPUT) for i in (0, 999, 1999)] == [0, 999, 1999]
    assert terms.find("See term5 number 6.", OUTPUT) is None


def test_of_several_denied_terms_the_strictest_counts_and_only_in_its_direction() -> None:
    terms = Terms(
        (DeniedTerm("alpha", Action.FLAG, frozenset(Direction)), DeniedTerm("beta", Action.HOLD, frozenset({OUTPUT})))
    )
    assert terms.find("alpha and beta", OUTPUT) == 1
    assert terms.find("alpha and beta", Direction.INPUT) == 0


def test_a_denied_term_decides_and_is_named_by_its_place() -> None:
    under = policy(terms=Terms((DeniedTerm("titan", Action.REDACT, frozenset({OUTPUT})),)))
    text, gate = stream(["We know of titan, of course. We do not tell."], under=under)
    assert text == "[removed: denied_term] We do not tell."
    verdict = gate.hearing.enforced.verdict("d")
    assert [(s.category, s.action) for s in verdict.scores] == [("denied_term", Action.REDACT)]
    assert gate.hearing.enforced.denied_terms == (0,)
    assert gate.hearing.enforced.offences[0].view == "term"


def test_allowed_terms_are_blanks_for_the_detectors() -> None:
    assert Terms(allowed=("bad homburg",)).without_allowed("In Bad Homburg it is bad.") == "In   it is bad."


def test_what_moved_a_score_is_looked_for_in_the_text_that_was_scored() -> None:
    allowing = policy(("toxicity", 0.8, Action.BLOCK), terms=Terms((), ("scunthorpe",)))
    judgement = Judgement(allowing, OUTPUT, "en", PANEL)
    (sentence,) = read([Text("a", "so b a d scunthorpe x y")])  # its letters stand apart where the term is a blank
    scored = PANEL.score([allowing.terms.without_allowed(sentence.text)], judgement.detectors)
    judgement.add(sentence, scored)
    assert judgement.reached == {"toxicity": "so bad xy"}


def test_what_spans_two_messages_is_judged_with_the_later_one() -> None:
    judgement = Judgement(policy(("threat", 0.5, Action.BLOCK)), OUTPUT, "en", PANEL)
    texts = [Text("a", "I can wait for you all day long.", "user"), Text("b", "Now go and see.", "user")]
    for sentence in read(texts):
        judgement.add(sentence, PANEL.score([w.text for w in sentence.windows], judgement.detectors))
    assert judgement.verdict("d").action is Action.BLOCK
    assert [(o.segment_id, o.joined) for o in judgement.offences] == [("b", True)]
