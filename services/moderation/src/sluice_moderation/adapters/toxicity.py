"""The six Jigsaw labels by tox-block's bidirectional LSTM, run in numpy.

A port of the Keras network (embedding 50, BiLSTM 2x50 with hard sigmoid, max pooling, dense 50, six sigmoids). Keras pads to
100 tokens on the left and does not mask, so the padding is part of the result: its effect on the forward pass is computed once,
on the backward pass until a row's state stands still. Largest difference from Keras: see MODEL_CARD.md.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sluice_moderation.domain.detector import TOXICITY_CATEGORIES, Scores
from sluice_moderation.domain.identity import neutralise

Array = npt.NDArray[np.float32]

_TOKENS = 100
_UNITS = 50
_OVERLAP = 20  # tokens that two chunks of a text with more than 100 tokens share
_BATCH = 64  # 68 us a text at 64 and at 256 (tests/bench/moderation_speed.py); smaller batches give other work a turn
# A backward state that moves less than this in one padding step is taken as at rest: changes no score by more than 6e-6.
_AT_REST = np.float32(1e-3)
_SEPARATORS = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))
_HOSTILE = [TOXICITY_CATEGORIES.index(c) for c in ("toxicity", "threat", "insult")]
_IDENTITY = TOXICITY_CATEGORIES.index("identity_attack")


def _step(gates: Array, cell: Array) -> tuple[Array, Array]:
    opened = np.clip(gates[..., : 3 * _UNITS], 0.0, 1.0)
    cell = opened[..., _UNITS : 2 * _UNITS] * cell + opened[..., :_UNITS] * np.tanh(gates[..., 3 * _UNITS :])
    return opened[..., 2 * _UNITS :] * np.tanh(cell), cell


@dataclass(frozen=True)
class _Network:
    embedding: Array
    kernel: Array
    recurrent: Array
    bias: Array
    dense_kernel: Array
    dense_bias: Array
    output_kernel: Array
    output_bias: Array


class BiLstmToxicity:
    """Toxicity detector, debiased: see `scores`."""

    name = "tox-block-bilstm"
    categories = TOXICITY_CATEGORIES

    def __init__(self, *, words: Sequence[str], network: _Network, digest: str) -> None:
        self.digest = digest
        self._index = {word: i + 1 for i, word in enumerate(words)}
        self._net = network
        self._padding = network.embedding[0] @ network.kernel + network.bias  # gates of a padding step, (2, 200)
        self._padded = self._forward_padding()

    @classmethod
    def load(cls, path: Path) -> BiLstmToxicity:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            words = bytes(file["vocabulary"]).decode().split("\n")
            network = _Network(**{name: file[name].astype(np.float32) for name in _Network.__dataclass_fields__})
        return cls(words=words, network=network, digest="sha256:" + hashlib.sha256(content).hexdigest())

    @property
    def words(self) -> list[str]:
        """The vocabulary, most frequent first."""
        return list(self._index)

    def scores(self, texts: Sequence[str]) -> Scores:
        """Scores with identity terms taken out of the judgement.

        A text with identity terms is scored twice, as it is and with neutral words in their place; every label takes the lower
        score. Identity attack takes min(own score, h) * h, where h is the hostility (highest of toxicity, threat, insult) that
        remains once the terms are neutral: naming a group is no attack, hostility towards it is. The factor h was chosen on the
        templates of training/evaluate.py: at equal recall it flags none of the neutral ones, min alone 6 in 100.
        """
        neutral = [neutralise(text) for text in texts]
        mentions = [i for i, n in enumerate(neutral) if n.groups]
        raw = self.raw_scores([*texts, *(neutral[i].text for i in mentions)])
        scores, counterfactual = raw[: len(texts)], raw[len(texts) :]
        hostility = counterfactual[:, _HOSTILE].max(axis=1, initial=0.0)
        identity = np.minimum(scores[mentions, _IDENTITY], hostility) * hostility
        scores[mentions] = np.minimum(scores[mentions], counterfactual)
        scores[mentions, _IDENTITY] = identity
        return scores

    def raw_scores(self, texts: Sequence[str]) -> Scores:
        """What the network itself says, shape (len(texts), 6); a text of more than 100 tokens takes its highest chunk."""
        chunks = [(row, chunk) for row, text in enumerate(texts) for chunk in self._chunks(text)]
        chunks.sort(key=lambda pair: -len(pair[1]))  # rows of one batch then have similar lengths
        scores = np.zeros((len(texts), len(self.categories)), np.float32)
        for start in range(0, len(chunks), _BATCH):
            batch = chunks[start : start + _BATCH]
            np.maximum.at(scores, [row for row, _ in batch], self._run([chunk for _, chunk in batch]))
        return scores

    def _chunks(self, text: str) -> list[list[int]]:
        words = text.lower().translate(_SEPARATORS).split(" ")
        tokens = [self._index[word] for word in words if word in self._index]
        last = max(len(tokens) - _OVERLAP, 1)
        return [tokens[start : start + _TOKENS] for start in range(0, last, _TOKENS - _OVERLAP)]

    def _forward_padding(self) -> tuple[Array, Array, Array]:
        """State, cell and running maximum of the forward pass after k = 0..100 padding steps, each (101, 50)."""
        hidden, cell = np.zeros(_UNITS, np.float32), np.zeros(_UNITS, np.float32)
        peak = np.full(_UNITS, -np.inf, np.float32)
        states = [(hidden, cell, peak)]
        for _ in range(_TOKENS):
            hidden, cell = _step(self._padding[0] + hidden @ self._net.recurrent[0], cell)
            peak = np.maximum(peak, hidden)
            states.append((hidden, cell, peak))
        hiddens, cells, peaks = zip(*states, strict=True)
        return np.stack(hiddens), np.stack(cells), np.stack(peaks)

    def _run(self, sequences: Sequence[Sequence[int]]) -> Scores:
        """Six probabilities for each token sequence; the sequences must come longest first."""
        net, lengths = self._net, np.array([len(s) for s in sequences])
        hidden, cell, peak = self._start(lengths)
        gates = self._input_gates(sequences)
        for t in range(int(lengths[0])):
            rows = int(np.searchsorted(-lengths, -t, side="left"))  # sequences that still have a token at t
            state, memory = _step(gates[:, t, :rows] + np.matmul(hidden[:, :rows], net.recurrent), cell[:, :rows])
            hidden[:, :rows], cell[:, :rows] = state, memory
            np.maximum(peak[:, :rows], state, out=peak[:, :rows])
        self._backward_padding(hidden[1], cell[1], peak[1], _TOKENS - lengths)
        pooled = np.concatenate([peak[0], peak[1]], axis=1)
        dense = np.maximum(pooled @ net.dense_kernel + net.dense_bias, 0.0)
        scores: Scores = 1.0 / (1.0 + np.exp(-(dense @ net.output_kernel + net.output_bias)))
        return scores

    def _start(self, lengths: npt.NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """The forward pass starts where its padding left it, the backward pass at zero; each (2, rows, 50)."""
        hidden, cell, peak = (np.zeros((2, len(lengths), _UNITS), np.float32) for _ in range(3))
        hidden[0], cell[0], peak[0] = (state[_TOKENS - lengths] for state in self._padded)
        peak[1] = -np.inf
        return hidden, cell, peak

    def _input_gates(self, sequences: Sequence[Sequence[int]]) -> Array:
        """What the tokens put into the gates, both ways, (2, longest, rows, 200)."""
        ids = np.zeros((2, max(len(sequences[0]), 1), len(sequences)), np.int64)
        for row, sequence in enumerate(sequences):
            ids[0, : len(sequence), row] = sequence
            ids[1, : len(sequence), row] = sequence[::-1]
        vectors = self._net.embedding[ids].reshape(2, -1, _UNITS)
        gates: Array = np.matmul(vectors, self._net.kernel) + self._net.bias[:, None]
        return gates.reshape(*ids.shape, 4 * _UNITS)

    def _backward_padding(self, hidden: Array, cell: Array, peak: Array, steps: npt.NDArray[np.int64]) -> None:
        """Let the padding run through the backward pass; each row stops by itself, so a batch does not change a score."""
        active = np.flatnonzero(steps > 0)
        for t in range(1, _TOKENS + 1):
            if not len(active):
                return
            state, cell[active] = _step(self._padding[1] + hidden[active] @ self._net.recurrent[1], cell[active])
            moved = np.abs(state - hidden[active]).max(axis=1)
            hidden[active] = state
            peak[active] = np.maximum(peak[active], state)
            active = active[(moved >= _AT_REST) & (steps[active] > t)]
