"""Starts the inference service."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from functools import partial
from typing import Any

from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as pb_grpc
from sluice_kit.process import StartFailed, run
from sluice_kit.publisher import EventPublisher
from sluice_kit.server import GrpcServer
from sluice_kit.settings import load
from sluice_kit.telemetry import configure

from sluice_inference.adapters.backends import open_backend, open_embedder
from sluice_inference.adapters.languages import Langid
from sluice_inference.adapters.model_list import (
    BadModelList,
    LlamaCppEntry,
    ModelEntry,
    ModelList,
    read_model_list,
    with_self_test,
)
from sluice_inference.adapters.recorder import ModelObserver, ModelWitness, Recorder
from sluice_inference.adapters.static_embedding import StaticEmbedding, StaticEmbeddingBackend
from sluice_inference.api.service import InferenceServicer
from sluice_inference.domain.admission import Admission
from sluice_inference.domain.attribution import ShareMeter
from sluice_inference.domain.backend import Backend
from sluice_inference.domain.conductor import Conductor, TimeLimits
from sluice_inference.domain.hosting import Hosting
from sluice_inference.domain.profiles import profile
from sluice_inference.domain.refusals import EngineDied, ModelUnusable
from sluice_inference.domain.roster import Hosted, Roster
from sluice_inference.domain.validation import Limits
from sluice_inference.settings import InferenceSettings

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
STOP_PUBLISHER_SECONDS = 10.0


def main() -> None:
    settings = load(InferenceSettings)
    models = listed_models(settings)
    configure("inference", settings)
    run(partial(serve, settings, models))


def listed_models(settings: InferenceSettings) -> ModelList:
    """The file's models, or the one that the settings describe. On mistakes prints every one and exits with code 2."""
    variable = "SLUICE_INFERENCE_MODELS_FILE"
    try:
        listed = (
            read_model_list(settings.models_file) if settings.models_file else ModelList(models=(only_model(settings),))
        )
        if not settings.self_test_model:
            return listed
        variable = "SLUICE_INFERENCE_SELF_TEST_MODEL"
        return with_self_test(listed, settings.self_test_model)
    except BadModelList as error:
        for mistake in error.mistakes:
            print(f"{variable}: {mistake}", file=sys.stderr)
        raise SystemExit(2) from None


def only_model(settings: InferenceSettings) -> LlamaCppEntry:
    return LlamaCppEntry(
        backend="llama_cpp",
        id=settings.model_id,
        aliases=tuple(alias.strip() for alias in settings.model_aliases.split(",") if alias.strip()),
        path=settings.model_path,
        sha256=settings.model_sha256,
        slots=settings.slots,
        queue_limit=settings.queue_limit,
        context_tokens=settings.context_tokens,
        max_output_tokens=settings.max_output_tokens,
        threads=settings.threads,
        generation_seconds=settings.generation_seconds,
        stall_seconds=settings.stall_seconds,
    )


async def serve(settings: InferenceSettings, models: ModelList) -> None:
    try:
        backends = [await asyncio.to_thread(open_backend, entry) for entry in models.models]
        embedder = await asyncio.to_thread(StaticEmbedding)
        await Service(settings, models, backends, embedder).run()
    except ModelUnusable as error:
        raise StartFailed(str(error)) from error


class Service:
    """The process's parts, put together."""

    def __init__(
        self, settings: InferenceSettings, models: ModelList, backends: list[Backend], embedder: StaticEmbedding
    ) -> None:
        self._server = GrpcServer(service="inference", settings=settings)
        self._publisher = EventPublisher(producer=f"sluice-inference/{settings.instance}", settings=settings)
        self._recorder = Recorder(
            publisher=self._publisher,
            profile=partial(profile, detector=Langid(), embedder=embedder),
            told_tools=settings.told_tool_names,
        )
        self._died: asyncio.Future[EngineDied] = asyncio.get_running_loop().create_future()
        self._meter = ShareMeter(cpu_clock=time.process_time, clock=time.monotonic)
        self._patient: list[asyncio.Task[None]] = []
        self._at_start = [entry.load for entry in models.models]
        self._roster = Roster(
            [
                Hosted(backend, self._conductor(entry, backend), is_lasting=entry.load)
                for entry, backend in zip(models.models, backends, strict=True)
            ]
        )
        self._hosting = Hosting(
            witness=ModelWitness(recorder=self._recorder, roster=self._roster, health=self._server.health),
            clock=time.monotonic,
        )
        self._embedders = [open_embedder(entry) for entry in models.embedders]
        servicer = InferenceServicer(
            roster=self._roster,
            hosting=self._hosting,
            embedders=[StaticEmbeddingBackend(embedder), *self._embedders],
            limits=Limits(messages=settings.max_messages, input_characters=settings.max_input_characters),
            drain_seconds=settings.drain_seconds,
        )
        pb_grpc.add_InferenceServiceServicer_to_server(servicer, self._server.grpc)
        self._server.health.set("model", False)

    def _conductor(self, entry: ModelEntry, backend: Backend) -> Conductor:
        observer = ModelObserver(
            model=lambda: backend.model,
            recorder=self._recorder,
            set_engine_health=partial(self._server.health.set, "engine"),
            end_process=self._end,
        )
        return Conductor(
            backend=backend,
            admission=Admission(slots=entry.slots, queue_limit=entry.queue_limit),
            meter=self._meter,
            observer=observer,
            times=TimeLimits(entry.generation_seconds, entry.watch_seconds),
            clock=time.monotonic,
        )

    async def run(self) -> None:
        """Serves until a stop signal; raises ModelUnusable when a model cannot be brought up at start, or an engine dies."""
        await self._publisher.start()
        measuring = asyncio.create_task(self._recorder.run())
        serving = asyncio.create_task(self._server.run(service_names=[SERVICE_NAME]))
        loading = asyncio.create_task(self._load())
        awaited: set[asyncio.Future[Any]] = {serving, loading, self._died}
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                await loading
            await asyncio.wait(awaited - {loading}, return_when=asyncio.FIRST_COMPLETED)
            if self._died.done():
                raise ModelUnusable(f"The engine died and must be started anew: {self._died.result().message}")
            await serving
        finally:
            for task in (serving, *self._patient):
                task.cancel()
            await asyncio.gather(serving, loading, *self._patient, return_exceptions=True)
            await self._stop(measuring)

    async def _load(self) -> None:
        """One after the other: two engines that start at once fight for the same cores and memory."""
        for hosted, at_start in zip(self._roster, self._at_start, strict=True):
            if at_start and hosted.model.computes_here:
                await self._hosting.load(hosted)
        for hosted, at_start in zip(self._roster, self._at_start, strict=True):
            if at_start and not hosted.model.computes_here:
                self._patient.append(asyncio.create_task(self._hosting.load_patiently(hosted)))

    def _end(self, error: EngineDied) -> None:
        if not self._died.done():
            self._died.set_result(error)

    async def _stop(self, measuring: asyncio.Task[None]) -> None:
        """In the order of the flow: no generation, then no measurement, then no event is left."""
        await asyncio.gather(*(hosted.conductor.close() for hosted in self._roster))
        await self._recorder.drain(seconds=3.0)
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            # What is not sent stays in the outbox; a client that does not let go must not keep the process alive.
            await asyncio.wait_for(self._publisher.stop(), STOP_PUBLISHER_SECONDS)
        for hosted in self._roster:
            await hosted.backend.close()
        for embedder in self._embedders:
            await embedder.close()


if __name__ == "__main__":
    main()
