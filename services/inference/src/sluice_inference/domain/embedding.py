"""Models that turn texts into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sluice_inference.domain.backend import ModelFacts
from sluice_inference.domain.profiles import Embedded
from sluice_inference.domain.refusals import UnknownModel, UnsupportedRequest


class EmbeddingBackend(Protocol):
    """An embedding model, ready when it is built."""

    @property
    def model(self) -> ModelFacts: ...

    @property
    def dimensions(self) -> int:
        """Most dimensions it gives; 0 = not known before the first call."""

    async def embed(self, texts: Sequence[str], *, dimensions: int | None) -> Embedded:
        """Vectors in the order of the texts, cut to `dimensions`, each of length 1. Raises InferenceRefusal."""


def find_embedder(
    name: str, *, embedders: Sequence[EmbeddingBackend], generating: Sequence[ModelFacts]
) -> EmbeddingBackend:
    """An empty name means the first. Raises UnsupportedRequest for a generating model, UnknownModel."""
    for embedder in embedders:
        if not name or embedder.model.is_called(name):
            return embedder
    if any(model.is_called(name) for model in generating):
        raise UnsupportedRequest(f"{name} generates text and makes no embeddings here; ListModels tells which do.")
    raise UnknownModel("there is no such embedding model here; ListModels tells those that are.")
