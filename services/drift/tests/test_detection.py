"""The false-alarm rate is the stated one, and real drift is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sluice_drift.domain import statistics
from sluice_drift.domain.comparison import Comparer, Comparison, Detection, Verdict
from sluice_drift.domain.observation import Observation, Profile, Series, pack_embedding
from sluice_drift.domain.reference import Reference
from sluice_drift.domain.window import DriftWindow

SERIES = Series("acme", "small")
RATE = 0.05
STREAMS = 200
DIMENSIONS = 64
LANGUAGES = ("en", "de", "fr", "es", "und")


class Traffic:
    """A stationary source of texts. `topics` are directions; each text is one topic plus noise, normalised."""

    def __init__(self, seed: int, *, topics: int = 12, noise: float = 0.09, language_shares: tuple = ()) -> None:
        self.rng = np.random.default_rng(seed)
        world = np.random.default_rng(7)  # all sources live in the same world
        self.centres = world.standard_normal((topics, DIMENSIONS)) + 0.8 * world.standard_normal(DIMENSIONS)
        self.centres /= np.linalg.norm(self.centres, axis=1, keepdims=True)
        self.topic_shares = world.dirichlet(np.full(topics, 1.5))
        self.noise = noise
        self.language_shares = language_shares or (0.7, 0.12, 0.1, 0.05, 0.03)
        self.words_scale = 3.2
        self.offset = -1

    def profile(self) -> Profile:
        topic = self.rng.choice(len(self.centres), p=self.topic_shares)
        vector = self.centres[topic] + self.noise * self.rng.standard_normal(DIMENSIONS)
        vector /= np.linalg.norm(vector)
        language = LANGUAGES[self.rng.choice(5, p=self.language_shares)]
        return Profile(language, int(self.rng.lognormal(self.words_scale, 0.8)), pack_embedding(vector.tolist()))

    def observation(self, at: int = 0, *, partition: int = 0) -> Observation:
        self.offset += 1
        return Observation(
            source_partition=partition,
            offset=self.offset,
            at=at,
            series=SERIES,
            prompt=self.profile(),
            answer=self.profile(),
            embedding_model="sha256:a",
        )


def compare(
    seed: int,
    *,
    reference_size: int = 200,
    window_size: int = 60,
    drift: Callable[[Traffic], None] | None = None,
    rate: float = RATE,
) -> Comparison:
    """One stream: a reference, then a window, with or without a change between the two."""
    traffic = Traffic(seed)
    reference = Reference(SERIES, 0)
    for _ in range(reference_size):
        reference.add(traffic.observation(), size=reference_size)
    if drift:
        drift(traffic)
    window = DriftWindow(SERIES, seed, 60, 0)
    for _ in range(window_size):
        window.merge(traffic.observation(), collected=False, reference_version=1)
    return Comparer(Detection(false_alarm_rate=rate)).compare(window, reference)


@pytest.fixture(scope="module")
def quiet() -> list[Comparison]:
    """Independent streams without drift."""
    return [compare(seed) for seed in range(STREAMS)]


def test_without_drift_alarms_are_as_rare_as_stated(quiet: list[Comparison]) -> None:
    """A binomial with the stated rate stays below mean + 3 sigma."""
    alarms = sum(each.verdict is Verdict.DRIFTED for each in quiet)
    assert alarms / STREAMS <= RATE + 3 * np.sqrt(RATE * (1 - RATE) / STREAMS)


def test_p_values_of_each_feature_are_uniform_without_drift(quiet: list[Comparison]) -> None:
    """Kolmogorov distance to the uniform law at the 0.1 % level, so that a test *too* careful fails as well."""
    found: dict[str, list[float]] = {}
    for feature in (feature for each in quiet for feature in each.features):
        assert feature.p_value is not None
        found.setdefault(feature.name, []).append(feature.p_value)
    assert len(found) == 6
    for name, values in found.items():
        distance = np.max(np.abs(np.sort(values) - np.arange(1, STREAMS + 1) / STREAMS))
        # Histograms with few bins have coarse p-values: at most one step more.
        assert distance < 1.95 / np.sqrt(STREAMS) + 0.03, name


def shift_topics(traffic: Traffic) -> None:
    traffic.topic_shares = np.roll(traffic.topic_shares, 3)


def shift_languages(traffic: Traffic) -> None:
    traffic.language_shares = (0.4, 0.42, 0.1, 0.05, 0.03)


def lengthen(traffic: Traffic) -> None:
    traffic.words_scale += 0.8


@pytest.mark.parametrize(
    ("drift", "feature"),
    [(shift_topics, "embedding"), (shift_languages, "language"), (lengthen, "words")],
    ids=["topics", "languages", "lengths"],
)
def test_injected_drift_is_found_and_the_feature_that_moved_comes_first(
    drift: Callable[[Traffic], None], feature: str
) -> None:
    results = [compare(seed, window_size=100, drift=drift) for seed in range(20)]
    found = [result for result in results if result.verdict is Verdict.DRIFTED]
    assert len(found) >= 18
    assert sum(result.features[0].name.endswith(feature) for result in found) >= 0.9 * len(found)


def test_few_observations_are_insufficient_not_stable() -> None:
    assert compare(1, window_size=29).verdict is Verdict.INSUFFICIENT
    assert compare(1, window_size=30).verdict is not Verdict.INSUFFICIENT


def test_the_same_window_gives_the_same_numbers() -> None:
    assert compare(3) == compare(3)


def test_holm_rejects_at_most_the_family_rate() -> None:
    assert statistics.holm([0.001, 0.2, 0.02], rate=0.05) == [True, False, True]
    assert statistics.holm([0.02, 0.03, 0.04], rate=0.05) == [False, False, False]
    assert statistics.holm([], rate=0.05) == []


@pytest.mark.parametrize(
    ("window", "reference", "index", "divergence"),
    [
        ({"en": 50}, {"en": 100}, 0.0, 0.0),
        ({"en": 50}, {"de": 50}, 9.14, 1.0),
        ({"en": 5, "de": 5}, {"en": 10}, 1.4, 0.31),
    ],
)
def test_effect_sizes(window: dict, reference: dict, index: float, divergence: float) -> None:
    assert statistics.population_stability_index(window, reference) == pytest.approx(index, abs=0.5)
    assert statistics.jensen_shannon_divergence(window, reference) == pytest.approx(divergence, abs=0.01)


def test_the_rate_of_a_day_can_alarm_by_a_histogram_and_by_embeddings() -> None:
    """At 1 % a day of five-minute windows a test needs p < 6e-6, which 4,999 shuffles never give."""
    rate = 0.01 / 288
    for drift, feature in ((shift_topics, "embedding"), (shift_languages, "language"), (lengthen, "words")):
        found = [compare(seed, window_size=300, drift=drift, rate=rate) for seed in range(10)]
        drifted = [each for each in found if each.verdict is Verdict.DRIFTED]
        assert len(drifted) >= 7, feature
        assert drifted[0].features[0].name.endswith(feature)
