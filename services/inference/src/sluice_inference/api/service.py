"""InferenceService over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as pb_grpc
from sluice.types.v1 import usage_pb2
from sluice_kit import context as request_context
from sluice_kit.errors import DeadlineExceeded

from sluice_inference.adapters import metrics
from sluice_inference.adapters.static_embedding import StaticEmbedding
from sluice_inference.api import responses
from sluice_inference.api.errors import told
from sluice_inference.api.requests import read_generation
from sluice_inference.domain.backend import Backend, Capabilities, ModelFacts
from sluice_inference.domain.conductor import Conductor, Session
from sluice_inference.domain.generation import Delta, Failed, Finished, FinishReason, Generation
from sluice_inference.domain.refusals import EngineFailed, EngineUnavailable, Overloaded, UnknownModel
from sluice_inference.domain.validation import Limits, admissible, check_embedding

# A call that ends this close to its deadline ended because of it: gRPC may cancel a moment before our own timer.
DEADLINE_SLACK_SECONDS = 0.05
# Embed calls at once, computing or waiting; each takes some milliseconds.
EMBED_LIMIT = 64


@dataclass
class Readiness:
    """True after the warm-up generation."""

    ready: bool = False


class InferenceServicer(pb_grpc.InferenceServiceServicer):
    """Translates, asks the domain, translates back."""

    def __init__(
        self, *, backend: Backend, conductor: Conductor, embedder: StaticEmbedding, limits: Limits, readiness: Readiness
    ) -> None:
        self._backend, self._conductor, self._embedder = backend, conductor, embedder
        self._limits, self._readiness = limits, readiness
        self._embedding_model = embedding_facts(embedder)
        self._embedding = 0

    async def Generate(self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext) -> pb.GenerateResponse:
        with told():
            session = self._begin(request.spec, context)
            deltas: list[Delta] = []
            async for event in session.events():
                match event:
                    case Delta():
                        deltas.append(event)
                    case Failed(message, retryable):
                        raise EngineUnavailable(message) if retryable else EngineFailed(message)
                    case Finished():
                        _refuse_late(event, context)
                        return self._whole(session.generation, deltas, event)
        raise AssertionError("a session ends with a terminal event")

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        with told():
            session = self._begin(request.spec, context)
            generation = session.generation
            accepted_at = Timestamp()
            accepted_at.GetCurrentTime()
            async with contextlib.aclosing(session.events()) as events:
                async for event in events:
                    yield responses.stream_event(
                        event,
                        request_id=generation.request_id,
                        model=self._backend.model,
                        accepted_at=accepted_at,
                        ids=generation.return_token_ids,
                        logprobs=generation.logprobs is not None,
                    )

    async def Embed(self, request: pb.EmbedRequest, context: grpc.aio.ServicerContext) -> pb.EmbedResponse:
        with told():
            if request.model and not self._embedding_model.is_called(request.model):
                raise UnknownModel(
                    f"there is no such embedding model here; this service runs {self._embedder.model_id}."
                )
            texts = tuple(request.texts)
            dimensions = request.dimensions if request.HasField("dimensions") else None
            check_embedding(
                texts,
                dimensions=dimensions,
                most_dimensions=self._embedder.dimensions,
                characters_limit=4 * self._limits.input_characters,
            )
            with self._embed_place():
                embedded = await asyncio.to_thread(self._embedder.embed, texts, dimensions=dimensions)
        metrics.EMBEDDED_TEXTS.inc(len(texts))
        return pb.EmbedResponse(
            model=self._embedder.model_id,
            embeddings=[pb.Embedding(values=row) for row in embedded.vectors.tolist()],
            usage=usage_pb2.TokenUsage(uncached_input_tokens=embedded.tokens),
        )

    async def Abort(self, request: pb.AbortRequest, context: grpc.aio.ServicerContext) -> pb.AbortResponse:
        return pb.AbortResponse(aborted=self._conductor.abort(request.request_id))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[self._info(model) for model in self._models()])

    async def GetModelInfo(
        self, request: pb.GetModelInfoRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetModelInfoResponse:
        with told():
            for model in self._models():
                if not request.model or model.is_called(request.model):
                    return pb.GetModelInfoResponse(model=self._info(model))
            raise UnknownModel("there is no such model here; ListModels tells those that are.")

    async def GetLoad(self, request: pb.GetLoadRequest, context: grpc.aio.ServicerContext) -> pb.GetLoadResponse:
        admission = self._conductor.admission
        return pb.GetLoadResponse(
            running_requests=admission.running,
            queued_requests=admission.queued,
            slots=admission.slots,
            queue_limit=admission.queue_limit,
            used_kv_tokens=self._conductor.kv_tokens_in_use(),
            total_kv_tokens=self._backend.model.max_context_tokens * admission.slots,
        )

    def _begin(self, spec: pb.GenerationSpec, context: grpc.aio.ServicerContext) -> Session:
        """Checks and submits; from here on the caller's absence stops the computation."""
        caller = request_context.current()
        # A caller may make several generations in one request (retries, shadows), so its request id names none of them.
        generation = read_generation(spec, request_id=uuid.uuid4().hex, cache_salt=caller.tenant_id)
        if not self._readiness.ready:
            raise EngineUnavailable("the model is still loading; try again soon.")
        generation = admissible(generation, model=self._backend.model, limits=self._limits)
        remaining = context.time_remaining()
        session = self._conductor.submit(generation, deadline_seconds=remaining)
        _stop_when_gone(session, context, remaining)
        return session

    def _whole(self, generation: Generation, deltas: list[Delta], end: Finished) -> pb.GenerateResponse:
        return responses.whole_answer(
            deltas,
            end,
            request_id=generation.request_id,
            model_id=self._backend.model.model_id,
            ids=generation.return_token_ids,
            logprobs=generation.logprobs is not None,
        )

    def _models(self) -> tuple[ModelFacts, ...]:
        return (self._backend.model, self._embedding_model)

    def _info(self, model: ModelFacts) -> pb.ModelInfo:
        return responses.model_message(model, ready=model is self._embedding_model or self._readiness.ready)

    @contextlib.contextmanager
    def _embed_place(self) -> Iterator[None]:
        if self._embedding >= EMBED_LIMIT:
            raise Overloaded(f"{EMBED_LIMIT} Embed calls are running, which is the limit.", retry_after_seconds=1.0)
        self._embedding += 1
        try:
            yield
        finally:
            self._embedding -= 1


