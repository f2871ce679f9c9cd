"""Conducts every generation: admission, engine, stop strings, limits of time, one terminal event, one measurement."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from sluice_inference.domain.admission import Admission, Grant
from sluice_inference.domain.attribution import Share, ShareMeter
from sluice_inference.domain.backend import Backend, EngineEnded, EngineRun, NewTokens, PromptProgress
from sluice_inference.domain.generation import (
    Delta,
    Failed,
    Finished,
    FinishReason,
    Generation,
    GenerationEvent,
    Started,
    StopMatch,
    Terminal,
    Timings,
    TokenLogprob,
    Usage,
)
from sluice_inference.domain.lifecycle import Lifecycle
from sluice_inference.domain.refusals import EngineFailed, EngineUnavailable, InferenceRefusal, RequestStopped
from sluice_inference.domain.stop_strings import StopStrings


@dataclass(frozen=True)
class TimeLimits:
    """Seconds a generation may take once admitted, and may go without any progress."""

    generation_seconds: float = 120.0
    stall_seconds: float = 30.0


@dataclass(frozen=True)
class Measurement:
    """Everything measured of one generation. `answer` is the text sent; both texts leave this process only as profiles."""

    generation: Generation
    reason: FinishReason
    refusal: InferenceRefusal | None
    usage: Usage
    timings: Timings
    token_seconds: tuple[float, ...]
    share: Share
    answer: str


class Observer(Protocol):
    """Hears of what happens; must return at once and never raise."""

    def load_changed(self, *, running: int, queued: int) -> None: ...

    def engine_responds(self, responds: bool) -> None: ...

    def engine_broke(self, error: Exception) -> None: ...

    def finished(self, measurement: Measurement) -> None: ...


class Mailbox:
    """A bounded queue whose last item always finds room: a full box must not swallow the terminal event."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._items: deque[GenerationEvent | InferenceRefusal] = deque()
        self._arrived, self._room = asyncio.Event(), asyncio.Event()

    async def put(self, item: GenerationEvent) -> None:
        while len(self._items) >= self._bound:
            self._room.clear()
            await self._room.wait()
        self.put_last(item)

    def put_last(self, item: GenerationEvent | InferenceRefusal) -> None:
        self._items.append(item)
        self._arrived.set()

    async def get(self) -> GenerationEvent | InferenceRefusal:
        while not self._items:
            self._arrived.clear()
            await self._arrived.wait()
        self._room.set()
        return self._items.popleft()


@dataclass
class _Progress:
    """What is known so far of a running generation."""

    granted_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float = 0.0
    last_sign_at: float = 0.0
    prefill_seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated: int = 0
    token_seconds: list[float] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    started: bool = False


@dataclass
class _Pending:
    """Tokens not sent yet: held back, or waiting for stream_interval to be full."""

    text: str = ""
    count: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def add(self, text: str, count: int, step: NewTokens | None) -> None:
        self.text += text
        self.count += count
        if step:
            self.token_ids += step.token_ids
            self.logprobs += step.logprobs

    def take(self) -> Delta:
        delta = Delta(self.text, self.count, tuple(self.token_ids), tuple(self.logprobs))
        self.text, self.count, self.token_ids, self.logprobs = "", 0, [], []
        return delta


