"""InferenceService over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as pb_grpc
from sluice.types.v1 import usage_pb2
from sluice_kit import context as request_context
from sluice_kit.errors import DeadlineExceeded

from sluice_inference.adapters import metrics
from sluice_inference.api import responses
from sluice_inference.api.errors import told
from sluice_inference.api.requests import read_generation
from sluice_inference.domain.embedding import EmbeddingBackend, find_embedder
from sluice_inference.domain.generation import Delta, Failed, Finished, FinishReason
from sluice_inference.domain.hosting import Hosting
from sluice_inference.domain.refusals import EngineFailed, EngineUnavailable, InvalidRequest, Overloaded
from sluice_inference.domain.roster import Hosted, ModelState, Roster
from sluice_inference.domain.session import Session
from sluice_inference.domain.validation import Limits, admissible, check_embedding

# A call that ends this close to its deadline ended because of it: gRPC may cancel a moment before our own timer.
DEADLINE_SLACK_SECONDS = 0.05
# Embed calls at once, computing or waiting; each takes some milliseconds.
EMBED_LIMIT = 64


class InferenceServicer(pb_grpc.InferenceServiceServicer):
    """Translates, asks the domain, translates back."""

    def __init__(
        self,
        *,
        roster: Roster,
        hosting: Hosting,
        embedders: Sequence[EmbeddingBackend],
        limits: Limits,
        drain_seconds: float,
    ) -> None:
        """`embedders`: the default one first; `drain_seconds`: for UnloadModel calls that give none."""
        self._roster, self._hosting, self._embedders = roster, hosting, tuple(embedders)
        self._limits, self._drain_seconds = limits, drain_seconds
        self._embedding = 0

    async def Generate(self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext) -> pb.GenerateResponse:
        with told():
            hosted, session = self._begin(request.spec, context)
            deltas: list[Delta] = []
            async for event in session.events():
                match event:
                    case Delta():
                        deltas.append(event)
                    case Failed(message, retryable):
                        raise EngineUnavailable(message) if retryable else EngineFailed(message)
                    case Finished():
                        _refuse_late(event, context)
                        return _whole(hosted, session, deltas, event)
        raise AssertionError("a session ends with a terminal event")

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        with told():
            hosted, session = self._begin(request.spec, context)
            generation = session.generation
            accepted_at = Timestamp()
            accepted_at.GetCurrentTime()
            async with contextlib.aclosing(session.events()) as events:
                async for event in events:
                    yield responses.stream_event(
                        event,
                        request_id=generation.request_id,
                        model=hosted.model,
                        accepted_at=accepted_at,
                        ids=generation.return_token_ids,
                        logprobs=generation.logprobs,
                    )

    async def Embed(self, request: pb.EmbedRequest, context: grpc.aio.ServicerContext) -> pb.EmbedResponse:
        with told():
            generating = [hosted.model for hosted in self._roster]
            embedder = find_embedder(request.model, embedders=self._embedders, generating=generating)
            texts = tuple(request.texts)
            dimensions = request.dimensions if request.HasField("dimensions") else None
            check_embedding(
                texts,
                dimensions=dimensions,
                most_dimensions=embedder.dimensions,
                characters_limit=4 * self._limits.input_characters,
            )
            with self._embed_place():
                embedded = await embedder.embed(texts, dimensions=dimensions)
        metrics.EMBEDDED_TEXTS.inc(len(texts))
        return pb.EmbedResponse(
            model=embedder.model.model_id,
            embeddings=[pb.Embedding(values=row) for row in embedded.vectors.tolist()],
            usage=usage_pb2.TokenUsage(uncached_input_tokens=embedded.tokens, estimated=embedded.estimated),
        )

    async def Abort(self, request: pb.AbortRequest, context: grpc.aio.ServicerContext) -> pb.AbortResponse:
        return pb.AbortResponse(aborted=self._roster.abort(request.request_id))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=list(self._infos()))

    async def GetModelInfo(
        self, request: pb.GetModelInfoRequest, context: grpc.aio.ServicerContext
    ) -> pb.GetModelInfoResponse:
        with told():
            for embedder in self._embedders:
                if embedder.model.is_called(request.model):
                    return pb.GetModelInfoResponse(model=_embedder_info(embedder))
            return pb.GetModelInfoResponse(model=_info(self._roster.find(request.model)))

    async def GetLoad(self, request: pb.GetLoadRequest, context: grpc.aio.ServicerContext) -> pb.GetLoadResponse:
        with told():
            hosted = [self._roster.find(request.model)] if request.model else list(self._roster)
        loads = [responses.load_message(one.load()) for one in hosted]
        names = ("running_requests", "queued_requests", "slots", "queue_limit", "used_kv_tokens", "total_kv_tokens")
        sums = {name: sum(getattr(load, name) for load in loads) for name in names}
        return pb.GetLoadResponse(models=loads, **sums)

    async def LoadModel(self, request: pb.LoadModelRequest, context: grpc.aio.ServicerContext) -> pb.LoadModelResponse:
        with told():
            hosted = self._named(request.model)
            await self._hosting.load_for_caller(hosted)
        return pb.LoadModelResponse(model=_info(hosted))

    async def UnloadModel(
        self, request: pb.UnloadModelRequest, context: grpc.aio.ServicerContext
    ) -> pb.UnloadModelResponse:
        with told():
            hosted = self._named(request.model)
            drain = request.drain.ToTimedelta().total_seconds() if request.HasField("drain") else self._drain_seconds
            stopped = await self._hosting.unload(hosted, drain_seconds=max(0.0, drain))
        return pb.UnloadModelResponse(model=_info(hosted), stopped_requests=stopped)

    def _named(self, name: str) -> Hosted:
        if not name:
            raise InvalidRequest("model", "model is empty; name the model that is meant.")
        return self._roster.find(name)

    def _begin(self, spec: pb.GenerationSpec, context: grpc.aio.ServicerContext) -> tuple[Hosted, Session]:
        """Checks and submits; from here on the caller's absence stops the computation."""
        caller = request_context.current()
        # A caller may make several generations in one request (retries, shadows), so its request id names none of them.
        generation = read_generation(spec, request_id=uuid.uuid4().hex, tenant_id=caller.tenant_id)
        hosted = self._roster.ready(generation.model)
        generation = admissible(generation, model=hosted.model, limits=self._limits)
        remaining = context.time_remaining()
        session = hosted.conductor.submit(generation, deadline_seconds=remaining)
        _stop_when_gone(session, context, remaining)
        return hosted, session

    def _infos(self) -> Iterator[pb.ModelInfo]:
        yield from map(_info, self._roster)
        yield from map(_embedder_info, self._embedders)

    @contextlib.contextmanager
    def _embed_place(self) -> Iterator[None]:
        if self._embedding >= EMBED_LIMIT:
            raise Overloaded(f"{EMBED_LIMIT} Embed calls are running, which is the limit.", retry_after_seconds=1.0)
        self._embedding += 1
        try:
            yield
        finally:
            self._embedding -= 1


def _info(hosted: Hosted) -> pb.ModelInfo:
    return responses.model_message(hosted.model, state=hosted.state)


def _embedder_info(embedder: EmbeddingBackend) -> pb.ModelInfo:
    return responses.model_message(embedder.model, state=ModelState.READY)


def _whole(hosted: Hosted, session: Session, deltas: list[Delta], end: Finished) -> pb.GenerateResponse:
    return responses.whole_answer(
        deltas,
        end,
        request_id=session.generation.request_id,
        model_id=hosted.model.model_id,
        ids=session.generation.return_token_ids,
        logprobs=session.generation.logprobs,
    )


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
