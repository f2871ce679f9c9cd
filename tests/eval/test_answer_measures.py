"""The measures of answers are no worse on the held-out halves than what the gateway's README states."""

import pytest
from answer_measures import HALVES, JUDGES, errors, rows


@pytest.mark.parametrize("name", JUDGES)
def test_each_half_has_both_kinds(name: str) -> None:
    label = JUDGES[name][1]
    for half in HALVES:
        assert {label(row) for row in rows(name, half)} == {True, False}


@pytest.mark.parametrize(
    ("name", "least_recall", "most_false"),
    [("refusals", 0.73, 0.0), ("languages", 1.0, 0.0), ("repetition", 1.0, 0.0), ("groundedness", 0.91, 0.0)],
)
def test_a_measure_is_no_worse_than_stated(name: str, least_recall: float, most_false: float) -> None:
    found = errors(name, "held_out")
    assert found.recall >= least_recall
    assert found.false_rate <= most_false


def test_few_answers_are_left_unjudged_for_their_language() -> None:
    assert errors("languages", "held_out").unjudged <= 1
