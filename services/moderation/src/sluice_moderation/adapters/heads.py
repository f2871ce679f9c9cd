"""All categories but secrets by one linear model over shared features, from a checked-in npz (training/train.py)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sluice_moderation.domain.detector import CATEGORIES, SECRETS, UNSAFE_MEDICAL_ADVICE, Scores
from sluice_moderation.domain.heads import Block, Floats, LinearHeads
from sluice_moderation.domain.identity import marked
from sluice_moderation.domain.repair import Repairer

# All character n-grams together, as one entry: listed one by one they could spell out words that are not in the vocabulary.
CHARACTERS = "(character n-grams)"
# A category with several heads takes the highest; its reasons are the heads that reach a score of one half.
PARTS = {UNSAFE_MEDICAL_ADVICE: ("medical_dosage", "medical_diagnosis", "medical_stopping")}
_REASON_FROM = 0.0  # log-odds: a score of one half


# Texts longer than this are also read in pieces (characters); a piece ends at a space, and neighbours overlap.
LONG_FROM, PIECE, STEP = 200, 90, 50


def pieces_of(text: str) -> list[str]:
    """Overlapping pieces of a long text, cut at spaces where there are any."""
    found, start = [], 0
    while start < len(text):
        end = min(start + PIECE, len(text))
        if end < len(text) and (space := text.rfind(" ", start + STEP, end)) > 0:
            end = space
        found.append(text[start:end])
        if end == len(text):
            break
        space = text.find(" ", start + STEP, end)
        start = space + 1 if space > 0 else start + STEP
    return found


class LinearDetector:
    """Scores every category but secrets, and tells exactly which words moved a score.

    Identity terms are replaced by one mark before anything is computed, so that no group weighs more than another. A text with words
    that nobody knows is read a second time with those mended (domain/repair.py), a long one in pieces, too; the highest score counts.
    """

    name = "sluice-linear"
    categories = tuple(category for category in CATEGORIES if category != SECRETS)
    method = (
        "sluice-linear: log-odds that each word, pair (also with one word between, `a … b`) or triple of the model's own vocabulary added "
        "in the highest-scoring window (weight times the damping of its length; exact), identity terms as `idterm`, words quoted in the "
        "text marked `q:`; character n-grams are given as one sum."
    )

    def __init__(self, *, model: LinearHeads, repairer: Repairer, blend: Floats, digest: str) -> None:
        self.digest, self.blend = digest, blend
        self._model, self._repairer = model, repairer
        self._columns = [[model.heads.index(head) for head in PARTS.get(c, (c,))] for c in self.categories]

    @classmethod
    def load(cls, path: Path) -> LinearDetector:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            weights = file["weights"].astype(np.float32) * file["scale"].astype(np.float32)
            words, power = file["words"], file["powers"]
            model = LinearHeads(
                heads=tuple(bytes(file["heads"]).decode().split("\n")),
                words=Block(words, weights[: len(words)], float(power[0])),
                characters=Block(file["characters"], weights[len(words) :], float(power[1])),
                bias=file["bias"].astype(np.float32),
                names=bytes(file["names"]).decode().split("\n"),
            )
            known, charged = (frozenset(bytes(file[name]).decode().split("\n")) for name in ("known", "charged"))
            blend = file["blend"].astype(np.float32)
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        return cls(model=model, repairer=Repairer(known | charged, charged), blend=blend, digest=digest)

    @property
    def vocabulary(self) -> frozenset[str]:
        """Every word feature that an explanation can name."""
        return frozenset(self._model.names)

    def scores(self, texts: Sequence[str]) -> Scores:
        if not texts:
            return np.empty((0, len(self.categories)), np.float32)
        scores: Scores = (1.0 / (1.0 + np.exp(-self._category_logits(texts)))).astype(np.float32)
        return scores

    def _category_logits(self, texts: Sequence[str]) -> Floats:
        """Shape (len(texts), categories): the highest over both readings and over the heads of each category."""
        read = [marked(text) for text in texts]
        more = [(row, found) for row, text in enumerate(read) for found in self._readings(text)]
        logits = self._model.logits([*read, *(found for _, found in more)])
        for (row, _), again in zip(more, logits[len(read) :], strict=True):
            logits[row] = np.maximum(logits[row], again)
        return np.stack([logits[: len(read), columns].max(axis=1) for columns in self._columns], axis=1)

    def _readings(self, text: str) -> list[str]:
        """What else is read of a marked text: its words mended; a long one piece by piece, so that calm words do not dilute a rude one."""
        mended = self._mended(text)
        found = [mended] if mended != text else []
        if len(mended) > LONG_FROM:
            found += pieces_of(mended)
        return found

    def _mended(self, text: str) -> str:
        lowered = text.lower()
        found = self._repairer.repaired(lowered)
        return text if found == lowered else marked(found)

    def contributions(self, text: str, category: str, *, limit: int) -> list[tuple[str, float]]:
        """The `limit` features that moved the score most, largest first. Never anything outside the vocabulary."""
        read, head, _ = self._deciding(text, category)
        by_word, characters = self._model.contributions(read, head)
        return sorted([*by_word.items(), (CHARACTERS, characters)], key=lambda pair: -abs(pair[1]))[:limit]

    def reasons(self, text: str, category: str) -> tuple[str, ...]:
        """Which parts of a category were met, such as `medical_dosage`; empty for categories without parts."""
        if category not in PARTS:
            return ()
        logits = self._deciding(text, category)[2]
        return tuple(head for head, z in zip(PARTS[category], logits.tolist(), strict=True) if z >= _REASON_FROM)

    def _deciding(self, text: str, category: str) -> tuple[str, str, Floats]:
        """The reading and the head that gave a category's score, and the logits of all its heads in that reading."""
        read = marked(text)
        readings = [read, *self._readings(read)]
        columns = self._columns[self.categories.index(category)]
        logits = self._model.logits(readings)[:, columns]
        reading, head = np.unravel_index(int(logits.argmax()), logits.shape)
        return readings[reading], self._model.heads[columns[head]], logits[reading]
