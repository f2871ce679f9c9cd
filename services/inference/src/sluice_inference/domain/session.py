"""One request on its way: its outputs, its mailbox, its one terminal event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from functools import reduce

from sluice_inference.domain.admission import Grant
from sluice_inference.domain.backend import EngineStep, NewTokens, PromptProgress
from sluice_inference.domain.generation import (
    Failed,
    Finished,
    FinishReason,
    Generation,
    GenerationEvent,
    Started,
    Terminal,
    Timings,
    Usage,
)
from sluice_inference.domain.lifecycle import Lifecycle
from sluice_inference.domain.mailbox import Mailbox
from sluice_inference.domain.output import Output
from sluice_inference.domain.refusals import EngineUnavailable, InferenceRefusal, RequestStopped

KEEPING_SECONDS = 1.0


class Session:
    """Iterate `events()`; it ends after the terminal event, or raises an InferenceRefusal."""

    def __init__(self, generation: Generation, *, clock: Callable[[], float], buffer: int) -> None:
        self.generation = generation
        self.accepted_at = self.last_sign_at = clock()
        self.granted_at: float | None = None
        self.prefill_seconds = 0.0
        self.lifecycle = Lifecycle()
        self.granted: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.timers: list[asyncio.TimerHandle] = []
        self.kept: asyncio.Future[None] | None = None
        """Done when the measurement has come to where it outlives this process."""
        self.outcome: Terminal | InferenceRefusal | None = None
        self.ended_timings: Timings | None = None
        self.begun = False
        self.cause: FinishReason | None = None
        self._eviction: InferenceRefusal | None = None
        self.outputs = [Output(index, generation) for index in range(generation.sampling.num_sequences)]
        self._started = False
        self._clock = clock
        self._mailbox = Mailbox(buffer)

    async def events(self) -> AsyncGenerator[GenerationEvent, None]:
        while True:
            item = await self._mailbox.get()
            if isinstance(item, InferenceRefusal):
                raise item
            if isinstance(item, Finished | Failed):
                await self._measurement_kept()
            yield item
            if isinstance(item, Finished | Failed):
                return

    async def _measurement_kept(self) -> None:
        """Wait a moment for it: a process that is killed has then either kept the measurement, or not given the whole answer.

        No longer than a moment: the caller has more of its answer than the mesh of its measurement.
        """
        until = asyncio.get_running_loop().time() + KEEPING_SECONDS
        if self.task is not None:  # in whose end the measurement is made
            await asyncio.wait({self.task}, timeout=KEEPING_SECONDS)
        if self.kept is not None:
            await asyncio.wait({self.kept}, timeout=max(0.0, until - asyncio.get_running_loop().time()))

    def abort(self, cause: FinishReason) -> bool:
        """Stops the computation; False when the request had ended already."""
        if self.lifecycle.has_ended or self.cause:
            return False
        self.cause = cause
        # A task cancelled before its first step would never reach its `finally`: there, the cause alone is enough.
        if self.begun and self.task:
            self.task.cancel()
        return True

    def evict(self, refusal: InferenceRefusal) -> None:
        """Ends a request that waits, for this reason."""
        self._eviction = refusal
        self.abort(FinishReason.CANCELLED)

    def generation_of(self, output: Output) -> Generation:
        """What the engine is asked for one output: seeds differ, or all outputs would be the same."""
        sampling = self.generation.sampling
        seed = None if sampling.seed is None else (sampling.seed + output.index) % 2**64
        return replace(self.generation, sampling=replace(sampling, seed=seed, num_sequences=1))

    def was_granted(self) -> None:
        self.granted_at = self.last_sign_at = self._clock()
        self.lifecycle.admitted()

    async def take(self, output: Output, step: EngineStep) -> bool:
        """Sends what the step releases; True when the output is complete."""
        now = self.last_sign_at = self._clock()
        match step:
            case PromptProgress():
                output.take_progress(step)
                await self._tell_started()
            case NewTokens():
                self._note_first_token(step)
                output.take_tokens(step, now=now)
            case _:
                await self._tell_started()
                output.take_end(step)
        if delta := output.releasable():
            await self._mailbox.put(delta)
            self.last_sign_at = self._clock()  # putting may have waited for the reader
        return output.end is not None

    def finish(self, cut: FinishReason = FinishReason.CANCELLED) -> None:
        """Ends well; outputs that are not complete are cut for this reason."""
        ends = tuple(output.cut(cut) for output in self.outputs)
        self._end(Finished(ends, self.usage(), self.timings()))

    def refuse(self, refusal: InferenceRefusal) -> None:
        """Ends with a failure: in-band after the first token, as an exception before it."""
        if self.lifecycle.has_streamed:
            self._end(Failed(refusal.message, refusal.retryable, self.usage(), self.timings()), refusal)
        else:
            self._end(refusal)

    def finish_aborted(self) -> None:
        cause = self.cause or FinishReason.CANCELLED
        if self._eviction:
            self.refuse(self._eviction)
        elif cause is FinishReason.ERROR:
            self.refuse(
                EngineUnavailable("the engine made no progress and was stopped; the request can be tried again.")
            )
        elif self.lifecycle.has_streamed:
            self.finish(cause)
        elif cause is FinishReason.TIMEOUT:
            self.refuse(RequestStopped("the time for this request was over before its first token.", timed_out=True))
        else:
            self.refuse(RequestStopped("the request was cancelled before its first token.", timed_out=False))

    def usage(self) -> Usage:
        """Of all outputs together; each run of an engine read the prompt, from its cache or anew."""
        return reduce(Usage.__add__, (output.counters.usage() for output in self.outputs))

    def timings(self) -> Timings:
        now = self._clock()
        firsts = [output.first_token_at for output in self.outputs if output.first_token_at is not None]
        return Timings(
            queue_seconds=(now if self.granted_at is None else self.granted_at) - self.accepted_at,
            prefill_seconds=self.prefill_seconds,
            time_to_first_token_seconds=min(firsts) - self.accepted_at if firsts else None,
            total_seconds=now - self.accepted_at,
        )

    @property
    def waits_for_its_reader(self) -> bool:
        """The engine is held back by a caller that does not read."""
        return self._mailbox.is_full

    def kv_tokens(self) -> int:
        """Tokens that stand in the engine's key-value cache, by our own counters."""
        running = [output.counters for output in self.outputs if output.run and output.end is None]
        return sum(counters.prompt + counters.generated for counters in running)

    async def _tell_started(self) -> None:
        if not self._started:
            self._started = True
            await self._mailbox.put(Started())

    def _note_first_token(self, step: NewTokens) -> None:
        self.lifecycle.token()
        self.prefill_seconds = self.prefill_seconds or step.prefill_seconds

    def _end(self, item: Terminal | InferenceRefusal, refusal: InferenceRefusal | None = None) -> None:
        if self.lifecycle.end():
            self.ended_timings = self.timings()
            self.outcome = refusal or item
            self._mailbox.put_last(item)
