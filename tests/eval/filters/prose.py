"""Texts of a given length for measuring speed: ordinary sentences with no, some or much personal data, all different."""

import random

from .samples import samples

MIXES = {"none": 0.0, "sparse": 0.12, "dense": 0.6}
_SENTENCES = (
    "The parcel was sent two weeks ago but has not arrived yet, although the tracking page says so.",
    "Could you please check what happened and tell me whether I should wait a little longer?",
    "Our kitchen needs a new sink, two lamps and a table that seats six people.",
    "The library opens at nine and closes late, except on public holidays and in August.",
    "I would like to know how compound interest works and when it is added to the sum.",
    "A river that carries a lot of sand builds islands where it slows down.",
    "The function returns a list of rows, each with a key and a value, sorted by time.",
    "Please rewrite this paragraph so that it sounds friendlier and is not longer than before.",
    "They discussed the budget for next year and decided to repair the roof first.",
    "When the water boils, add salt and the pasta, stir once and wait for nine minutes.",
    "The second chapter explains how the early telescopes were ground and polished.",
    "We measured the temperature every hour and drew the values into a chart.",
)


class Prose:
    """Makes texts; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        # Sentences of the development set, one value or more each; what has lines and columns is left out.
        made = samples("dev", rounds=4, seed=seed)
        self._personal = [
            one.text for one in made if "\n" not in one.text and one.register in ("chat", "support", "prose", "medical")
        ]

    def text(self, words: int, mix: str) -> str:
        """Exactly `words` words; `mix`: key of MIXES."""
        chosen: list[str] = []
        while len(chosen) < words:
            personal = self._chance.random() < MIXES[mix]
            chosen += self._chance.choice(self._personal if personal else _SENTENCES).split()
        return " ".join(chosen[:words])

    def texts(self, words: int, mix: str, count: int) -> list[str]:
        return [self.text(words, mix) for _ in range(count)]

    def system_prompt(self, words: int = 300) -> str:
        """A long text that comes again with every request."""
        return "You are the assistant of a shop. " + self.text(words, "none")
