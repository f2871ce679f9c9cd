"""Loading and unloading: one change at a time, readiness by model, nothing left running."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluice_inference.adapters.recorder import ModelWitness, Recorder
from sluice_inference.domain.admission import Admission
from sluice_inference.domain.attribution import ShareMeter
from sluice_inference.domain.backend import EngineEnded, ModelFacts, NewTokens, PromptProgress
from sluice_inference.domain.conductor import Conductor, TimeLimits
from sluice_inference.domain.generation import FinishReason, Generation, RawPrompt, StopMatch, Stopping
from sluice_inference.domain.hosting import Hosting
from sluice_inference.domain.measurement import Measurement
from sluice_inference.domain.profiles import lengths
from sluice_inference.domain.refusals import EngineDied, EngineFailed, EngineUnavailable, ModelUnusable, UnknownModel
from sluice_inference.domain.roster import Hosted, ModelState, Roster
from sluice_inference.settings import InferenceSettings
from sluice_kit.server import GrpcServer

SERVICE = "sluice.inference.v1.InferenceService"


class Run:
    """Gives one token and goes on until it is stopped, or ends at once."""

    def __init__(self, *, endless: bool) -> None:
        self._endless, self._stopped = endless, asyncio.Event()

    async def __aiter__(self):
        yield PromptProgress(1, 0)
        yield NewTokens("x", 1)
        if self._endless:
            await self._stopped.wait()
        yield EngineEnded(FinishReason.STOP, StopMatch(), 1, 0, 1)

    def stop(self) -> None:
        self._stopped.set()

    async def closed(self) -> None: ...


@dataclass
class Engine:
    model: ModelFacts
    name: str = "played"
    runs_outputs_together: bool = False
    loads: int = 0
    closes: int = 0
    fault: ModelUnusable | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def kv_tokens(self) -> None: ...

    async def load(self) -> None:
        self.loads += 1
        await self.gate.wait()
        if self.fault:
            raise self.fault

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> Run:
        return Run(endless=generation.request_id == "endless")

    async def close(self) -> None:
        self.closes += 1


class Silent:
    """An observer and a witness that keeps what it hears."""

    def __init__(self) -> None:
        self.states: list[ModelState] = []
        self.failures: list[ModelUnusable] = []

    def load_changed(self, *, running: int, queued: int) -> None: ...

    def engine_responds(self, responds: bool) -> None: ...

    def engine_broke(self, error: Exception) -> None: ...

    def engine_died(self, error: EngineDied) -> None: ...

    def finished(self, measurement: Measurement) -> None: ...

    def state_changed(self, hosted: Hosted) -> None:
        self.states.append(hosted.state)

    async def loaded(self, hosted: Hosted, seconds: float) -> None: ...

    def load_failed(self, hosted: Hosted, error: ModelUnusable) -> None:
        self.failures.append(error)


def hosted(name: str, *, version: str = "", aliases: tuple[str, ...] = ()) -> Hosted:
    engine = Engine(ModelFacts(name, "played", aliases=aliases, version=version))
    engine.gate.set()
    conductor = Conductor(
        backend=engine,
        admission=Admission(slots=1, queue_limit=1),
        meter=ShareMeter(cpu_clock=time.process_time, clock=time.monotonic),
        observer=Silent(),
        times=TimeLimits(),
        clock=time.monotonic,
    )
    return Hosted(engine, conductor)


def engine_of(one: Hosted) -> Engine:
    assert isinstance(one.backend, Engine)
    return one.backend


def request(name: str) -> Generation:
    return Generation(name, "m", RawPrompt("hi"), stopping=Stopping(max_tokens=9))


async def test_a_model_is_loaded_once_however_many_ask() -> None:
    witness, one = Silent(), hosted("m")
    hosting = Hosting(witness=witness, clock=time.monotonic)
    await asyncio.gather(*(hosting.load(one) for _ in range(4)))
    await hosting.load(one)
    assert engine_of(one).loads == 1
    assert witness.states == [ModelState.LOADING, ModelState.READY]


async def test_loading_goes_on_when_whoever_asked_has_gone() -> None:
    one = hosted("m")
    engine_of(one).gate.clear()
    hosting = Hosting(witness=Silent(), clock=time.monotonic)
    asking = asyncio.create_task(hosting.load(one))
    await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    engine_of(one).gate.set()
    await hosting.load(one)
    assert (engine_of(one).loads, one.is_ready) == (1, True)


async def test_a_model_that_cannot_be_loaded_is_failed_told_without_its_files_and_can_be_tried_again() -> None:
    witness, one = Silent(), hosted("m")
    engine_of(one).fault = ModelUnusable("the file /secret/path is missing")
    hosting = Hosting(witness=witness, clock=time.monotonic)
    with pytest.raises(EngineFailed) as refusal:
        await hosting.load_for_caller(one)
    assert "secret" not in refusal.value.message
    assert one.state is ModelState.FAILED
    assert len(witness.failures) == 1
    engine_of(one).fault = None
    await hosting.load(one)
    assert one.is_ready


async def test_an_upstream_that_is_away_at_start_is_tried_until_it_answers() -> None:
    witness, one = Silent(), hosted("m")
    engine_of(one).fault = ModelUnusable("away")
    hosting = Hosting(witness=witness, clock=time.monotonic, first_wait_seconds=0.001)
    loading = asyncio.create_task(hosting.load_patiently(one))
    async with asyncio.timeout(5):
        while len(witness.failures) < 3:
            await asyncio.sleep(0.001)
    engine_of(one).fault = None
    await loading
    assert one.is_ready


async def test_unloading_lets_requests_end_then_stops_them_and_frees_the_model() -> None:
    one = hosted("m")
    hosting = Hosting(witness=Silent(), clock=time.monotonic)
    await hosting.load(one)
    session = one.conductor.submit(request("endless"))
    reading = asyncio.create_task(_read(session))
    unloading = asyncio.create_task(hosting.unload(one, drain_seconds=0.05))
    await asyncio.sleep(0.01)
    assert one.state is ModelState.UNLOADING
    with pytest.raises(EngineUnavailable):
        one.conductor.submit(request("late"))
    with pytest.raises(EngineUnavailable):
        await hosting.load(one)
    assert await unloading == 1
    await reading
    assert (engine_of(one).closes, one.state) == (1, ModelState.UNLOADED)
    assert await hosting.unload(one, drain_seconds=0) == 0
    await hosting.load(one)
    await _read(one.conductor.submit(request("again")))


async def _read(session) -> None:
    async for _ in session.events():
        pass


async def test_each_model_has_a_health_of_its_own_under_every_name(tmp_path: Path) -> None:
    old, new, other = hosted("m", version="1", aliases=("small",)), hosted("m", version="2"), hosted("other")
    settings = InferenceSettings(
        home=tmp_path, grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=0
    )
    server = GrpcServer(service="inference", settings=settings)
    recorder = Recorder(publisher=Nowhere(), profile=lengths)
    witness = ModelWitness(recorder=recorder, roster=Roster([old, new, other]), health=server.health)
    hosting = Hosting(witness=witness, clock=time.monotonic)
    await server.start(service_names=[SERVICE])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def settles(**expected: bool) -> None:
            names = {"m": "m", "m1": "m@1", "m2": "m@2", "small": "small", "other": "other"}
            async with asyncio.timeout(5):
                while expected != {name: await _serves(stub, f"{SERVICE}/{names[name]}") for name in expected}:
                    await asyncio.sleep(0.01)

        await settles(m=False, m1=False, small=False, other=False)
        await hosting.load(new)
        await settles(m=True, m1=False, m2=True, small=False, other=False)
        await hosting.load(old)
        await hosting.load(other)
        await settles(m=True, m1=True, small=True, other=True)
        assert await _serves(stub, SERVICE)
        await hosting.unload(old, drain_seconds=0)
        await settles(m=True, m1=False, m2=True, small=False, other=True)
        assert await _serves(stub, SERVICE)  # taken down on purpose: the service is well
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await _serves(stub, f"{SERVICE}/nobody")
        assert error.value.code() is grpc.StatusCode.NOT_FOUND
    await server.stop()


class Nowhere:
    async def publish(self, *events: Message) -> None: ...


async def _serves(stub: health_pb2_grpc.HealthStub, name: str) -> bool:
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def test_names_lead_to_ids_aliases_and_versions_and_to_the_version_that_answers() -> None:
    old, new = hosted("m", version="1", aliases=("small",)), hosted("m", version="2", aliases=("small",))
    roster = Roster([old, new])
    assert roster.find("") is old
    assert roster.find("m@2") is new
    assert roster.find("small@1") is old
    assert roster.find("m") is old  # none is ready: the first
    new.state = ModelState.READY
    assert roster.find("small") is new
    assert roster.ready("m") is new
    with pytest.raises(UnknownModel):
        roster.find("m@3")
    with pytest.raises(EngineUnavailable, match="unloaded"):
        roster.ready("m@1")


async def test_the_load_of_a_model_tells_its_places_and_the_wait() -> None:
    one = hosted("m")
    one.state = ModelState.READY
    sessions = [one.conductor.submit(request("endless")), one.conductor.submit(request("waits"))]
    load = one.load()
    assert (load.running, load.queued, load.slots, load.queue_limit, load.ready) == (1, 1, 1, 1, True)
    assert load.expected_wait_seconds >= 1.0
    await one.conductor.close()
    for session in sessions:
        with pytest.raises(Exception, match="cancelled"):
            await _read(session)
