"""The pinned observations that windows are compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

import numpy as np

from sluice_drift.domain.observation import EMBEDDING_SCALE, Observation, Series
from sluice_drift.domain.sample import TextSample


@dataclass(slots=True)
class Reference:
    """The first observations of a series. It never changes once it is full; a new embedding model begins a new version.

    `offsets` (highest by source partition) says which observations belong to it, also after a replay: an observation
    is either in the reference or in a window's sample, so that the two stay independent.
    """

    series: Series
    partition: int
    version: int = 1
    embedding_model: str = ""
    retired_models: list[str] = field(default_factory=list)
    observations: int = 0
    pinned: bool = False
    first_at: int = 0
    last_at: int = 0
    offsets: dict[int, int] = field(default_factory=dict)
    prompt: TextSample = field(default_factory=TextSample)
    answer: TextSample = field(default_factory=TextSample)
    prompt_embeddings: list[bytes] = field(default_factory=list)
    answer_embeddings: list[bytes] = field(default_factory=list)

    @property
    def key(self) -> str:
        """What tells it apart everywhere."""
        return f"reference|{series_key(self.series)}|{self.partition}"

    def holds(self, observation: Observation) -> bool:
        """True when the observation was taken into the reference (or came before one that was)."""
        return observation.offset <= self.offsets.get(observation.source_partition, -1)

    def add(self, observation: Observation, *, size: int) -> None:
        """Take an observation in; pinned when `size` are there."""
        self.offsets[observation.source_partition] = observation.offset
        self.observations += 1
        self.first_at = min(self.first_at or observation.at, observation.at)
        self.last_at = max(self.last_at, observation.at)
        self.embedding_model = self.embedding_model or observation.embedding_model
        self.prompt.add(observation.prompt, observation.slices)
        self.answer.add(observation.answer, observation.slices)
        if observation.prompt and observation.prompt.embedding:
            self.prompt_embeddings.append(observation.prompt.embedding)
        if observation.answer and observation.answer.embedding:
            self.answer_embeddings.append(observation.answer.embedding)
        self.pinned = self.observations >= size

    def successor(self, embedding_model: str) -> Reference:
        """An empty reference for another embedding model."""
        return Reference(
            series=self.series,
            partition=self.partition,
            version=self.version + 1,
            embedding_model=embedding_model,
            retired_models=[*self.retired_models, self.embedding_model][-8:],
        )


def embedding_matrix(embeddings: list[bytes]) -> np.ndarray:
    """Vectors as rows, shape (n, d), float64; vectors of another length than the first are left out."""
    rows = [np.frombuffer(each, dtype="<i2") for each in embeddings]
    return np.array([row for row in rows if len(row) == len(rows[0])], dtype=np.float64) / EMBEDDING_SCALE


def series_key(series: Series) -> str:
    """`tenant|model`, percent-escaped."""
    return f"{quote(series.tenant_id, safe='@:.-_')}|{quote(series.model, safe='@:.-_')}"
