"""The models of this service: which name means which, and which of them answers now."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sluice_inference.domain.backend import Backend, ModelFacts
from sluice_inference.domain.conductor import Conductor
from sluice_inference.domain.refusals import EngineUnavailable, UnknownModel


class ModelState(enum.Enum):
    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    UNLOADING = "unloading"
    FAILED = "failed"


@dataclass(frozen=True)
class Load:
    """How busy one model is; tokens 0 = not known."""

    model_id: str
    ready: bool
    running: int
    queued: int
    slots: int
    queue_limit: int
    used_kv_tokens: int
    total_kv_tokens: int
    expected_wait_seconds: float


@dataclass
class Hosted:
    """One model with its backend and everything that runs on it."""

    backend: Backend
    conductor: Conductor
    state: ModelState = ModelState.UNLOADED
    is_lasting: bool = True  # a model that the service needs to be healthy

    @property
    def model(self) -> ModelFacts:
        return self.backend.model

    @property
    def is_ready(self) -> bool:
        return self.state is ModelState.READY

    def load(self) -> Load:
        admission = self.conductor.admission
        room = self.model.max_context_tokens * admission.slots
        used, total = self.backend.kv_tokens() or (self.conductor.kv_tokens_in_use(), room)
        return Load(
            model_id=self.model.model_id,
            ready=self.is_ready,
            running=admission.running,
            queued=admission.queued,
            slots=admission.slots,
            queue_limit=admission.queue_limit,
            used_kv_tokens=used,
            total_kv_tokens=total,
            expected_wait_seconds=admission.expected_wait_seconds() if admission.running == admission.slots else 0.0,
        )


class Roster:
    """Hosted models, the default one first. Names are ids, aliases, and either with `@version`."""

    def __init__(self, hosted: Sequence[Hosted]) -> None:
        self._hosted = list(hosted)

    def __iter__(self) -> Iterator[Hosted]:
        return iter(self._hosted)

    def find(self, name: str) -> Hosted:
        """The model of this name, ready or not; several versions of one name: the first that is ready. Raises UnknownModel."""
        named = [hosted for hosted in self._hosted if not name or hosted.model.is_called(name)]
        if not named:
            raise UnknownModel("there is no such model here; ListModels tells those that are.")
        if not name:
            return named[0]
        return next((hosted for hosted in named if hosted.is_ready), named[0])

    def ready(self, name: str) -> Hosted:
        """The same, but raises EngineUnavailable when it does not answer now."""
        hosted = self.find(name)
        if not hosted.is_ready:
            raise EngineUnavailable(f"{hosted.model.model_id} is {hosted.state.value}; try again soon.")
        return hosted

    def abort(self, request_id: str) -> bool:
        """Stops the request wherever it runs; False when it runs nowhere."""
        return any(hosted.conductor.abort(request_id) for hosted in self._hosted)
