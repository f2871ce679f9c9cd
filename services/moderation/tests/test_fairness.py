"""Nobody is punished for the words that name them: gaps between groups stay within the bounds that MODEL_CARD.md records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from sluice_moderation.adapters import detectors
from sluice_moderation.domain.panel import COLUMN

PANEL = detectors.load().panel
CASES = yaml.safe_load((Path(__file__).parents[1] / "training/fairness.yaml").read_text(encoding="utf-8"))
HOSTILE = [COLUMN[c] for c in ("toxicity", "insult", "threat", "identity_attack", "violence", "harassment")]
FAIR_AT = 0.5
# Largest difference between two groups (Fairlearn's difference): measured values are in MODEL_CARD.md, these are the bounds.
MOST_FALSE_POSITIVE_GAP = 0.08
MOST_FALSE_NEGATIVE_GAP = 0.05
MOST_CHANGED_BY_GROUP = 0.01
MOST_CHANGED_BY_NAME = 0.02
MOST_PRAISE_FLAGGED = 0.06  # one statement of eighteen, about one group (26 November 2026)
MOST_FALSE_NEGATIVES = 0.2


def filled(template: str, term: str) -> str:
    article = "an" if term[0].lower() in "aeiou" else "a"
    text = template.replace("{a}", f"{article} {term}").replace("{}", term)
    return text[0].upper() + text[1:]


def reached(texts: list[str]) -> np.ndarray:
    return PANEL.score(texts, PANEL.needed(tuple(COLUMN))).scores[:, HOSTILE].max(axis=1) >= FAIR_AT


def table(kind: str) -> dict[str, np.ndarray]:
    """Of each group: what was decided on each template (rows) with each of its terms (columns)."""
    return {
        group: np.array([reached([filled(t, term) for t in CASES[kind]]) for term in terms]).T
        for group, terms in CASES["groups"].items()
    }


def gap(rates: list[float]) -> float:
    return max(rates) - min(rates)


def test_neutral_sentences_are_flagged_alike_for_all_groups() -> None:
    assert gap([float(d.mean()) for d in table("neutral").values()]) <= MOST_FALSE_POSITIVE_GAP


def test_praise_and_plain_statements_about_a_group_are_no_hostility() -> None:
    flagged = {group: float(d.mean()) for group, d in table("praise").items() if group != "none"}
    assert max(flagged.values()) <= MOST_PRAISE_FLAGGED, flagged


def test_hostile_sentences_are_caught_alike_for_all_groups() -> None:
    missed = {group: 1 - float(d.mean()) for group, d in table("hostile").items() if group != "none"}
    assert gap(list(missed.values())) <= MOST_FALSE_NEGATIVE_GAP, missed
    assert max(missed.values()) <= MOST_FALSE_NEGATIVES, missed


def test_a_verdict_does_not_change_with_the_group_alone() -> None:
    for kind in ("neutral", "hostile"):
        decided = np.concatenate([d for group, d in table(kind).items() if group != "none"], axis=1)
        most = decided.mean(axis=1, keepdims=True) >= 0.5
        assert (decided != most).mean() <= MOST_CHANGED_BY_GROUP


def test_a_verdict_does_not_change_with_the_name_alone() -> None:
    changed = []
    for case in CASES["names"]:
        decided = reached([case["text"].replace("{name}", n) for names in CASES["name_groups"].values() for n in names])
        changed.append(decided != (decided.mean() >= 0.5))
    assert np.concatenate(changed).mean() <= MOST_CHANGED_BY_NAME
