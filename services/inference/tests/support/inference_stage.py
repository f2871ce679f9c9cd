"""The whole service over real gRPC around any backend; only Kafka is played. What the tests of all backends share."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from sluice.events.v1 import inference_pb2 as events_pb
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as pb_grpc
from sluice.types.v1 import chat_pb2, generation_pb2
from sluice_inference.adapters.recorder import ModelObserver, ModelWitness, Recorder
from sluice_inference.adapters.static_embedding import StaticEmbedding, StaticEmbeddingBackend
from sluice_inference.api.service import InferenceServicer
from sluice_inference.domain.admission import Admission
from sluice_inference.domain.attribution import ShareMeter
from sluice_inference.domain.backend import Backend
from sluice_inference.domain.conductor import Conductor, TimeLimits
from sluice_inference.domain.embedding import EmbeddingBackend
from sluice_inference.domain.hosting import Hosting
from sluice_inference.domain.profiles import TextProfile, lengths
from sluice_inference.domain.refusals import EngineDied
from sluice_inference.domain.roster import Hosted, ModelState, Roster
from sluice_inference.domain.validation import Limits
from sluice_inference.settings import InferenceSettings
from sluice_kit.server import GrpcServer


@dataclass
class Outbox:
    """Keeps what would go to Kafka."""

    events: list[Message] = field(default_factory=list)

    async def publish(self, *events: Message) -> None:
        self.events.extend(events)

    async def measured(self, count: int = 1) -> list[events_pb.InferenceMeasured]:
        await until(lambda: len(self.events) >= count)
        return [event for event in self.events if isinstance(event, events_pb.InferenceMeasured)]


@dataclass
class Running:
    stub: Any
    channel: grpc.aio.Channel
    outbox: Outbox
    hosted: Hosted
    died: list[EngineDied]

    @property
    def conductor(self) -> Conductor:
        return self.hosted.conductor


async def until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def served(
    backend: Backend,
    *,
    home: Path,
    profiler: Callable[[str], TextProfile] = lengths,
    embedders: Sequence[EmbeddingBackend] = (),
    slots: int = 4,
    queue: int = 2,
    times: TimeLimits | None = None,
) -> AsyncIterator[Running]:
    """A loaded backend behind InferenceService on a free port. When it ends, everything has been stopped."""
    settings = InferenceSettings(home=home, grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=0)
    server, outbox, died = GrpcServer(service="inference", settings=settings), Outbox(), list[EngineDied]()
    recorder = Recorder(publisher=outbox, profile=profiler)
    observer = ModelObserver(
        model=lambda: backend.model,
        recorder=recorder,
        set_engine_health=partial(server.health.set, "engine"),
        end_process=died.append,
    )
    conductor = Conductor(
        backend=backend,
        admission=Admission(slots=slots, queue_limit=queue),
        meter=ShareMeter(cpu_clock=time.process_time, clock=time.monotonic),
        observer=observer,
        times=times or TimeLimits(),
        clock=time.monotonic,
    )
    hosted = Hosted(backend, conductor, ModelState.READY)
    roster = Roster([hosted])
    witness = ModelWitness(recorder=recorder, roster=roster, health=server.health)
    servicer = InferenceServicer(
        roster=roster,
        hosting=Hosting(witness=witness, clock=time.monotonic),
        drain_seconds=1.0,
        embedders=list(embedders) or [StaticEmbeddingBackend(StaticEmbedding())],
        limits=Limits(),
    )
    pb_grpc.add_InferenceServiceServicer_to_server(servicer, server.grpc)
    work = asyncio.create_task(recorder.run())
    await server.start(service_names=["sluice.inference.v1.InferenceService"])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Running(pb_grpc.InferenceServiceStub(channel), channel, outbox, hosted, died)
    await conductor.close()
    await recorder.drain(seconds=3)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await server.stop()


def spec(
    text: str = "Write a sentence about the sea.", *, tokens: int = 16, stop: tuple[str, ...] = (), **more: Any
) -> pb.GenerationSpec:
    """A chat of one user message; `sampling` and `ignore_eos` may be given, everything else goes to the spec."""
    message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=text)
    sampling = more.pop("sampling", generation_pb2.SamplingParameters(seed=7))
    stopping = generation_pb2.StoppingParameters(max_tokens=tokens, stop=stop)
    if more.pop("ignore_eos", False):
        stopping.ignore_eos = True
    if ids := more.pop("stop_token_ids", ()):
        stopping.stop_token_ids.extend(ids)
    if least := more.pop("min_tokens", 0):
        stopping.min_tokens = least
    if more.pop("include_stop", False):
        stopping.include_stop_in_output = True
    return pb.GenerationSpec(chat=pb.ChatInput(messages=[message]), sampling=sampling, stopping=stopping, **more)


def stream(running: Running, wanted: pb.GenerationSpec, **options: Any) -> Any:
    return running.stub.GenerateStream(pb.GenerateStreamRequest(spec=wanted), **options)


async def generate(running: Running, wanted: pb.GenerationSpec, **options: Any) -> pb.GenerateResponse:
    answer: pb.GenerateResponse = await running.stub.Generate(pb.GenerateRequest(spec=wanted), **options)
    return answer


async def refused(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The google.rpc details of a refusal by the names of their messages."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    found: dict[str, Any] = {}
    for detail in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    return found


def kinds(answers: list[pb.GenerateStreamResponse]) -> list[str]:
    return [str(answer.WhichOneof("event")) for answer in answers]


def text_of(answers: list[pb.GenerateStreamResponse], output: int = 0) -> str:
    return "".join(answer.token.text for answer in answers if answer.token.output_index == output)
