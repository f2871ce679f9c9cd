"""Starts the inference service."""

from __future__ import annotations

import asyncio
import contextlib
import time
from functools import partial
from pathlib import Path

from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as pb_grpc
from sluice_kit.process import StartFailed, run
from sluice_kit.publisher import EventPublisher
from sluice_kit.server import GrpcServer
from sluice_kit.settings import load
from sluice_kit.telemetry import configure, logger

from sluice_inference.adapters import gguf, model_file
from sluice_inference.adapters.languages import Langid
from sluice_inference.adapters.llama_cpp import LlamaCpp, LlamaCppOptions, model_facts
from sluice_inference.adapters.recorder import Recorder
from sluice_inference.adapters.static_embedding import StaticEmbedding
from sluice_inference.api.service import InferenceServicer, Readiness
from sluice_inference.domain.admission import Admission
from sluice_inference.domain.attribution import ShareMeter
from sluice_inference.domain.conductor import Conductor, TimeLimits
from sluice_inference.domain.profiles import profile
from sluice_inference.domain.refusals import ModelUnusable
from sluice_inference.domain.validation import Limits
from sluice_inference.domain.warm_up import bring_up
from sluice_inference.settings import InferenceSettings

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
STOP_PUBLISHER_SECONDS = 10.0
log = logger(__name__)


def main() -> None:
    settings = load(InferenceSettings)
    configure("inference", settings)
    run(partial(serve, settings))


async def serve(settings: InferenceSettings) -> None:
    try:
        backend = await asyncio.to_thread(open_backend, settings)
        embedder = await asyncio.to_thread(StaticEmbedding)
        await Service(settings, backend, embedder).run()
    except ModelUnusable as error:
        raise StartFailed(str(error)) from error


def open_backend(settings: InferenceSettings) -> LlamaCpp:
    """Proves the model file and describes the model; loads nothing yet. Raises ModelUnusable."""
    path: Path = settings.model_path or model_file.locate_packaged()
    expected = settings.model_sha256 or ("" if settings.model_path else model_file.PACKAGED_SHA256)
    digest = model_file.verify(path, expected_sha256=expected)
    try:
        facts = gguf.read_facts(path)
    except gguf.NotGguf as error:
        raise ModelUnusable(
            f"The model file {path} cannot be used: {error}; set SLUICE_INFERENCE_MODEL_PATH."
        ) from error
    model = model_facts(
        facts,
        model_id=settings.model_id,
        aliases=[alias.strip() for alias in settings.model_aliases.split(",") if alias.strip()],
        digest=digest,
        context_tokens=settings.context_tokens,
        most_output_tokens=settings.max_output_tokens,
    )
    options = LlamaCppOptions(path, settings.slots, settings.context_tokens, settings.threads)
    return LlamaCpp(options, model=model, gguf=facts)


class Service:
    """The process's parts, put together."""

    def __init__(self, settings: InferenceSettings, backend: LlamaCpp, embedder: StaticEmbedding) -> None:
        self._backend, self._readiness = backend, Readiness()
        self._server = GrpcServer(service="inference", settings=settings)
        self._publisher = EventPublisher(producer=f"sluice-inference/{settings.instance}", settings=settings)
        self._recorder = Recorder(
            model=backend.model,
            publisher=self._publisher,
            profile=partial(profile, detector=Langid(), embedder=embedder),
            set_engine_health=partial(self._server.health.set, "engine"),
        )
        self._conductor = Conductor(
            backend=backend,
            admission=Admission(slots=settings.slots, queue_limit=settings.queue_limit),
            meter=ShareMeter(cpu_clock=time.process_time, clock=time.monotonic),
            observer=self._recorder,
            times=TimeLimits(settings.generation_seconds, settings.stall_seconds),
            clock=time.monotonic,
        )
        limits = Limits(messages=settings.max_messages, input_characters=settings.max_input_characters)
        servicer = InferenceServicer(
            backend=backend, conductor=self._conductor, embedder=embedder, limits=limits, readiness=self._readiness
        )
        pb_grpc.add_InferenceServiceServicer_to_server(servicer, self._server.grpc)
        self._server.health.set("model", False)

    async def run(self) -> None:
        """Serves until a stop signal; raises ModelUnusable when the model cannot be brought up."""
        await self._publisher.start()
        measuring = asyncio.create_task(self._recorder.run())
        serving = asyncio.create_task(self._server.run(service_names=[SERVICE_NAME]))
        loading = asyncio.create_task(self._load())
        try:
            await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                await loading
            await serving
        finally:
            serving.cancel()
            await asyncio.gather(serving, loading, return_exceptions=True)
            await self._stop(measuring)

    async def _load(self) -> None:
        seconds = await bring_up(self._backend, clock=time.monotonic)
        self._readiness.ready = True
        self._server.health.set("model", True)
        log.info(
            "model.loaded",
            model=self._backend.model.model_id,
            digest=self._backend.model.digest,
            seconds=round(seconds, 2),
        )
        await self._recorder.model_loaded(seconds)

    async def _stop(self, measuring: asyncio.Task[None]) -> None:
        """In the order of the flow: no generation, then no measurement, then no event is left."""
        self._readiness.ready = False
        await self._conductor.close()
        await self._recorder.drain(seconds=3.0)
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            # What is not sent stays in the outbox; a client that does not let go must not keep the process alive.
            await asyncio.wait_for(self._publisher.stop(), STOP_PUBLISHER_SECONDS)
        await self._backend.close()


if __name__ == "__main__":
    main()
