"""A change is put down to the slice that caused it, with shares that add up."""

from __future__ import annotations

from itertools import groupby
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice_drift.adapters.facts import observations_of
from sluice_drift.domain.causes import Cause, causes_of
from sluice_drift.domain.comparison import Comparer, Detection
from sluice_drift.domain.observation import Observation, Profile, Series, pack_embedding
from sluice_drift.domain.partition import Due, Partition, Rules
from sluice_drift.domain.sample import OTHER, SLICES_KEPT, TextSample

BASE = 1_760_000_100_000_000
RULES = Rules(reference_size=300)
SIZE = 300


def generation(rng: np.random.Generator, number: int, kind: str, facts: dict[str, str], later: bool) -> Observation:
    """A text of a kind (`usual` or `new`), with slices told."""
    vector = rng.standard_normal(16) + 3 * np.eye(16)[1 if kind == "usual" else 2]
    language = str(rng.choice(["en", "de"], p=[0.8, 0.2] if kind == "usual" else [0.2, 0.8]))
    profile = Profile(language, int(rng.integers(5, 40)), pack_embedding((vector / np.linalg.norm(vector)).tolist()))
    return Observation(
        source_partition=0,
        offset=number,
        at=BASE + (RULES.length if later else 0) + number,
        series=Series("", "small"),
        prompt=profile,
        embedding_model="sha256:a",
        slices=tuple(facts.items()),
    )


def due_after(scenario: str, seed: int) -> Due:
    """A reference, then a window in which something changed."""
    rng = np.random.default_rng(seed)
    partition = Partition(0, RULES, now=0)
    found = []
    for number in range(2 * SIZE):
        later = number >= SIZE
        facts = {
            "tenant": str(rng.choice(["acme", "bela", "cora"])),
            "prompt_version": "greeting@2",
            "model_digest": "sha256:m",
        }
        kind = "usual"
        if scenario == "new prompt version" and later and rng.random() < 0.5:
            facts["prompt_version"], kind = "greeting@3", "new"
        if scenario == "tenant mix":
            facts["tenant"] = str(rng.choice(["acme", "bela"], p=[0.2, 0.8] if later else [0.8, 0.2]))
            kind = "new" if facts["tenant"] == "bela" else "usual"
        if scenario == "one tenant changed" and later and facts["tenant"] == "cora":
            kind = "new"
        if scenario == "everything changed" and later:
            kind = "new"
        found.append(generation(rng, number, kind, facts, later))
    partition.absorb(found, now=0)
    return next(due for due in partition.due(0) if due.window.prompt.observations)


def causes_after(scenario: str, seed: int) -> tuple[Cause, ...]:
    due = due_after(scenario, seed)
    return causes_of(due.window, due.reference, Comparer(Detection()).compare(due.window, due.reference))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("scenario", "dimension", "name", "is_mix"),
    [
        ("new prompt version", "prompt_version", "greeting@3", True),
        ("tenant mix", "tenant", "bela", True),
        ("one tenant changed", "tenant", "cora", False),
    ],
)
def test_the_injected_cause_comes_first_in_every_drifted_feature(
    scenario: str, dimension: str, name: str, is_mix: bool, seed: int
) -> None:
    causes = causes_after(scenario, seed)
    features = {cause.feature for cause in causes}
    assert "prompt.embedding" in features
    for feature in features:
        sliced = [c for c in causes if c.feature == feature and c.dimension != "language"]
        first = sliced[0]
        assert (first.dimension, first.slice) == (dimension, name), sliced
        same = [cause for cause in sliced if cause.dimension == dimension]
        assert (sum(cause.mix for cause in same) > 0.7) == is_mix


def test_a_new_prompt_version_explains_nearly_all_of_what_it_alone_changed() -> None:
    first = next(c for c in causes_after("new prompt version", 1) if c.feature == "prompt.embedding")
    assert first.share == pytest.approx(1.0, abs=0.1)
    assert first.explained > 0.9
    assert (first.window_share, first.reference_share) == (pytest.approx(0.5, abs=0.1), 0.0)


@pytest.mark.parametrize("scenario", ["new prompt version", "tenant mix", "one tenant changed"])
def test_the_shares_of_a_feature_and_dimension_add_up_to_one(scenario: str) -> None:
    causes = causes_after(scenario, 3)
    assert causes
    for _, group in groupby(causes, key=lambda cause: (cause.feature, cause.dimension)):
        assert sum(cause.share for cause in group) == pytest.approx(1.0)


def test_what_changed_alike_in_all_tenants_and_versions_is_put_down_to_none() -> None:
    causes = causes_after("everything changed", 2)
    assert {cause.dimension for cause in causes} <= {"language"}


def test_a_window_like_its_reference_has_no_causes() -> None:
    assert causes_after("nothing", 4) == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), max_size=120), st.randoms(use_true_random=False))
def test_slices_are_bounded_and_the_same_in_any_order(values: list[int], random: Random) -> None:
    texts = [(str(value), Profile("en", value, pack_embedding([value / 60, 0.5]))) for value in values]

    def counted() -> TextSample:
        sample = TextSample()
        for value, profile in texts:
            sample.add(profile, (("route", value),))
        return sample

    first = counted()
    random.shuffle(texts)
    assert counted() == first
    routes = first.slices.get("route", {})
    assert sum(each.observations for each in routes.values()) == len(values)
    assert len(routes.keys() - {OTHER}) == min(SLICES_KEPT, len(set(values)))


def test_a_generation_is_observed_for_its_tenant_and_for_all_tenants_together() -> None:
    event = InferenceMeasured(model="small", prompt_version="greeting@3")
    event.metadata.tenant_id = "acme"
    own, everybody = observations_of(event, partition=1, offset=2, record_time=3)
    assert (own.series, everybody.series) == (Series("acme", "small"), Series("", "small"))
    assert "tenant" not in dict(own.slices)
    assert dict(everybody.slices) == dict(own.slices) | {"tenant": "acme"}
    assert dict(own.slices)["prompt_version"] == "greeting@3"
    event.metadata.tenant_id = ""
    assert len(observations_of(event, partition=1, offset=2, record_time=3)) == 1
