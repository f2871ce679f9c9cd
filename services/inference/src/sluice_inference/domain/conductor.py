"""Conducts every generation of one backend: admission, engine runs, limits of time, one terminal event, one measurement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sluice_inference.domain.admission import Admission, Grant
from sluice_inference.domain.attribution import Load, ShareMeter
from sluice_inference.domain.backend import Backend, EngineEnded, EngineRun
from sluice_inference.domain.generation import FinishReason, Generation
from sluice_inference.domain.measurement import Observer, measure
from sluice_inference.domain.output import Output
from sluice_inference.domain.refusals import EngineDied, EngineFailed, EngineUnavailable, InferenceRefusal
from sluice_inference.domain.session import Session


@dataclass(frozen=True)
class TimeLimits:
    """Seconds a generation may take once admitted, and may go without any progress."""

    generation_seconds: float = 120.0
    stall_seconds: float = 30.0


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
        self._name = backend.model.model_id
        self._sessions: dict[str, Session] = {}
        self._stalled: set[str] = set()
        self._engine_sign_at = clock()
        self._refusing: EngineUnavailable | None = None

    @property
    def admission(self) -> Admission:
        return self._admission

    def kv_tokens_in_use(self) -> int:
        """Tokens of running requests that stand in the key-value cache (by our own counters)."""
        return sum(session.kv_tokens() for session in self._sessions.values())

    def submit(self, generation: Generation, *, deadline_seconds: float | None = None) -> Session:
        """Accepts an admissible generation and begins it. Raises DuplicateRequest, Overloaded, EngineUnavailable."""
        if self._refusing:
            raise self._refusing
        entry = self._admission.enter(
            generation.request_id,
            priority=generation.priority,
            salt=generation.cache_salt,
            tenant=generation.tenant_id,
        )
        if entry.displaced:
            self._sessions[entry.displaced].evict(self._admission.overload())
        session = Session(generation, clock=self._clock, buffer=self._buffer)
        self._sessions[generation.request_id] = session
        if entry.grant:
            session.granted.set_result(entry.grant)
        if deadline_seconds is not None:
            self._arm(session, max(0.0, deadline_seconds), FinishReason.TIMEOUT)
        session.task = asyncio.create_task(self._run(session), name=f"generation-{generation.request_id}")
        self._tell_load()
        return session

    def abort(self, request_id: str) -> bool:
        """Stops the request; False when it is not running."""
        session = self._sessions.get(request_id)
        return session is not None and session.abort(FinishReason.CANCELLED)

    def admit_no_more(self, sentence: str) -> None:
        """From here on every new request is refused with this sentence."""
        self._refusing = EngineUnavailable(sentence)

    def admit_again(self) -> None:
        """Takes requests again, after the engine was loaded anew."""
        self._refusing = None

    async def idle(self, *, seconds: float) -> bool:
        """Waits until nothing runs or waits; False when something still does after `seconds`."""
        tasks = [session.task for session in self._sessions.values() if session.task]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return not self._sessions

    async def close(self, *, seconds: float = 5.0) -> int:
        """Stops everything; returns how much that was, when the engine is idle or after `seconds` when it does not answer."""
        self.admit_no_more("this model is shutting down; send the request to another replica.")
        stopped = [session.abort(FinishReason.CANCELLED) for session in self._sessions.values()]
        await self.idle(seconds=seconds)
        return stopped.count(True)

    async def _run(self, session: Session) -> None:
        session.begun = True
        try:
            if session.cause:
                raise asyncio.CancelledError
            await self._generate(session)
        except asyncio.CancelledError:
            session.finish_aborted()
        except InferenceRefusal as refusal:
            self._look_after(refusal)
            session.refuse(refusal)
        except Exception as error:
            self._observer.engine_broke(error)
            session.refuse(EngineFailed("the engine failed on this request."))
        finally:
            await asyncio.shield(self._settle(session))

    async def _generate(self, session: Session) -> None:
        grant = await session.granted
        session.was_granted()
        model = self._backend.model
        self._meter.begin(self._key(session), Load(model.model_id, model.computes_here, model.accelerators))
        self._arm(session, self._times.generation_seconds, FinishReason.TIMEOUT)
        self._watch(session)
        if len(session.outputs) > 1 and self._backend.runs_outputs_together:
            await self._generate_together(session, grant)
        else:
            await self._generate_in_turn(session, grant)
        session.finish()

    async def _generate_in_turn(self, session: Session, grant: Grant) -> None:
        for before, output in zip([None, *session.outputs], session.outputs, strict=False):
            if before and before.run:
                await before.run.closed()  # they share one slot
            await self._generate_output(session, output, grant)

    async def _generate_together(self, session: Session, grant: Grant) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for output in session.outputs:
                    group.create_task(self._generate_output(session, output, grant))
        except BaseExceptionGroup as failures:
            # The first one ended the others; it alone is the request's fate.
            raise failures.exceptions[0] from None

    async def _generate_output(self, session: Session, output: Output, grant: Grant) -> None:
        # A later output of the same request may read what the first one left in the slot.
        may_reuse_cache = grant.may_reuse_cache or output.index > 0
        generation = session.generation_of(output)
        output.run = self._backend.start(generation, slot=grant.slot, may_reuse_cache=may_reuse_cache)
        async for step in output.run:
            done = await session.take(output, step)
            self._engine_sign_at = session.last_sign_at
            if done:
                output.run.stop()
                if isinstance(step, EngineEnded):
                    # It computes no more: so the slot, with this prompt in its cache, is free for the caller's next request.
                    await self._closed(output.run)
                return
        raise EngineFailed("the engine ended the answer without saying why.")

    async def _settle(self, session: Session) -> None:
        """Returns the slot when, and only when, the engine has really stopped computing for this request."""
        request_id = session.generation.request_id
        for timer in session.timers:
            timer.cancel()
        for output in session.outputs:
            if output.run:
                output.run.stop()
                await self._closed(output.run)
        share = self._meter.end(self._key(session))
        del self._sessions[request_id]
        self._engine_is_back(request_id)
        seconds = None if session.granted_at is None else self._clock() - session.granted_at
        for other, grant in self._admission.leave(request_id, seconds=seconds):
            # One that was cancelled while it waited gives its slot back in its own settling.
            if not self._sessions[other].granted.done():
                self._sessions[other].granted.set_result(grant)
        self._tell_load()
        session.kept = self._observer.finished(measure(session, share))

    async def _closed(self, run: EngineRun) -> None:
        try:
            await run.closed()
        except EngineDied as death:
            self._look_after(death)

    def _key(self, session: Session) -> str:
        """The meter is shared by all models of the process, among which a request id may occur twice."""
        return f"{self._name} {session.generation.request_id}"

    def _look_after(self, refusal: InferenceRefusal) -> None:
        if isinstance(refusal, EngineDied):
            self.admit_no_more("the engine died and is being started anew; try again soon.")
            self._observer.engine_died(refusal)

    def _arm(self, session: Session, seconds: float, cause: FinishReason) -> None:
        session.timers.append(asyncio.get_running_loop().call_later(seconds, session.abort, cause))

    def _watch(self, session: Session) -> None:
        """Looks now and then whether the engine gave a sign of life; a per-token timer would cost more.

        Before a request's first token the engine may be at work on the prompts of others, one after the other: only when they hear
        nothing either is it silent.
        """
        last_sign_at = session.last_sign_at
        if not session.lifecycle.has_streamed:
            last_sign_at = max(last_sign_at, self._engine_sign_at)
        # A caller that does not read holds the engine back: its own time is bounded, and the engine is well.
        silent = 0.0 if session.waits_for_its_reader else self._clock() - last_sign_at
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
