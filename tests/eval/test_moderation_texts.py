"""The moderation sets and measures: enough texts of everything, twins that differ in one word, numbers counted by hand."""

import random
from collections import Counter

import numpy as np
import pytest
from filters.identity_texts import ABOUT_PERSONS, GROUPS, HOSTILE, NAMES, NEUTRAL, POSITIVE, about_persons, statements
from filters.moderation_texts import held_out
from filters.obfuscations import OBFUSCATIONS
from filters.probabilities import auc, calibration_error, reliability
from sluice_moderation.domain.detector import CATEGORIES


def test_there_are_25_texts_of_each_category_and_200_harmless_ones() -> None:
    counts = Counter(one.category for one in held_out())
    assert set(counts) == {*CATEGORIES, "benign"}
    assert all(counts[category] >= 25 for category in CATEGORIES)
    assert counts["benign"] >= 200


def test_no_text_stands_twice() -> None:
    texts = [one.text for one in held_out()]
    assert len(texts) == len(set(texts))


def test_invented_secrets_are_the_same_for_a_seed() -> None:
    assert held_out(seed=1) == held_out(seed=1)


def test_statements_are_every_template_for_every_term_and_read_well() -> None:
    made = list(statements())
    assert len(made) == sum(map(len, GROUPS.values())) * (len(NEUTRAL) + len(POSITIVE) + len(HOSTILE))
    texts = {one.text for one in made}
    assert "I think Muslims should have the same rights as everybody else." in texts
    assert "Is there an Asian bookshop near the station?" in texts
    assert not [text for text in texts if "{" in text]


def test_every_name_stands_in_every_sentence_about_a_person() -> None:
    assert len(list(about_persons())) == len(NAMES) * len(ABOUT_PERSONS)


@pytest.mark.parametrize("name", OBFUSCATIONS)
def test_an_obfuscation_changes_texts_only_if_it_is_one(name: str) -> None:
    text = "You are a complete idiot and everybody knows that."
    assert (OBFUSCATIONS[name](text, random.Random(1)) == text) == (name == "none")


def test_auc_of_hand_counted_scores() -> None:
    scores, positive = np.array([0.9, 0.8, 0.4, 0.4, 0.1]), np.array([True, False, True, False, False])
    # Of six pairs: .9 beats three; .4 beats .1, ties with .4, loses to .8.
    assert auc(scores, positive) == pytest.approx(4.5 / 6)
    assert np.isnan(auc(scores, np.ones(5, dtype=bool)))


def test_calibration_of_hand_counted_scores() -> None:
    scores, positive = np.array([0.05, 0.15, 0.95, 0.95]), np.array([False, False, True, False])
    assert reliability(scores, positive, bins=2) == [
        (0.0, 0.5, 2, pytest.approx(0.1), 0.0),
        (0.5, 1.0, 2, pytest.approx(0.95), 0.5),
    ]
    assert calibration_error(scores, positive, bins=2) == pytest.approx((0.1 + 0.45) / 2)
