"""The self-test model, the probes, moderation and insight speak one language, though none knows the other's code."""

import pytest
from sluice_cli.mesh.plan import SELF_TEST_MODEL
from sluice_gateway.domain.configuration import SELF_TEST_TARGET
from sluice_inference.domain import self_test
from sluice_insight.domain import probes as counted
from sluice_insight.domain.name_origins import MINIMUM
from sluice_moderation.domain.hearing import marked
from sluice_probes.domain import marks
from sluice_probes.domain.canaries import KINDS, NAMES, ORIGINS, canaries
from sluice_probes.domain.findings import GUARDS, Answer
from sluice_probes.domain.judging import was_cut
from sluice_probes.domain.round import FORBIDDEN_INPUT
from sluice_probes.settings import ProbesSettings


def test_they_mean_the_same_by_the_same_words():
    assert (self_test.COMMAND, self_test.REPORT, self_test.INVENT, self_test.OVERSTEP, self_test.MARKS_BEGIN) == (
        marks.COMMAND, marks.REPORT, marks.INVENT, marks.OVERSTEP, marks.MARKS_BEGIN,
    )  # fmt: skip
    assert self_test.FORBIDDEN == marks.FORBIDDEN
    framed = "".join(map("".join, zip(marks.INVENTED_FRAME, marks.INVENTED_VALUES, strict=True)))
    assert f"{framed}." == self_test.INVENTED


def test_the_model_of_self_tests_has_one_name():
    assert {SELF_TEST_MODEL, ProbesSettings.model_fields["model"].default} == {SELF_TEST_TARGET}


@pytest.mark.parametrize("number", range(40))
def test_every_word_of_a_value_that_reaches_the_model_is_in_its_report(number):
    for canary in canaries(number):
        told = marks.marks_in(self_test.answer(marks.instruction(marks.REPORT), canary.sentence))
        assert told is not None
        assert marks.marks_of(canary.value) <= told, canary.kind


@pytest.mark.parametrize("number", range(40))
def test_no_part_of_a_replaced_value_is_in_the_report(number):
    seeded = canaries(number)
    text = "\n".join(canary.sentence for canary in seeded)
    for count, canary in enumerate(seeded):
        text = text.replace(canary.value, f"<{canary.kind}_{count}>")
    told = marks.marks_in(self_test.answer(marks.instruction(marks.REPORT), text))
    assert told
    for canary in seeded:
        assert not marks.marks_of(canary.value) & told, canary.kind


def test_a_sentence_that_moderation_took_out_is_seen_and_leaves_no_mark():
    told = self_test.answer(marks.instruction(marks.REPORT), marked(FORBIDDEN_INPUT, "prompt_injection"))
    assert was_cut(FORBIDDEN_INPUT, Answer(text=told))
    repeated = self_test.answer(marks.instruction(marks.REPORT), FORBIDDEN_INPUT)
    taken_out_of_the_answer = repeated.replace(FORBIDDEN_INPUT, marked(FORBIDDEN_INPUT, "prompt_injection"))
    assert not was_cut(FORBIDDEN_INPUT, Answer(text=taken_out_of_the_answer))


def test_insight_counts_every_guard_kind_and_origin_that_is_tried():
    assert (counted.GUARDS, counted.KINDS, counted.ORIGINS) == (GUARDS, KINDS, ORIGINS)


@pytest.mark.parametrize("first", [0, 7, 1_764_180_000 * 4])
def test_insight_says_nothing_of_an_origin_before_each_of_its_names_was_sent(first):
    sent = [canary for number in range(first, first + MINIMUM) for canary in canaries(number)]
    for origin in ORIGINS:
        assert len({canary.value for canary in sent if canary.origin == origin}) == len(NAMES[origin]) ** 2 == 16
