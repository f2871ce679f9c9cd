"""Tells the world of every generation, after it ended: metrics at once, the event when its profiles are made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message
from sluice_kit import context as request_context
from sluice_kit.telemetry import logger

from sluice_inference.adapters import metrics
from sluice_inference.adapters.messages import loaded_event, mean_token_seconds, measured_event
from sluice_inference.domain.backend import ModelFacts
from sluice_inference.domain.conductor import Measurement
from sluice_inference.domain.generation import Chat
from sluice_inference.domain.profiles import TextProfile, lengths, profiled_prompt

log = logger(__name__)


class Publisher(Protocol):
    """What is needed of sluice_kit.publisher.EventPublisher."""

    async def publish(self, *events: Message) -> None: ...


@dataclass(frozen=True)
class _Job:
    measurement: Measurement
    context: request_context.RequestContext


class Recorder:
    """Fits domain.conductor.Observer. One worker makes the profiles; when it is behind, events go without them."""

    def __init__(
        self,
        *,
        model: ModelFacts,
        publisher: Publisher,
        profile: Callable[[str], TextProfile],
        set_engine_health: Callable[[bool], None],
        queue_limit: int = 256,
    ) -> None:
        self._model, self._publisher, self._profile = model, publisher, profile
        self._set_engine_health = set_engine_health
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue(maxsize=queue_limit)
        # Events of an overloaded worker, published without profiles: bounded too, by counting what is lost.
        self._hasty: set[asyncio.Task[None]] = set()

    def load_changed(self, *, running: int, queued: int) -> None:
        metrics.RUNNING.set(running)
        metrics.QUEUED.set(queued)

    def engine_responds(self, responds: bool) -> None:
        log.error("engine.stalled") if not responds else log.info("engine.recovered")
        self._set_engine_health(responds)

    def engine_broke(self, error: Exception) -> None:
        metrics.ENGINE_FAULTS.inc()
        log.error("engine.fault", error=type(error).__name__)

    def finished(self, measurement: Measurement) -> None:
        count(measurement, self._model)
        job = _Job(measurement, request_context.current())
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            metrics.PROFILES_SKIPPED.inc()
            task = asyncio.create_task(self._publish(job, make=lengths))
            self._hasty.add(task)
            task.add_done_callback(self._hasty.discard)

    async def model_loaded(self, load_seconds: float) -> None:
        await self._publisher.publish(loaded_event(self._model, load_seconds))

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
            event = measured_event(measurement, self._model, prompt=prompt, answer=answer, context=job.context)
            with request_context.use(job.context):
                await self._publisher.publish(event)
        except Exception as error:
            # A full outbox or a broken profile must not end the worker: the next event may pass.
            metrics.EVENTS_LOST.inc()
            log.error("measurement.lost", error=type(error).__name__)


def count(measurement: Measurement, model: ModelFacts) -> None:
    """Feeds the metrics of one generation."""
    operation = "chat" if isinstance(measurement.generation.input, Chat) else "text_completion"
    labels, timings, usage = (operation, model.backend, model.model_id), measurement.timings, measurement.usage
    if timings.time_to_first_token_seconds is not None:
        metrics.TIME_TO_FIRST_TOKEN.labels(*labels).observe(timings.time_to_first_token_seconds)
    mean = mean_token_seconds(measurement)
    if mean is not None:
        metrics.TIME_PER_OUTPUT_TOKEN.labels(*labels).observe(mean)
    metrics.REQUEST_DURATION.labels(*labels, measurement.reason.value).observe(timings.total_seconds)
    for kind in ("uncached_input", "cached_input", "output"):
        metrics.TOKENS.labels(model.model_id, kind).inc(getattr(usage, f"{kind}_tokens"))
    metrics.CPU_SECONDS.labels(model.model_id).inc(measurement.share.cpu_seconds)
