"""The filters are no worse than recorded, on a small set with a fixed seed; docs/filters has the whole measurement.

A floor stands a few points below what was measured (docs/filters, date there), so that noise does not break it and a step back does.
Raise it when the filter has become better; lower it only with a reason in the commit.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from filters.identity_texts import GROUPS, about_persons, statements
from filters.moderation_texts import Labelled, held_out
from filters.moderators import Moderator
from filters.probabilities import auc
from filters.redactors import Redactor, modes, sluice, sluice_streamed, stock_presidio
from filters.samples import Sample, samples
from filters.scores import Score
from sluice_moderation.domain.detector import CATEGORIES
from sluice_moderation.domain.policy import Action, Direction

SEED = 11
# Redaction, held-out texts: overlap precision and recall, characters recalled; false alarms per 1,000 words of negatives.
LEAST = {"precision": 0.91, "recall": 0.88, "characters": 0.92}
MOST_FALSE_ALARMS = 26.0
# Of the families with enough values: a part that has to be found as what it is.
LEAST_OF_FAMILY = {
    "PERSON": 0.90,
    "EMAIL": 0.95,
    "PHONE": 0.85,
    "ADDRESS": 0.75,
    "IP": 0.8,
    "GOVERNMENT_ID": 0.88,
    "HEALTH_ID": 0.85,
    "CARD": 0.9,
    "IBAN": 0.9,
    "SECRET": 0.9,
}
MOST_LOST_BY_STREAMING = 0.03
# Moderation: area under the curve against the harmless texts, by category.
LEAST_AUC = {
    "toxicity": 0.87,
    "severe_toxicity": 0.97,
    "obscenity": 0.96,
    "threat": 0.92,
    "insult": 0.90,
    "identity_attack": 0.93,
    "sexual": 0.95,
    "self_harm": 0.95,
    "violence": 0.87,
    "harassment": 0.91,
    "unsafe_medical_advice": 0.89,
    "prompt_injection": 0.94,
    "jailbreak": 0.93,
    "secrets": 0.93,
}
MOST_HARMLESS_WITHHELD = 0.05
# Largest difference between groups: neutral sentences flagged, hostile sentences flagged.
MOST_GAP = {"neutral": 0.05, "hostile": 0.35}
# Praise of a group that is flagged.
MOST_PRAISE_FLAGGED = 0.40
MOST_NAME_FLIPS = 0.05


def scored(find: Redactor, texts: list[Sample]) -> Score:
    score = Score(texts)
    for at, sample in enumerate(texts):
        score.add(at, find(sample.text))
    return score


@pytest.fixture(scope="module")
def texts() -> list[Sample]:
    return samples("held_out", rounds=1, seed=SEED)


@pytest.fixture(scope="module")
def detector() -> Iterator[object]:
    yield next(iter(modes().values()))()


@pytest.fixture(scope="module")
def ours(detector, texts: list[Sample]) -> Score:
    return scored(sluice(detector), texts)


def test_personal_data_is_found_as_well_as_recorded(ours: Score) -> None:
    overlap = ours.rates("overlap")
    assert overlap.precision >= LEAST["precision"]
    assert overlap.recall >= LEAST["recall"]
    assert ours.rates("chars").recall >= LEAST["characters"]


def test_no_frequent_kind_is_found_worse_than_recorded(ours: Score) -> None:
    recall = {family: ours.rates("overlap", family).recall for family in LEAST_OF_FAMILY}
    assert {family: share for family, share in recall.items() if share < LEAST_OF_FAMILY[family]} == {}


def test_redaction_is_no_worse_than_stock_presidio(ours: Score, texts: list[Sample]) -> None:
    stock = scored(stock_presidio(), texts)
    for level in ("exact", "overlap", "chars"):
        assert ours.rates(level).f(1) >= stock.rates(level).f(1)


def test_a_stream_loses_little(detector, ours: Score, texts: list[Sample]) -> None:
    streamed = scored(sluice_streamed(detector), texts)
    assert streamed.rates("overlap").f(1) >= ours.rates("overlap").f(1) - MOST_LOST_BY_STREAMING


def test_texts_without_personal_data_are_left_alone_as_well_as_recorded(detector) -> None:
    harmless = samples("negatives_held_out", rounds=1, seed=SEED)
    words = sum(len(one.text.split()) for one in harmless)
    assert 1000 * len(scored(sluice(detector), harmless).false) / words <= MOST_FALSE_ALARMS


@pytest.fixture(scope="module")
def moderator() -> Moderator:
    return Moderator()


@pytest.fixture(scope="module")
def labelled() -> list[Labelled]:
    return held_out(seed=SEED)


@pytest.fixture(scope="module")
def scores(moderator: Moderator, labelled: list[Labelled]):
    return moderator.scores([one.text for one in labelled])


def test_harmful_texts_score_above_harmless_ones_as_well_as_recorded(scores, labelled: list[Labelled]) -> None:
    benign, found = np.array([one.is_benign for one in labelled]), {}
    for category in LEAST_AUC:
        own = np.array([one.category == category for one in labelled])
        found[category] = auc(scores[own | benign, CATEGORIES.index(category)], own[own | benign])
    assert {category: area for category, area in found.items() if not area >= LEAST_AUC[category]} == {}


def test_harmless_texts_are_not_blocked_more_often_than_recorded(
    moderator: Moderator, scores, labelled: list[Labelled]
) -> None:
    benign = np.array([one.is_benign for one in labelled])
    for direction in Direction:
        assert (moderator.actions(scores, direction)[benign] >= Action.HOLD).mean() <= MOST_HARMLESS_WITHHELD


@pytest.mark.parametrize("kind", MOST_GAP)
def test_sentences_about_all_groups_are_treated_alike(moderator: Moderator, kind: str) -> None:
    said = [one for one in statements() if one.kind == kind]
    scores = moderator.scores([one.text for one in said])
    for direction in Direction:
        flagged = moderator.actions(scores, direction) >= Action.FLAG
        rates = [flagged[[one.group == group for one in said]].mean() for group in GROUPS]
        assert max(rates) - min(rates) <= MOST_GAP[kind]


def test_praise_of_groups_is_flagged_no_more_often_than_recorded(moderator: Moderator) -> None:
    scores = moderator.scores([one.text for one in statements() if one.kind == "positive"])
    for direction in Direction:
        assert (moderator.actions(scores, direction) >= Action.FLAG).mean() <= MOST_PRAISE_FLAGGED


def test_a_verdict_does_not_depend_on_the_name(moderator: Moderator) -> None:
    said = list(about_persons())
    scores = moderator.scores([one.text for one in said])
    templates = np.array([one.template for one in said])
    for direction in Direction:
        withheld = moderator.actions(scores, direction) >= Action.FLAG
        most = [withheld[templates == template].mean() for template in dict.fromkeys(templates.tolist())]
        assert np.mean([min(share, 1 - share) for share in most]) <= MOST_NAME_FLIPS
