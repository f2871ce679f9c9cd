"""The pinned observations that windows are compared with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import quote

import numpy as np

from sluice_drift.domain.observation import EMBEDDING_SCALE, Observation, Series
from sluice_drift.domain.sample import TextSample, marks_of
from sluice_drift.domain.topics import cut_topics, topic_of


@dataclass(slots=True)
class Reference:
    """The first observations of a series, or those after a command. It never changes once it is full.

    A new embedding model begins a new version at once, a command one that takes over when it is full.

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
    request: TextSample = field(default_factory=TextSample)
    """How the first requests ended; they are counted apart from the texts, and full by themselves."""
    requests_pinned: bool = False
    prompt_topics: list[bytes] = field(default_factory=list)
    answer_topics: list[bytes] = field(default_factory=list)
    """Centres of the topics, cut when the texts are full."""
    prompts_uncounted: list[tuple[int, bytes]] = field(default_factory=list)
    answers_uncounted: list[tuple[int, bytes]] = field(default_factory=list)
    """Texts of which the topics will be counted, by the place of their embedding, with the marks of their slices: the others cut
    them, and a cut fits best the texts that made it. No more than that, for all of this is one record."""
    command: str = ""
    """Id of the command that asked for this version; empty for a first one."""
    after: dict[int, int] = field(default_factory=dict)
    """Highest offsets that were known at the command, by source partition."""
    since: int = 0
    """Windows that begin earlier are compared with the version before."""
    proposed: bool = False
    """True from the command until it takes over."""
    uncounted: list[Observation] = field(default_factory=list)
    """What an earlier release stored in place of `prompts_uncounted` and `answers_uncounted`; empty once it is read."""

    def __post_init__(self) -> None:
        for side, embeddings, uncounted in (
            ("prompt", self.prompt_embeddings, self.prompts_uncounted),
            ("answer", self.answer_embeddings, self.answers_uncounted),
        ):
            place = -1  # both are in the order in which they came
            for observation in self.uncounted:
                profile = getattr(observation, side)
                if profile and profile.embedding:
                    place = embeddings.index(profile.embedding, place + 1)
                    uncounted.append((place, marks_of(profile, observation.slices)))
        self.uncounted = []

    @property
    def key(self) -> str:
        """What tells it apart everywhere."""
        version = f"{self.version}|" if self.version > 1 else ""
        return f"reference|{series_key(self.series)}|{version}{self.partition}"

    def holds(self, observation: Observation) -> bool:
        """True when the observation was taken into the reference (or came before one that was)."""
        return observation.offset <= self.offsets.get(observation.source_partition, -1)

    def took(self, observation: Observation) -> bool:
        """True when it lies between the first and the last that were taken."""
        return observation.offset > self.after.get(observation.source_partition, -1) and self.holds(observation)

    def collects(self, observation: Observation) -> bool:
        """True while observations of this kind are wanted, and this one is new."""
        is_full = self.requests_pinned if observation.request else self.pinned
        known = max(
            self.offsets.get(observation.source_partition, -1), self.after.get(observation.source_partition, -1)
        )
        return not is_full and observation.offset > known

    def is_ready(self, side: str) -> bool:
        """True when the side is full."""
        return self.requests_pinned if side == "request" else self.pinned

    def add(self, observation: Observation, *, size: int) -> None:
        """Take an observation in; its kind is full when `size` are there."""
        self.offsets[observation.source_partition] = observation.offset
        if observation.request:
            self.request.add(observation.request, observation.slices)
            self.requests_pinned = self.request.observations >= size
            return
        self._add_texts(observation)
        self.pinned = self.observations >= size
        if self.pinned:
            self._cut_topics()

    def placed(self, observation: Observation) -> Observation:
        """With the topics of its texts."""
        prompt, answer = observation.prompt, observation.answer
        return replace(
            observation,
            prompt=prompt and prompt.told("topic", topic_of(prompt.embedding, self.prompt_topics)),
            answer=answer and answer.told("topic", topic_of(answer.embedding, self.answer_topics)),
        )

    def _add_texts(self, observation: Observation) -> None:
        self.observations += 1
        self.first_at = min(self.first_at or observation.at, observation.at)
        self.last_at = max(self.last_at, observation.at)
        self.embedding_model = self.embedding_model or observation.embedding_model
        self.prompt.add(observation.prompt, observation.slices)
        self.answer.add(observation.answer, observation.slices)
        for profile, embeddings, uncounted in (
            (observation.prompt, self.prompt_embeddings, self.prompts_uncounted),
            (observation.answer, self.answer_embeddings, self.answers_uncounted),
        ):
            if profile and profile.embedding:
                if _is_counted(observation):
                    uncounted.append((len(embeddings), marks_of(profile, observation.slices)))
                embeddings.append(profile.embedding)

    def _cut_topics(self) -> None:
        """Some texts cut the topics, the others are counted in them: no text of a window cut them either."""
        for sample, embeddings, uncounted, centres in (
            (self.prompt, self.prompt_embeddings, self.prompts_uncounted, self.prompt_topics),
            (self.answer, self.answer_embeddings, self.answers_uncounted, self.answer_topics),
        ):
            counted = {place for place, _ in uncounted}
            centres += cut_topics(each for place, each in enumerate(embeddings) if place not in counted)
            for place, marks in uncounted:
                topic = topic_of(embeddings[place], centres)
                if topic:
                    sample.add_facts([("topic", topic)], marks)
            uncounted.clear()

    def proposal(self, command: str, after: dict[int, int]) -> Reference:
        """An empty reference that will take this one's place."""
        return Reference(
            series=self.series,
            partition=self.partition,
            version=self.version + 1,
            embedding_model=self.embedding_model,
            retired_models=list(self.retired_models),
            command=command,
            after=after,
            proposed=True,
        )

    def replaces(self, current: Reference) -> bool:
        """True when it is full of all that the current one is full of."""
        missing = (current.pinned and not self.pinned) or (current.requests_pinned and not self.requests_pinned)
        return self.proposed and not missing and (self.pinned or self.requests_pinned)

    def successor(self, embedding_model: str) -> Reference:
        """An empty reference for another embedding model."""
        return Reference(
            series=self.series,
            partition=self.partition,
            version=self.version + 1,
            embedding_model=embedding_model,
            retired_models=[*self.retired_models, self.embedding_model][-8:],
        )


def _is_counted(observation: Observation) -> bool:
    """Every second text or so, by the hash of its event's id, which has nothing to do with the text."""
    return bool((observation.mark or observation.offset) & 1)


def embedding_matrix(embeddings: list[bytes]) -> np.ndarray:
    """Vectors as rows, shape (n, d), float64; vectors of another length than the first are left out."""
    rows = [np.frombuffer(each, dtype="<i2") for each in embeddings]
    return np.array([row for row in rows if len(row) == len(rows[0])], dtype=np.float64) / EMBEDDING_SCALE


def series_key(series: Series) -> str:
    """`tenant|model`, percent-escaped."""
    return f"{quote(series.tenant_id, safe='@:.-_')}|{quote(series.model, safe='@:.-_')}"
