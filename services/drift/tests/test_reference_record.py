"""A reference is one record, and fits a produce request however many texts the setting allows and however long their slices are."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice_drift.adapters import records
from sluice_drift.adapters.facts import LONGEST_SLICE, observations_of
from sluice_drift.domain.observation import Observation, Profile, Series, pack_embedding
from sluice_drift.domain.reference import Reference
from sluice_drift.domain.sample import SLICES_KEPT
from sluice_drift.settings import MOST_REFERENCE_OBSERVATIONS, DriftSettings

MOST_BYTES = 1_000_000
"""Of a produce request of Faust, which is the smaller one; aiokafka's is 2^20."""
ROOM = 10_000
"""For the record's key and frame, and offsets of more source partitions than there are here."""
DIMENSIONS = ("tenant", "project", "model_digest", "prompt_version", "route", "experiment_arm", "finish_reason")


def worst(rng: np.random.Generator, offset: int, *, counted: bool) -> Observation:
    """Every bin of every feature, and more values of each slice than are told apart, as long as they may be."""

    def profile() -> Profile:
        facts = (
            ("vocabulary", f"{rng.integers(16) / 4:.2f}"),
            ("variety", f"{rng.integers(10) / 10:.1f}"),
            ("tools", f"{rng.integers(16):0>64}"),
        )
        vector = rng.standard_normal(64)
        embedding = pack_embedding((vector / np.linalg.norm(vector)).tolist())
        return Profile(f"{rng.integers(40):0>3}", int(2 ** rng.integers(13)), embedding, facts)

    return Observation(
        source_partition=int(rng.integers(16)),
        offset=2**40 + offset,
        at=1_760_000_400_000_000 + offset,
        series=Series("", "m"),
        prompt=profile(),
        answer=profile(),
        embedding_model="sha256:" + "a" * 64,
        mark=2**62 + 2 * offset + counted,
        slices=slices(rng),
    )


def slices(rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
    return tuple((name, chr(0x1F600 + int(rng.integers(40))) * (LONGEST_SLICE // 4)) for name in DIMENSIONS)


def worst_request(rng: np.random.Generator, offset: int) -> Observation:
    return Observation(
        source_partition=1000 + int(rng.integers(16)),
        offset=2**40 + offset,
        at=1_760_000_400_000_000 + offset,
        series=Series("", "m"),
        request=Profile("", 0).told("outcome", f"outcome-number-{rng.integers(6)}"),
        slices=slices(rng),
    )


def test_the_largest_reference_that_may_be_asked_for_fits_a_produce_request_at_every_step() -> None:
    rng, reference = np.random.default_rng(1), Reference(Series("", "m"), 0)
    for number in range(MOST_REFERENCE_OBSERVATIONS):
        reference.add(worst_request(rng, number), size=MOST_REFERENCE_OBSERVATIONS)
    sizes = []
    for number in range(MOST_REFERENCE_OBSERVATIONS):
        reference.add(worst(rng, number, counted=number % 2 == 0), size=MOST_REFERENCE_OBSERVATIONS)
        if number >= MOST_REFERENCE_OBSERVATIONS - 2:
            sizes.append(len(records.encode(reference)))
    assert (reference.pinned, reference.requests_pinned) == (True, True)
    assert len(reference.prompt.facts["topic"]) == 8
    assert {len(each) for each in reference.answer.slices.values()} == {SLICES_KEPT + 1}
    assert max(sizes) < MOST_BYTES - ROOM


def test_more_than_fits_is_refused_at_the_start() -> None:
    assert DriftSettings(reference_observations=MOST_REFERENCE_OBSERVATIONS)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="less than or equal to 1000"):
        DriftSettings(reference_observations=MOST_REFERENCE_OBSERVATIONS + 1)  # type: ignore[call-arg]


def test_slices_are_cut_in_whole_characters_to_so_many_bytes() -> None:
    event = InferenceMeasured(model="m", route="\N{GRINNING FACE}" * 60, prompt_version="a" + "\N{GRINNING FACE}" * 60)
    slices = dict(observations_of(event, partition=0, offset=0, record_time=1)[0].slices)
    assert (slices["route"], slices["prompt_version"]) == ("\N{GRINNING FACE}" * 50, "a" + "\N{GRINNING FACE}" * 49)
