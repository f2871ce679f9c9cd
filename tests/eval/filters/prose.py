"""Texts of a given length for measuring speed: ordinary sentences with no, some or much personal data, all different."""

import random
import re

from .samples import samples

MIXES = {"none": 0.0, "sparse": 0.12, "dense": 0.6}
# Slots are filled anew in every sentence, so that no cache of sentences or windows answers.
_SENTENCES = (
    "The {adjective} {noun} was sent {number} weeks ago but has not arrived yet, although the {noun} page says so.",
    "Could you please check what happened to the {noun} and tell me whether I should wait {number} more days?",
    "Our {adjective} kitchen needs a new {noun}, {number} lamps and a table that seats six people.",
    "The {noun} opens at {number} and closes late, except on public holidays and in August.",
    "I would like to know how a {adjective} {noun} works and when the {noun} is added to the sum.",
    "A river that carries a lot of {noun} builds {adjective} islands where it slows down after {number} miles.",
    "The function returns a list of {number} rows, each with a {noun} and a value, sorted by {noun}.",
    "Please rewrite this {adjective} paragraph about the {noun} so that it sounds friendlier and is not longer.",
    "They discussed the {noun} for next year and decided to repair {number} {adjective} roofs first.",
    "When the water boils, add the {noun} and {number} grams of salt, stir once and wait for the {noun}.",
    "The second chapter explains how {number} early telescopes were ground by a {adjective} {noun}.",
    "We measured the {noun} every {number} hours and drew the {adjective} values into a chart.",
)
_WORDS = {
    "noun": "parcel library sink river function budget telescope chart invoice garden bridge battery recipe engine ladder window market signal "
    "forest ticket harbour planet blanket camera kettle museum tunnel sentence pattern folder bicycle mirror".split(),
    "adjective": "small green noisy early broken useful quiet heavy narrow modern empty gentle rapid strange cheap formal".split(),
}
_SLOT = re.compile(r"\{(\w+)\}")


class Prose:
    """Makes texts; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        # Sentences of the development set, one value or more each; what has lines and columns is left out.
        made = samples("dev", rounds=8, seed=seed)
        self._personal = [
            one.text for one in made if "\n" not in one.text and one.register in ("chat", "support", "prose", "medical")
        ]

    def text(self, words: int, mix: str) -> str:
        """Exactly `words` words; `mix`: key of MIXES."""
        chosen: list[str] = []
        while len(chosen) < words:
            personal = self._chance.random() < MIXES[mix]
            chosen += (self._chance.choice(self._personal) if personal else self._ordinary()).split()
        return " ".join(chosen[:words])

    def _ordinary(self) -> str:
        return _SLOT.sub(lambda slot: self._word(slot[1]), self._chance.choice(_SENTENCES))

    def _word(self, slot: str) -> str:
        return str(self._chance.randint(2, 99)) if slot == "number" else self._chance.choice(_WORDS[slot])

    def texts(self, words: int, mix: str, count: int) -> list[str]:
        return [self.text(words, mix) for _ in range(count)]

    def system_prompt(self, words: int = 300) -> str:
        """A long text that comes again with every request."""
        return "You are the assistant of a shop. " + self.text(words, "none")