def _refuse_late(end: Finished, context: grpc.aio.ServicerContext) -> None:
    """A whole answer cut by the caller's own deadline is DEADLINE_EXCEEDED, whichever of the two timers fires first."""
    left = context.time_remaining()
    if end.reason is FinishReason.TIMEOUT and left is not None and left < DEADLINE_SLACK_SECONDS:
        raise DeadlineExceeded("the deadline passed before the answer was whole.")


def _stop_when_gone(session: Session, context: grpc.aio.ServicerContext, remaining: float | None) -> None:
    """Stops the computation when the call ends, however it ends; after the terminal event this does nothing."""
    loop = asyncio.get_running_loop()
    deadline = None if remaining is None else loop.time() + remaining

    def call_ended(_: Any) -> None:
        is_late = deadline is not None and loop.time() >= deadline - DEADLINE_SLACK_SECONDS
        session.abort(FinishReason.TIMEOUT if is_late else FinishReason.CANCELLED)

    context.add_done_callback(call_ended)  # type: ignore[arg-type]  # grpc-stubs wants parameter names


def embedding_facts(embedder: StaticEmbedding) -> ModelFacts:
    return ModelFacts(
        model_id=embedder.model_id,
        backend="static_embedding",
        max_context_tokens=0,
        digest=embedder.digest,
        license=embedder.license,
        parameter_count=embedder.parameter_count,
        vocabulary_size=embedder.token_count,
        quant_algo="INT8",
        quant_group_size=embedder.dimensions,
        capabilities=Capabilities(chat=False, embed=True),
    )