class Session:
    """One request on its way. Iterate `events()`; it ends after the terminal event, or raises an InferenceRefusal."""

    def __init__(self, generation: Generation, *, clock: Callable[[], float], buffer: int) -> None:
        self.generation = generation
        self.accepted_at = clock()
        self.lifecycle = Lifecycle()
        self.progress = _Progress(last_sign_at=self.accepted_at)
        self.granted: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.engine_run: EngineRun | None = None
        self.timers: list[asyncio.TimerHandle] = []
        self.outcome: Terminal | InferenceRefusal | None = None
        self.ended_timings: Timings | None = None
        self.begun = False
        self.cause: FinishReason | None = None
        self._clock = clock
        self._mailbox = Mailbox(buffer)
        self._pending = _Pending()
        self._stops = StopStrings(generation.stopping.stop, include=generation.stopping.include_stop_in_output)

    async def events(self) -> AsyncGenerator[GenerationEvent, None]:
        while True:
            item = await self._mailbox.get()
            if isinstance(item, InferenceRefusal):
                raise item
            yield item
            if isinstance(item, Finished | Failed):
                return

    def abort(self, cause: FinishReason) -> bool:
        """Stops the computation; False when the request had ended already."""
        if self.lifecycle.has_ended or self.cause:
            return False
        self.cause = cause
        # A task cancelled before its first step would never reach its `finally`: there, the cause alone is enough.
        if self.begun and self.task:
            self.task.cancel()
        return True

    async def take_progress(self, step: PromptProgress) -> None:
        self.progress.last_sign_at = self._clock()
        self.progress.prompt_tokens, self.progress.cached_tokens = step.prompt_tokens, step.cached_tokens
        if not self.progress.started:
            self.progress.started = True
            await self._mailbox.put(Started())

    async def take_tokens(self, step: NewTokens) -> bool:
        """Sends what may be shown; True when a stop string or token ended the answer."""
        count = self._note_tokens(step)
        stop_id = next((i for i in step.token_ids if i in self.generation.stopping.stop_token_ids), None)
        # The text of a stop token is no part of the answer, as it is with the model's own end token.
        released = self._stops.feed("" if stop_id is not None else step.text)
        self._pending.add(released.text, count, step)
        if released.matched is not None or stop_id is not None:
            rest = "" if released.matched is not None else self._stops.flush()
            self._pending.add(rest, 0, None)
            await self._send_pending(1)
            self.finish(FinishReason.STOP, StopMatch(stop_text=released.matched, stop_token_id=stop_id))
            return True
        await self._send_pending(self.generation.stream_interval)
        return False

    async def take_end(self, step: EngineEnded) -> None:
        self.progress.prompt_tokens, self.progress.cached_tokens = step.prompt_tokens, step.cached_tokens
        self._pending.add(self._stops.flush(), max(0, step.generated - self.progress.generated), None)
        self.progress.generated = step.generated
        await self._send_pending(1)
        self.finish(step.reason, step.match)

    def finish(self, reason: FinishReason, match: StopMatch) -> None:
        self._end(Finished(reason, match, self.usage(), self.timings()))

    def refuse(self, refusal: InferenceRefusal) -> None:
        """Ends with a failure: in-band after the first token, as an exception before it."""
        if self.lifecycle.has_streamed:
            self._end(Failed(refusal.message, refusal.retryable, self.usage(), self.timings()), refusal)
        else:
            self._end(refusal)

    def finish_aborted(self) -> None:
        cause = self.cause or FinishReason.CANCELLED
        if cause is FinishReason.ERROR:
            self.refuse(
                EngineUnavailable("the engine made no progress and was stopped; the request can be tried again.")
            )
        elif self.lifecycle.has_streamed:
            self.finish(cause, StopMatch())
        elif cause is FinishReason.TIMEOUT:
            self.refuse(RequestStopped("the time for this request was over before its first token.", timed_out=True))
        else:
            self.refuse(RequestStopped("the request was cancelled before its first token.", timed_out=False))

    def usage(self) -> Usage:
        progress = self.progress
        uncached = max(0, progress.prompt_tokens - progress.cached_tokens)
        return Usage(uncached, progress.cached_tokens, progress.generated)

    def timings(self) -> Timings:
        now, progress = self._clock(), self.progress
        first = progress.first_token_at
        return Timings(
            queue_seconds=(progress.granted_at or now) - self.accepted_at,
            prefill_seconds=progress.prefill_seconds,
            time_to_first_token_seconds=None if first is None else first - self.accepted_at,
            total_seconds=now - self.accepted_at,
        )

    def _note_tokens(self, step: NewTokens) -> int:
        now, progress = self._clock(), self.progress
        count = max(0, step.generated - progress.generated)
        self.lifecycle.token()
        if progress.first_token_at is None:
            progress.first_token_at, progress.prefill_seconds = now, step.prefill_seconds
        elif count:
            progress.token_seconds += [(now - progress.last_token_at) / count] * count
        progress.last_token_at = progress.last_sign_at = now
        progress.generated = max(progress.generated, step.generated)
        return count

    async def _send_pending(self, interval: int) -> None:
        if not self._pending.text or (self._pending.count < interval and interval > 1):
            return
        delta = self._pending.take()
        self.progress.answer.append(delta.text)
        await self._mailbox.put(delta)

    def _end(self, item: Terminal | InferenceRefusal, refusal: InferenceRefusal | None = None) -> None:
        if self.lifecycle.end():
            self.ended_timings = self.timings()
            self.outcome = refusal or item
            self._mailbox.put_last(item)


