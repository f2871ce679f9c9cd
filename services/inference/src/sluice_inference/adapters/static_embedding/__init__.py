"""Sentence embeddings as weighted means of static token vectors (model2vec's idea); numpy and tokenizers only.

MODEL_CARD.md beside this file says where the vectors come from, under which licence, and what they are good for.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from sluice_inference.domain.backend import Capabilities, ModelFacts
from sluice_inference.domain.profiles import Embedded
from sluice_inference.domain.refusals import ModelUnusable

MODEL_ID = "sluice-static-minilm-256"
DIMENSIONS = 256
SHA256 = "698d63f9c06cb88607da357a5af7a26ce71ccd2fed03f0435fbc7939099c33a2"
LICENSE = "Apache-2.0"
FOLDER = Path(__file__).parent
_FILES = ("scales.npy", "vectors.npy", "vocab.txt")


class StaticEmbedding:
    """Fits domain.profiles.TextEmbedder. Safe to use from several threads."""

    model_id, dimensions, license = MODEL_ID, DIMENSIONS, LICENSE
    digest = f"sha256:{SHA256}"

    def __init__(self, folder: Path = FOLDER) -> None:
        """Raises ModelUnusable when the files are not the ones this code was released with."""
        _verify(folder)
        # Mapped, not read: pages of rare tokens never come into memory.
        self._vectors: NDArray[np.int8] = np.load(folder / "vectors.npy", mmap_mode="r")
        self._scales: NDArray[np.float32] = np.load(folder / "scales.npy").astype(np.float32)
        self._tokenizer = _tokenizer(folder / "vocab.txt")
        self.token_count, self.parameter_count = self._vectors.shape[0], self._vectors.size

    def embed(self, texts: Sequence[str], *, dimensions: int | None = None) -> Embedded:
        """The first `dimensions` principal directions of each text, scaled to length 1."""
        width = dimensions or DIMENSIONS
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        vectors = np.stack([self._sum(row, width) for row in ids]) if ids else np.zeros((0, width), np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (vectors / np.where(lengths == 0, 1.0, lengths)).astype(np.float32)
        return Embedded(unit, sum(map(len, ids)))

    def _sum(self, ids: list[int], width: int) -> NDArray[np.float32]:
        """The direction of the mean; its length goes away with the scaling."""
        if not ids:
            return np.zeros(width, np.float32)
        unique, counts = np.unique(np.asarray(ids), return_counts=True)
        return (self._scales[unique] * counts) @ self._vectors[unique, :width].astype(np.float32)


class StaticEmbeddingBackend:
    """Fits domain.embedding.EmbeddingBackend: the packaged model, off the event loop."""

    dimensions = DIMENSIONS

    def __init__(self, embedder: StaticEmbedding) -> None:
        self._embedder = embedder
        self.model = ModelFacts(
            model_id=embedder.model_id,
            backend="static_embedding",
            digest=embedder.digest,
            license=embedder.license,
            parameter_count=embedder.parameter_count,
            vocabulary_size=embedder.token_count,
            quant_algo="INT8",
            quant_group_size=embedder.dimensions,
            capabilities=Capabilities(chat=False, embed=True, sampling=frozenset()),
        )

    async def embed(self, texts: Sequence[str], *, dimensions: int | None) -> Embedded:
        return await asyncio.to_thread(self._embedder.embed, texts, dimensions=dimensions)


def _verify(folder: Path) -> None:
    total = hashlib.sha256()
    try:
        for name in _FILES:
            total.update((folder / name).read_bytes())
    except OSError as error:
        raise ModelUnusable(
            f"The embedding model in {folder} cannot be read ({error.strerror}); install again."
        ) from error
    if total.hexdigest() != SHA256:
        raise ModelUnusable(
            f"The embedding model in {folder} is damaged: its sha256 is {total.hexdigest()}; install again."
        )


def _tokenizer(vocabulary: Path) -> Tokenizer:
    """BERT's uncased WordPiece, as the teacher's."""
    tokens = vocabulary.read_text(encoding="utf-8").splitlines()
    tokenizer = Tokenizer(WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer
