"""Seeded streams of generations, with and without injected drift, as the drift service's own observations.

A population of template texts in four languages and eight topics goes once through the profile that inference makes of every
text (language detector, lengths, packaged embedding model, pieces and different words); a stream draws from it. Which tools
answers call and how requests end is drawn at stated rates, independent of the texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from sluice_drift.adapters.facts import REQUESTS_FROM
from sluice_drift.domain.observation import EMBEDDING_SCALE, Observation, Profile, Series, pack_embedding
from sluice_drift.domain.vocabulary import FEWEST_WORDS, rarity_bin, variety_bin
from sluice_inference.adapters.languages import Langid
from sluice_inference.adapters.static_embedding import StaticEmbedding
from sluice_inference.domain.profiles import TextProfile, profile

REFERENCE, WINDOW, DAY, ONSET, AFTER = 200, 60, 288, 6, 36
SERIES = Series("acme", "small")
TOPICS = {
    "billing": "invoice refund payment subscription receipt discount card balance",
    "travel": "flight hotel passport train luggage itinerary visa airport",
    "health": "headache prescription doctor allergy vaccine fever pharmacy symptom",
    "code": "python function exception database query compiler thread deployment",
    "cooking": "recipe oven flour garlic butter soup onion dessert",
    "law": "contract tenant landlord lawsuit notice liability clause court",
    "sports": "football marathon coach league goal training stadium referee",
    "garden": "tomato soil roses compost lawn pruning seeds greenhouse",
}
ASK = {
    "en": "Could you please explain what I should know about the {0} and the {1} before I decide anything?",
    "de": "Können Sie mir bitte erklären, was ich über {0} und {1} wissen muss, bevor ich etwas entscheide?",
    "fr": "Pouvez-vous m'expliquer ce que je dois savoir sur {0} et {1} avant de décider quoi que ce soit ?",
    "es": "¿Podría explicarme qué debo saber sobre {0} y {1} antes de decidir algo?",
}
TELL = {
    "en": "The {0} depends on the {1}, so check both of them first and keep a note of the result.",
    "de": "Die Sache mit {0} hängt von {1} ab, prüfen Sie also zuerst beides und notieren Sie das Ergebnis.",
    "fr": "La question de {0} dépend de {1}, vérifiez donc d'abord les deux et notez bien le résultat.",
    "es": "El asunto de {0} depende de {1}, así que compruebe primero los dos y anote el resultado.",
}
HEDGE = {
    "en": "I am sorry, but I am not able to help with {0}; please ask a qualified professional instead.",
    "de": "Es tut mir leid, aber bei {0} kann ich nicht helfen; bitte fragen Sie eine Fachperson.",
    "fr": "Je suis désolé, mais je ne peux pas vous aider pour {0} ; veuillez consulter un professionnel.",
    "es": "Lo siento, pero no puedo ayudar con {0}; por favor consulte a un profesional.",
}
SHORT = {
    "en": "quick tip {0} {1} thanks",
    "de": "kurz {0} {1} danke bitte schnell",
    "fr": "vite {0} {1} merci bien",
    "es": "rápido {0} {1} muchas gracias",
}
TOPIC_SHARES = np.array([0.24, 0.18, 0.14, 0.14, 0.1, 0.08, 0.07, 0.05])
LANGUAGE_SHARES = np.array([0.7, 0.14, 0.1, 0.06])
TOOLS = {"(none)": 0.85, "search": 0.12, "(other)": 0.03}
OUTCOMES = {"answered": 0.93, "refused": 0.03, "blocked_output": 0.02, "empty": 0.01, "failed": 0.01}
STYLES = ("ask", "short", "tell", "hedge")
_VARIANTS = 60


@dataclass(frozen=True)
class Mix:
    """What a moment's traffic is drawn from: `terse` prompts and `hedged` answers are shares."""

    topics: np.ndarray
    languages: np.ndarray
    terse: float = 0.05
    hedged: float = 0.04
    tools: dict[str, float] = field(default_factory=TOOLS.copy)
    outcomes: dict[str, float] = field(default_factory=OUTCOMES.copy)


QUIET = Mix(TOPIC_SHARES, LANGUAGE_SHARES)


def _towards(share: float) -> np.ndarray:
    """`share` of the traffic goes from the first two topics to the last two."""
    return TOPIC_SHARES + share * np.array([-0.5, -0.5, 0, 0, 0, 0, 0.5, 0.5])


def _raised(shares: dict[str, float], name: str, share: float) -> dict[str, float]:
    """With `share` of a name, taken from the first, which is the most common."""
    first = next(iter(shares))
    return shares | {name: share, first: shares[first] + shares[name] - share}