class Conductor:
    """All running and waiting generations of one backend."""

    def __init__(
        self,
        *,
        backend: Backend,
        admission: Admission,
        meter: ShareMeter,
        observer: Observer,
        times: TimeLimits,
        clock: Callable[[], float],
        buffer: int = 64,
    ) -> None:
        self._backend, self._admission, self._meter = backend, admission, meter
        self._observer, self._times, self._clock, self._buffer = observer, times, clock, buffer
        self._sessions: dict[str, Session] = {}
        self._stalled: set[str] = set()
        self._closing = False

    @property
    def admission(self) -> Admission:
        return self._admission

    def kv_tokens_in_use(self) -> int:
        """Tokens of running requests that stand in the key-value cache (by our own counters)."""
        return sum(s.progress.prompt_tokens + s.progress.generated for s in self._sessions.values())

    def submit(self, generation: Generation, *, deadline_seconds: float | None = None) -> Session:
        """Accepts an admissible generation and begins it. Raises DuplicateRequest, Overloaded, EngineUnavailable."""
        if self._closing:
            raise EngineUnavailable("this service is shutting down; send the request to another replica.")
        grant = self._admission.enter(generation.request_id, priority=generation.priority, salt=generation.cache_salt)
        session = Session(generation, clock=self._clock, buffer=self._buffer)
        self._sessions[generation.request_id] = session
        if grant:
            session.granted.set_result(grant)
        if deadline_seconds is not None:
            self._arm(session, max(0.0, deadline_seconds), FinishReason.TIMEOUT)
        session.task = asyncio.create_task(self._run(session), name=f"generation-{generation.request_id}")
        self._tell_load()
        return session

    def abort(self, request_id: str) -> bool:
        """Stops the request; False when it is not running."""
        session = self._sessions.get(request_id)
        return session is not None and session.abort(FinishReason.CANCELLED)

    async def close(self, *, seconds: float = 5.0) -> None:
        """Stops everything; returns when the engine is idle, or after `seconds` when it does not answer."""
        self._closing = True
        for session in self._sessions.values():
            session.abort(FinishReason.CANCELLED)
        tasks = [session.task for session in self._sessions.values() if session.task]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    async def _run(self, session: Session) -> None:
        session.begun = True
        try:
            if session.cause:
                raise asyncio.CancelledError
            await self._generate(session)
        except asyncio.CancelledError:
            session.finish_aborted()
        except InferenceRefusal as refusal:
            session.refuse(refusal)
        except Exception as error:
            self._observer.engine_broke(error)
            session.refuse(EngineFailed("the engine failed on this request."))
        finally:
            await asyncio.shield(self._settle(session))

    async def _generate(self, session: Session) -> None:
        generation = session.generation
        grant = await session.granted
        session.progress.granted_at = session.progress.last_sign_at = self._clock()
        session.lifecycle.admitted()
        self._meter.begin(generation.request_id)
        self._arm(session, self._times.generation_seconds, FinishReason.TIMEOUT)
        self._watch(session)
        session.engine_run = self._backend.start(generation, slot=grant.slot, may_reuse_cache=grant.may_reuse_cache)
        async for step in session.engine_run:
            match step:
                case PromptProgress():
                    await session.take_progress(step)
                case NewTokens():
                    if await session.take_tokens(step):
                        return
                case EngineEnded():
                    await session.take_end(step)
                    return
        raise EngineFailed("the engine ended the answer without saying why.")

    async def _settle(self, session: Session) -> None:
        """Returns the slot when, and only when, the engine has really stopped computing for this request."""
        request_id = session.generation.request_id
        for timer in session.timers:
            timer.cancel()
        if session.engine_run:
            session.engine_run.stop()
            await session.engine_run.closed()
        share = self._meter.end(request_id)
        del self._sessions[request_id]
        self._engine_is_back(request_id)
        granted_at = session.progress.granted_at
        seconds = None if granted_at is None else self._clock() - granted_at
        for other, grant in self._admission.leave(request_id, seconds=seconds):
            # One that was cancelled while it waited gives its slot back in its own settling.
            if not self._sessions[other].granted.done():
                self._sessions[other].granted.set_result(grant)
        self._tell_load()
        self._observer.finished(measure(session, share))

    def _arm(self, session: Session, seconds: float, cause: FinishReason) -> None:
        session.timers.append(asyncio.get_running_loop().call_later(seconds, session.abort, cause))

    def _watch(self, session: Session) -> None:
        """Looks now and then whether the engine gave a sign of life; a per-token timer would cost more."""
        silent = self._clock() - session.progress.last_sign_at
        if silent >= self._times.stall_seconds and not session.lifecycle.has_ended:
            self._stalled.add(session.generation.request_id)
            self._observer.engine_responds(False)
            session.abort(FinishReason.ERROR)
            return
        delay = max(0.01, self._times.stall_seconds / 4)
        session.timers.append(asyncio.get_running_loop().call_later(delay, self._watch, session))

    def _engine_is_back(self, request_id: str) -> None:
        if request_id in self._stalled:
            self._stalled.discard(request_id)
            if not self._stalled:
                self._observer.engine_responds(True)

    def _tell_load(self) -> None:
        self._observer.load_changed(running=self._admission.running, queued=self._admission.queued)


def measure(session: Session, share: Share) -> Measurement:
    outcome = session.outcome
    refusal = outcome if isinstance(outcome, InferenceRefusal) else None
    reason = outcome.reason if isinstance(outcome, Finished) else FinishReason.ERROR
    if isinstance(refusal, RequestStopped):
        reason = FinishReason.TIMEOUT if refusal.timed_out else FinishReason.CANCELLED
    return Measurement(
        generation=session.generation,
        reason=reason,
        refusal=refusal,
        usage=session.usage(),
        timings=session.ended_timings or session.timings(),
        token_seconds=tuple(session.progress.token_seconds),
        share=share,
        answer="".join(session.progress.answer),
    )
