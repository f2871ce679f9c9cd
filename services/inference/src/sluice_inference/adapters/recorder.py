"""Tells the world of every generation, after it ended: metrics at once, the event when its profiles are made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message
from sluice_kit import context as request_context
from sluice_kit.health import HealthBoard
from sluice_kit.telemetry import logger

from sluice_inference.adapters import metrics
from sluice_inference.adapters.messages import loaded_event, mean_token_seconds, measured_event
from sluice_inference.domain.backend import ModelFacts
from sluice_inference.domain.generation import Chat
from sluice_inference.domain.measurement import Measurement
from sluice_inference.domain.profiles import TextProfile, lengths, profiled_prompt
from sluice_inference.domain.refusals import EngineDied, ModelUnusable
from sluice_inference.domain.roster import Hosted, ModelState, Roster

log = logger(__name__)


class Publisher(Protocol):
    """What is needed of sluice_kit.publisher.EventPublisher."""

    async def publish(self, *events: Message) -> None: ...


@dataclass(frozen=True)
class _Job:
    measurement: Measurement
    model: ModelFacts
    context: request_context.RequestContext
    kept: asyncio.Future[None]


class Recorder:
    """One worker makes the profiles of all models' measurements; when it is behind, events go without them."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        profile: Callable[[str], TextProfile],
        told_tools: Collection[str] = (),
        queue_limit: int = 256,
    ) -> None:
        self._publisher, self._profile, self._told_tools = publisher, profile, frozenset(told_tools)
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(maxsize=queue_limit)
        # Events of an overloaded worker, published without profiles: bounded too, by counting what is lost.
        self._hasty: set[asyncio.Task[None]] = set()

    def record(self, measurement: Measurement, model: ModelFacts) -> asyncio.Future[None]:
        """Gives what is done when the event is in the outbox, or lost."""
        count(measurement, model)
        kept = asyncio.get_running_loop().create_future()
        job = _Job(measurement, model, request_context.current(), kept)
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            metrics.PROFILES_SKIPPED.inc()
            task = asyncio.create_task(self._publish(job, make=lengths))
            self._hasty.add(task)
            task.add_done_callback(self._hasty.discard)
        return kept

    async def model_loaded(self, model: ModelFacts, load_seconds: float) -> None:
        await self._publisher.publish(loaded_event(model, load_seconds))

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            job = await self._jobs.get()
            try:
                await self._publish(job, make=self._profile)
            finally:
                self._jobs.task_done()

    async def drain(self, *, seconds: float) -> None:
        """Publishes what waits, for a bounded time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._jobs.join()
                await asyncio.gather(*self._hasty)

    async def _publish(self, job: _Job, *, make: Callable[[str], TextProfile]) -> None:
        measurement = job.measurement
        try:
            texts = (profiled_prompt(measurement.generation.input), measurement.answer)
            prompt, answer = await asyncio.to_thread(lambda: [make(text) for text in texts])
            event = measured_event(
                measurement,
                job.model,
                prompt=prompt,
                answer=answer,
                context=job.context,
                told_tools=self._told_tools,
            )
            with request_context.use(job.context):
                await self._publisher.publish(event)
        except Exception as error:
            # A full outbox or a broken profile must not end the worker: the next event may pass.
            metrics.EVENTS_LOST.inc()
            log.error("measurement.lost", error=type(error).__name__)
        finally:
            if not job.kept.done():
                job.kept.set_result(None)


class ModelObserver:
    """Fits domain.measurement.Observer, for one model."""

    def __init__(
        self,
        *,
        model: Callable[[], ModelFacts],
        recorder: Recorder,
        set_engine_health: Callable[[bool], None],
        end_process: Callable[[EngineDied], None],
    ) -> None:
        """`model` is asked anew each time: some facts are known after loading only."""
        self._model, self._recorder = model, recorder
        self._set_engine_health, self._end_process = set_engine_health, end_process

    def load_changed(self, *, running: int, queued: int) -> None:
        name = self._model().model_id
        metrics.RUNNING.labels(name).set(running)
        metrics.QUEUED.labels(name).set(queued)

    def engine_responds(self, responds: bool) -> None:
        name = self._model().model_id
        log.error("engine.stalled", model=name) if not responds else log.info("engine.recovered", model=name)
        self._set_engine_health(responds)

    def engine_broke(self, error: Exception) -> None:
        metrics.ENGINE_FAULTS.inc()
        log.error("engine.fault", model=self._model().model_id, error=type(error).__name__)

    def engine_died(self, error: EngineDied) -> None:
        metrics.ENGINE_FAULTS.inc()
        log.error("engine.died", model=self._model().model_id)
        self._set_engine_health(False)
        self._end_process(error)

    def finished(self, measurement: Measurement) -> asyncio.Future[None]:
        return self._recorder.record(measurement, self._model())


# A model's own status in grpc.health.v1: this, and one of its names.
MODEL_HEALTH_PREFIX = "sluice.inference.v1.InferenceService/"


class ModelWitness:
    """Fits domain.hosting.Witness: logs, events, and health (`model`: every model that is loaded at start answers; and each model by its names)."""

    def __init__(self, *, recorder: Recorder, roster: Roster, health: HealthBoard) -> None:
        self._recorder, self._roster, self._health = recorder, roster, health
        self._tell_names()

    def state_changed(self, hosted: Hosted) -> None:
        log.info("model.state", model=hosted.model.model_id, version=hosted.model.version, state=hosted.state.value)
        metrics.MODEL_READY.labels(hosted.model.model_id, hosted.model.version).set(hosted.is_ready)
        # A model that an operator took down on purpose makes the service no sicker.
        needed = [one for one in self._roster if one.is_lasting and one.state is not ModelState.UNLOADED]
        unloaded_all = not any(one.is_ready for one in self._roster)
        self._health.set("model", all(one.is_ready for one in needed) and not unloaded_all)
        self._tell_names()

    def _tell_names(self) -> None:
        """Several versions may share a name, which answers when one of them does."""
        for name in {name for one in self._roster for name in one.model.names}:
            answers = any(one.is_ready for one in self._roster if one.model.is_called(name))
            self._health.tell(MODEL_HEALTH_PREFIX + name, answers)

    async def loaded(self, hosted: Hosted, seconds: float) -> None:
        model = hosted.model
        log.info("model.loaded", model=model.model_id, digest=model.digest, seconds=round(seconds, 2))
        await self._recorder.model_loaded(model, seconds)

    def load_failed(self, hosted: Hosted, error: ModelUnusable) -> None:
        log.error("model.unusable", model=hosted.model.model_id, sentence=str(error))


def count(measurement: Measurement, model: ModelFacts) -> None:
    """Feeds the metrics of one generation."""
    operation = "chat" if isinstance(measurement.generation.input, Chat) else "text_completion"
    labels, usage = (operation, model.backend, model.model_id), measurement.usage
    count_times(measurement, labels)
    if usage.estimated:
        metrics.ESTIMATED_USAGE.labels(model.model_id).inc()
    for kind in ("uncached_input", "cached_input", "cache_write", "output", "reasoning"):
        metrics.TOKENS.labels(model.model_id, kind).inc(getattr(usage, f"{kind}_tokens"))
    metrics.CPU_SECONDS.labels(model.model_id).inc(measurement.share.cpu_seconds)
    metrics.ACCELERATOR_SECONDS.labels(model.model_id).inc(measurement.share.accelerator_seconds)


def count_times(measurement: Measurement, labels: tuple[str, str, str]) -> None:
    timings, mean = measurement.timings, mean_token_seconds(measurement)
    if timings.time_to_first_token_seconds is not None:
        metrics.TIME_TO_FIRST_TOKEN.labels(*labels).observe(timings.time_to_first_token_seconds)
        metrics.PREFILL_TIME.labels(*labels).observe(timings.prefill_seconds)
        metrics.BATCH_OCCUPANCY.labels(*labels).observe(measurement.share.mean_occupancy)
    if mean is not None:
        metrics.TIME_PER_OUTPUT_TOKEN.labels(*labels).observe(mean)
    error = measurement.refusal.reason if measurement.refusal else ""
    metrics.REQUEST_DURATION.labels(*labels, measurement.reason.value, error).observe(timings.total_seconds)
    metrics.QUEUE_TIME.labels(*labels).observe(timings.queue_seconds)