def mix_at(scenario: str, window: int) -> Mix:
    """The mix of a window; drift begins with window ONSET."""
    since = window - ONSET
    if scenario == "seasonal":
        wave = np.sin(2 * np.pi * window / DAY)
        shares = LANGUAGE_SHARES + 0.12 * wave * np.array([-1, 1, 0, 0])
        return Mix(_towards(0.15 + 0.15 * wave), shares)
    if scenario == "quiet" or since < 0:
        return QUIET
    match scenario:
        case "prior":
            return Mix(_towards(0.3), LANGUAGE_SHARES)
        case "covariate":
            return Mix(TOPIC_SHARES, LANGUAGE_SHARES, terse=0.3)
        case "concept":
            return Mix(TOPIC_SHARES, LANGUAGE_SHARES, hedged=0.3)
        case "gradual":
            return Mix(_towards(0.3 * min(1, (since + 1) / 24)), LANGUAGE_SHARES)
        case "language":
            return Mix(TOPIC_SHARES, LANGUAGE_SHARES + np.array([-0.2, 0.2, 0, 0]))
        case "tiny":
            return Mix(_towards(0.1), LANGUAGE_SHARES, hedged=0.07)
        case "refusals" | "many refusals":
            return replace(QUIET, outcomes=_raised(OUTCOMES, "refused", 0.1 if scenario == "refusals" else 0.2))
        case "tools" | "many tools":
            return replace(QUIET, tools=_raised(TOOLS, "(other)", 0.1 if scenario == "tools" else 0.2))
    raise ValueError(f"no scenario is called {scenario}")


class Population:
    """Profiles by style, topic and language, shape (4, 8, 4, variants)."""

    def __init__(self, seed: int) -> None:
        rng, detector, embedder = np.random.default_rng(seed), Langid(), StaticEmbedding()
        self.profiles: list[Profile] = []
        for style in STYLES:
            for words in TOPICS.values():
                for language in ASK:
                    for _ in range(_VARIANTS):
                        made = profile(_text(style, words.split(), language, rng), detector=detector, embedder=embedder)
                        packed = pack_embedding(list(made.embedding))
                        self.profiles.append(Profile(made.language, made.words, packed, _vocabulary(made)))
        self.words = np.array([each.words for each in self.profiles])
        self.matrix = np.array([np.frombuffer(each.embedding, "<i2") for each in self.profiles]) / EMBEDDING_SCALE

    def draw(self, rng: np.random.Generator, mix: Mix, count: int) -> np.ndarray:
        """Indices of (prompt, answer), shape (count, 2)."""
        topics = rng.choice(len(TOPICS), count, p=mix.topics)
        languages = rng.choice(len(ASK), count, p=mix.languages)
        styles = np.stack([rng.random(count) < mix.terse, 2 + (rng.random(count) < mix.hedged)], axis=1)
        place = (styles * len(TOPICS) + topics[:, None]) * len(ASK) + languages[:, None]
        return place * _VARIANTS + rng.integers(0, _VARIANTS, (count, 2))

    def observations(self, drawn: np.ndarray, first: int) -> Iterator[Observation]:
        """The service's own type, with offsets from `first` on."""
        for number, (prompt, answer) in enumerate(drawn):
            yield Observation(
                source_partition=0,
                offset=first + number,
                at=first + number,
                series=SERIES,
                prompt=self.profiles[prompt],
                answer=self.profiles[answer],
                embedding_model="sha256:bench",
            )


def _vocabulary(made: TextProfile) -> tuple[tuple[str, str], ...]:
    """As the service has it from the event (adapters/facts.py)."""
    words = made.profiled_words
    variety = [("variety", variety_bin(made.distinct_words, words))] if words >= FEWEST_WORDS else []
    return (("vocabulary", rarity_bin(made.pieces, words)), *variety)


def _text(style: str, words: list[str], language: str, rng: np.random.Generator) -> str:
    templates = {"ask": ASK, "short": SHORT, "tell": TELL, "hedge": HEDGE}[style]
    sentences = {"ask": 1 + rng.poisson(0.8), "short": 1, "tell": 2 + int(rng.lognormal(0.9, 0.6)), "hedge": 1}[style]
    return " ".join(templates[language].format(*rng.choice(words, 2, replace=False)) for _ in range(sentences))


def stream(population: Population, scenario: str, windows: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the reference, shape (REFERENCE, 2), and of the windows, shape (windows, WINDOW, 2)."""
    rng = np.random.default_rng(seed)
    reference = population.draw(rng, mix_at(scenario, 0) if scenario == "seasonal" else QUIET, REFERENCE)
    return reference, np.stack([population.draw(rng, mix_at(scenario, w), WINDOW) for w in range(windows)])


def two_days(population: Population, *, seed: int) -> list[np.ndarray]:
    """Windows of seasonal traffic."""
    rng = np.random.default_rng(seed)
    return [population.draw(rng, mix_at("seasonal", w % DAY), WINDOW) for w in range(2 * DAY)]


def trailing_season(population: Population, *, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Two days of seasonal traffic: today's windows, and for each the windows of the same quarter of an hour yesterday."""
    days = two_days(population, seed=seed)
    near = [np.concatenate([days[(w + k) % DAY] for k in (-2, -1, 0, 1, 2)]) for w in range(DAY)]
    return near, np.stack(days[DAY:])


def ended(texts: Iterable[Observation], mix: Mix, rng: np.random.Generator) -> Iterator[Observation]:
    """Each text with the tools that its answer called, and beside it a request with how it ended."""
    for each in texts:
        assert each.answer is not None
        yield replace(each, answer=each.answer.told("tools", _drawn(rng, mix.tools)))
        how = Profile("", 0).told("outcome", _drawn(rng, mix.outcomes))
        yield replace(each, source_partition=REQUESTS_FROM, prompt=None, answer=None, embedding_model="", request=how)


def _drawn(rng: np.random.Generator, shares: dict[str, float]) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))
