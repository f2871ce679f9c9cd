"""The conductor over a scripted engine: every path ends once, stops the engine, and frees the slot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest
from sluice_inference.domain.admission import Admission
from sluice_inference.domain.attribution import ShareMeter
from sluice_inference.domain.backend import EngineEnded, EngineStep, ModelFacts, NewTokens, PromptProgress
from sluice_inference.domain.conductor import Conductor, TimeLimits
from sluice_inference.domain.generation import (
    Delta,
    Failed,
    Finished,
    FinishReason,
    Generation,
    GenerationEvent,
    RawPrompt,
    Sampling,
    Started,
    StopMatch,
    Stopping,
)
from sluice_inference.domain.measurement import Measurement
from sluice_inference.domain.refusals import (
    DuplicateRequest,
    EngineDied,
    EngineFailed,
    EngineUnavailable,
    InferenceRefusal,
    InvalidRequest,
    Overloaded,
    RequestStopped,
)

HANG = object()
END = EngineEnded(FinishReason.STOP, StopMatch(eos_token_id=2), prompt_tokens=5, cached_tokens=2, generated=3)
HELLO: list[object] = [PromptProgress(5, 2), NewTokens("Hel", 1), NewTokens("lo", 2), END]


class ScriptedRun:
    """Plays a list of steps; HANG waits until stopped, an exception is raised."""

    def __init__(self, script: list[object]) -> None:
        self.script, self.stops, self.is_closed = script, 0, False
        self._stopped = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[EngineStep]:
        for step in self.script:
            await asyncio.sleep(0)
            if self._stopped.is_set():
                return
            if step is HANG:
                await self._stopped.wait()
                return
            if isinstance(step, Exception):
                raise step
            yield step  # type: ignore[misc]

    def stop(self) -> None:
        self.stops += 1
        self._stopped.set()

    async def closed(self) -> None:
        await self._stopped.wait()
        self.is_closed = True


@dataclass
class ScriptedBackend:
    script: list[object]
    runs: list[ScriptedRun] = field(default_factory=list)
    name: str = "scripted"
    model: ModelFacts = field(default_factory=lambda: ModelFacts("scripted", "scripted"))
    runs_outputs_together: bool = False
    started: list[Generation] = field(default_factory=list)

    async def load(self) -> None: ...

    def kv_tokens(self) -> None: ...

    async def close(self) -> None: ...

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> ScriptedRun:
        self.started.append(generation)
        self.runs.append(ScriptedRun(self.script))
        return self.runs[-1]


@dataclass
class Notes:
    """An observer that remembers."""

    measurements: list[Measurement] = field(default_factory=list)
    health: list[bool] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)
    load: tuple[int, int] = (0, 0)
    kept: asyncio.Future[None] | None = None

    def load_changed(self, *, running: int, queued: int) -> None:
        self.load = (running, queued)

    def engine_responds(self, responds: bool) -> None:
        self.health.append(responds)

    def engine_broke(self, error: Exception) -> None:
        self.faults.append(error)

    def engine_died(self, error: EngineDied) -> None:
        self.faults.append(error)

    def finished(self, measurement: Measurement) -> asyncio.Future[None] | None:
        self.measurements.append(measurement)
        return self.kept


@dataclass
class Stage:
    conductor: Conductor
    backend: ScriptedBackend
    notes: Notes


def stage(
    script: list[object],
    *,
    slots: int = 1,
    queue: int = 1,
    seconds: float = 60.0,
    stall: float = 60.0,
    buffer: int = 64,
    together: bool = False,
) -> Stage:
    backend, notes = ScriptedBackend(script, runs_outputs_together=together), Notes()
    conductor = Conductor(
        backend=backend,
        admission=Admission(slots=slots, queue_limit=queue),
        meter=ShareMeter(cpu_clock=time.process_time, clock=time.monotonic),
        observer=notes,
        times=TimeLimits(generation_seconds=seconds, stall_seconds=stall),
        clock=time.monotonic,
        buffer=buffer,
    )
    return Stage(conductor, backend, notes)


def request(name: str = "r", *, stop: tuple[str, ...] = (), interval: int = 1) -> Generation:
    return Generation(
        name, "scripted", RawPrompt("hi"), stopping=Stopping(max_tokens=9, stop=stop), stream_interval=interval
    )


async def collect(events: AsyncIterator[GenerationEvent]) -> list[GenerationEvent]:
    return [event async for event in events]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def settled(theater: Stage) -> Measurement:
    """Waits for the end, and proves that nothing is left running."""
    await until(lambda: bool(theater.notes.measurements))
    assert all(run.is_closed and run.stops for run in theater.backend.runs)
    assert theater.notes.load == (0, 0)
    assert theater.conductor.admission.running == 0
    return theater.notes.measurements[-1]


def text_of(events: list[GenerationEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_an_answer_starts_streams_and_finishes_once() -> None:
    theater = stage(HELLO)
    events = await collect(theater.conductor.submit(request()).events())
    assert isinstance(events[0], Started)
    assert text_of(events) == "Hello"
    assert [isinstance(event, Finished | Failed) for event in events] == [False, False, False, True]
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.match.eos_token_id) == (FinishReason.STOP, 2)
    assert (end.usage.uncached_input_tokens, end.usage.cached_input_tokens, end.usage.output_tokens) == (3, 2, 3)
    measurement = await settled(theater)
    assert measurement.answer == "Hello"
    assert len(measurement.token_seconds) == 1


async def test_an_answer_is_whole_when_its_measurement_would_outlive_the_process() -> None:
    theater = stage(HELLO)
    theater.notes.kept = asyncio.get_running_loop().create_future()
    events = theater.conductor.submit(request()).events()
    seen = [await anext(events) for _ in range(3)]
    last = asyncio.ensure_future(anext(events))
    await until(lambda: bool(theater.notes.measurements))
    assert not last.done()
    theater.notes.kept.set_result(None)
    assert isinstance(await last, Finished)
    assert text_of(seen) == "Hello"


async def test_an_answer_waits_only_a_moment_for_a_measurement_that_cannot_be_kept() -> None:
    theater = stage(HELLO)
    theater.notes.kept = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(30):
        events = await collect(theater.conductor.submit(request()).events())
    assert isinstance(events[-1], Finished)


async def test_a_stop_string_over_a_token_border_ends_the_engine_and_never_leaks() -> None:
    theater = stage([PromptProgress(5, 0), NewTokens("one E", 1), NewTokens("N", 2), NewTokens("D two", 3), HANG])
    events = await collect(theater.conductor.submit(request(stop=("END",))).events())
    assert text_of(events) == "one "
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.match.stop_text, end.usage.output_tokens) == (FinishReason.STOP, "END", 3)
    assert (await settled(theater)).reason is FinishReason.STOP


async def test_text_that_only_looked_like_a_stop_string_comes_out_at_the_end() -> None:
    theater = stage(
        [PromptProgress(5, 0), NewTokens("one EN", 1), replace(END, reason=FinishReason.LENGTH, generated=1)]
    )
    events = await collect(theater.conductor.submit(request(stop=("END",))).events())
    assert text_of(events) == "one EN"
    assert sum(event.token_count for event in events if isinstance(event, Delta)) == 1


async def test_a_stream_interval_bundles_tokens_without_losing_one() -> None:
    theater = stage(
        [PromptProgress(5, 0), *(NewTokens(c, i + 1) for i, c in enumerate("abcde")), replace(END, generated=5)]
    )
    events = await collect(theater.conductor.submit(request(interval=2)).events())
    assert [(e.text, e.token_count) for e in events if isinstance(e, Delta)] == [("ab", 2), ("cd", 2), ("e", 1)]


async def test_abort_in_mid_stream_ends_with_cancelled_and_the_tokens_so_far() -> None:
    theater = stage([PromptProgress(5, 0), NewTokens("one", 1), HANG])
    session = theater.conductor.submit(request("mine"))
    events = session.events()
    seen = [await anext(events), await anext(events)]
    assert theater.conductor.abort("mine")
    seen += await collect(events)
    end = seen[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.output_tokens, text_of(seen)) == (FinishReason.CANCELLED, 1, "one")
    await settled(theater)
    assert not theater.conductor.abort("mine")


@pytest.mark.parametrize("script", [[HANG], [PromptProgress(5, 0), HANG]])
async def test_abort_before_the_first_token_is_an_error_and_not_an_empty_answer(script: list[object]) -> None:
    theater = stage(script)
    session = theater.conductor.submit(request("mine"))
    await until(lambda: bool(theater.backend.runs))
    assert theater.conductor.abort("mine")
    with pytest.raises(RequestStopped, match="cancelled"):
        await collect(session.events())
    assert (await settled(theater)).reason is FinishReason.CANCELLED


async def test_abort_at_once_never_starts_the_engine() -> None:
    theater = stage(HELLO)
    session = theater.conductor.submit(request("mine"))
    assert theater.conductor.abort("mine")
    assert not theater.conductor.abort("mine")
    with pytest.raises(RequestStopped):
        await collect(session.events())
    await settled(theater)
    assert theater.backend.runs == []


async def test_abort_while_waiting_leaves_the_queue_and_harms_nobody() -> None:
    theater = stage([PromptProgress(5, 0), HANG])
    first, second = theater.conductor.submit(request("first")), theater.conductor.submit(request("second"))
    await until(lambda: len(theater.backend.runs) == 1 and theater.notes.load == (1, 1))
    theater.conductor.abort("second")
    theater.conductor.abort("first")
    for session in (first, second):
        with pytest.raises(RequestStopped):
            await collect(session.events())
    await until(lambda: len(theater.notes.measurements) == 2)
    await settled(theater)
    assert len(theater.backend.runs) == 1


async def test_the_deadline_stops_the_engine() -> None:
    theater = stage([PromptProgress(5, 0), HANG])
    with pytest.raises(RequestStopped) as stopped:
        await collect(theater.conductor.submit(request(), deadline_seconds=0.02).events())
    assert stopped.value.timed_out
    assert (await settled(theater)).reason is FinishReason.TIMEOUT


async def test_the_longest_generation_time_ends_an_answer_in_band() -> None:
    theater = stage([PromptProgress(5, 0), NewTokens("a", 1), HANG], seconds=0.02)
    end = (await collect(theater.conductor.submit(request()).events()))[-1]
    assert isinstance(end, Finished)
    assert end.reason is FinishReason.TIMEOUT
    await settled(theater)


async def test_a_refusal_before_the_first_token_is_raised() -> None:
    theater = stage([InvalidRequest("input", "too long")])
    with pytest.raises(InvalidRequest):
        await collect(theater.conductor.submit(request()).events())
    assert (await settled(theater)).reason is FinishReason.ERROR


@pytest.mark.parametrize(
    ("fault", "retryable"),
    [(EngineFailed("broke"), False), (EngineUnavailable("away"), True), (RuntimeError("secret text"), False)],
)
async def test_a_failure_after_the_first_token_is_one_event_in_band(fault: Exception, retryable: bool) -> None:
    theater = stage([PromptProgress(5, 0), NewTokens("a", 1), fault])
    events = await collect(theater.conductor.submit(request()).events())
    end = events[-1]
    assert isinstance(end, Failed)
    assert (end.retryable, end.usage.output_tokens) == (retryable, 1)
    assert "secret" not in end.message
    await settled(theater)
    assert bool(theater.notes.faults) == isinstance(fault, RuntimeError)


async def test_an_engine_that_ends_without_a_reason_is_a_failure() -> None:
    theater = stage([PromptProgress(5, 0)])
    with pytest.raises(EngineFailed):
        await collect(theater.conductor.submit(request()).events())
    await settled(theater)


async def test_a_silent_engine_is_given_up_and_health_follows() -> None:
    theater = stage([PromptProgress(5, 0), NewTokens("a", 1), HANG], stall=0.04)
    end = (await collect(theater.conductor.submit(request()).events()))[-1]
    assert isinstance(end, Failed)
    assert end.retryable
    await settled(theater)
    assert theater.notes.health == [False, True]


class SlowBackend(ScriptedBackend):
    """Works on one prompt only: the request `waits` hears nothing, the others a token now and then."""

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> ScriptedRun:
        waits = [PromptProgress(5, 0), HANG]
        tokens = [PromptProgress(5, 0), *(NewTokens("a", number) for number in range(1, 40)), END]
        self.runs.append(SlowRun(waits if generation.request_id == "waits" else tokens))
        return self.runs[-1]


class SlowRun(ScriptedRun):
    async def __aiter__(self) -> AsyncIterator[EngineStep]:
        async for step in super().__aiter__():
            yield step
            await asyncio.sleep(0.01)


async def test_a_request_whose_prompt_waits_for_others_is_not_given_up_while_they_get_tokens() -> None:
    theater = stage([], slots=2, stall=0.1)
    theater.backend = theater.conductor._backend = SlowBackend([])
    waiting, talking = theater.conductor.submit(request("waits")), theater.conductor.submit(request("talks"))
    events = waiting.events()
    assert isinstance(await anext(events), Started)
    assert text_of(await collect(talking.events())).startswith("aaa")  # takes four times as long as a stall
    assert theater.notes.health == []
    with pytest.raises(EngineUnavailable):  # from here on the engine is silent to everybody
        await anext(events)
    await until(lambda: theater.notes.health == [False, True])


class TidyingBackend(ScriptedBackend):
    """Takes a moment to tidy up after each run, as a thread that ends does."""

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> ScriptedRun:
        self.runs.append(TidyingRun(self.script))
        return self.runs[-1]


class TidyingRun(ScriptedRun):
    async def closed(self) -> None:
        if not self.is_closed:
            await asyncio.sleep(0.005)
        await super().closed()


async def test_the_slot_is_free_when_the_caller_hears_of_an_end_that_the_engine_made() -> None:
    theater = stage(HELLO, queue=0)
    theater.backend = theater.conductor._backend = TidyingBackend(HELLO)
    for number in range(20):
        # With one slot and no queue the next request is refused where the slot is not free.
        await collect(theater.conductor.submit(request(str(number))).events())
        for _ in range(5):  # a network takes longer than some turns of the loop
            await asyncio.sleep(0)
    await until(lambda: len(theater.notes.measurements) == 20)


async def test_the_next_request_runs_when_the_slot_is_free_again() -> None:
    theater = stage(HELLO, queue=3)
    sessions = [theater.conductor.submit(request(str(number))) for number in range(4)]
    with pytest.raises(Overloaded):
        theater.conductor.submit(request("too many"))
    with pytest.raises(DuplicateRequest):
        theater.conductor.submit(request("0"))
    answers = await asyncio.gather(*(collect(session.events()) for session in sessions))
    assert [text_of(events) for events in answers] == ["Hello"] * 4
    await until(lambda: len(theater.notes.measurements) == 4)
    await settled(theater)


async def test_one_that_is_displaced_from_a_full_queue_is_told_when_to_retry() -> None:
    theater = stage([PromptProgress(5, 0), HANG], queue=2)
    sessions = [theater.conductor.submit(replace(request(str(n)), tenant_id="big")) for n in range(3)]
    small = theater.conductor.submit(replace(request("small"), tenant_id="small"))
    with pytest.raises(Overloaded):
        await collect(sessions[2].events())
    await theater.conductor.close()
    for session in (sessions[0], sessions[1], small):
        with pytest.raises(RequestStopped):
            await collect(session.events())
    assert [m.generation.request_id for m in theater.notes.measurements][0] == "2"


async def test_an_engine_that_does_not_let_go_is_taken_for_dead() -> None:
    theater = stage([PromptProgress(5, 0), NewTokens("a", 1), HANG])
    session = theater.conductor.submit(request("mine"))
    await until(lambda: bool(session.outputs[0].counters.generated))

    async def stuck() -> None:
        raise EngineDied("it does not let go")

    theater.backend.runs[0].closed = stuck  # type: ignore[method-assign]
    theater.conductor.abort("mine")
    assert isinstance((await collect(session.events()))[-1], Finished)
    await until(lambda: bool(theater.notes.measurements))
    assert [type(fault) for fault in theater.notes.faults] == [EngineDied]
    assert theater.conductor.admission.running == 0


async def test_a_reader_that_dawdles_makes_no_engine_silent() -> None:
    tokens = [NewTokens("a", number) for number in range(1, 12)]
    theater = stage([PromptProgress(5, 0), *tokens, END], buffer=2, stall=0.05)
    text = ""
    async for event in theater.conductor.submit(request("dawdles")).events():
        text += event.text if isinstance(event, Delta) else ""
        if len(text) in (1, 5):
            await asyncio.sleep(0.2)  # four times as long as a stall
    assert text == "a" * 11
    assert (await settled(theater)).reason is FinishReason.STOP
    assert theater.notes.health == []


async def test_a_reader_that_never_reads_is_ended_by_the_time_of_its_generation() -> None:
    tokens = [NewTokens("a", number) for number in range(1, 100)]
    theater = stage([PromptProgress(5, 0), *tokens, END], buffer=2, stall=0.02, seconds=0.2)
    session = theater.conductor.submit(request("away"))
    assert (await settled(theater)).reason is FinishReason.TIMEOUT
    assert theater.notes.health == []
    assert isinstance((await collect(session.events()))[-1], Finished)


async def test_a_reader_that_never_reads_bounds_memory_and_still_gets_its_terminal_event() -> None:
    many = [PromptProgress(5, 0), *(NewTokens("x", i + 1) for i in range(500)), replace(END, generated=500)]
    theater = stage(many, buffer=4)
    session = theater.conductor.submit(request("slow"))
    await until(lambda: session.outputs[0].counters.generated >= 4)
    for _ in range(50):
        await asyncio.sleep(0)
    assert session.outputs[0].counters.generated <= 6
    theater.conductor.abort("slow")
    events = await collect(session.events())
    assert sum(isinstance(event, Finished) for event in events) == 1
    await settled(theater)


@pytest.mark.parametrize("together", [False, True])
async def test_several_outputs_are_several_runs_with_seeds_of_their_own_and_one_end(together: bool) -> None:
    theater = stage(HELLO, together=together)
    wanted = replace(request(), sampling=Sampling(seed=7, num_sequences=3))
    events = await collect(theater.conductor.submit(wanted).events())
    for index in range(3):
        assert "".join(e.text for e in events if isinstance(e, Delta) and e.output_index == index) == "Hello"
    end = events[-1]
    assert isinstance(end, Finished)
    assert [(output.index, output.reason) for output in end.outputs] == [(i, FinishReason.STOP) for i in range(3)]
    assert (end.usage.uncached_input_tokens, end.usage.cached_input_tokens, end.usage.output_tokens) == (9, 6, 9)
    assert [g.sampling.seed for g in theater.backend.started] == [7, 8, 9]
    assert sum(isinstance(event, Started) for event in events) == 1
    await settled(theater)


@pytest.mark.parametrize("together", [False, True])
async def test_one_failing_output_ends_the_request_once_and_stops_the_others(together: bool) -> None:
    theater = stage([PromptProgress(5, 0), NewTokens("a", 1), EngineFailed("broke")], together=together)
    events = await collect(theater.conductor.submit(replace(request(), sampling=Sampling(num_sequences=3))).events())
    assert [isinstance(event, Failed) for event in events].count(True) == 1
    assert isinstance(events[-1], Failed)
    await settled(theater)


async def test_outputs_that_ended_keep_their_reason_when_the_rest_is_aborted() -> None:
    theater = stage(HELLO)
    session = theater.conductor.submit(replace(request("mine"), sampling=Sampling(num_sequences=2)))
    seen: list[GenerationEvent] = []
    async for event in session.events():
        seen.append(event)
        if isinstance(event, Delta) and event.output_index == 1:
            theater.conductor.abort("mine")
    end = seen[-1]
    assert isinstance(end, Finished)
    assert end.outputs[0].reason is FinishReason.STOP
    assert end.reason in (FinishReason.CANCELLED, FinishReason.STOP)  # it may just have ended by itself
    await settled(theater)


async def test_an_engine_that_died_takes_no_more_requests_and_says_so_once() -> None:
    theater = stage([PromptProgress(5, 0), NewTokens("a", 1), EngineDied("out of memory")])
    end = (await collect(theater.conductor.submit(request()).events()))[-1]
    assert isinstance(end, Failed)
    assert end.retryable
    await settled(theater)
    assert [type(fault) for fault in theater.notes.faults] == [EngineDied]
    with pytest.raises(EngineUnavailable, match="started anew"):
        theater.conductor.submit(request("next"))


async def test_closing_stops_everything_and_admits_nothing() -> None:
    theater = stage([PromptProgress(5, 0), NewTokens("a", 1), HANG], slots=2)
    sessions = [theater.conductor.submit(request(str(number))) for number in range(2)]
    await until(lambda: all(session.outputs[0].counters.generated for session in sessions))
    await theater.conductor.close()
    assert all(run.is_closed for run in theater.backend.runs)
    with pytest.raises(EngineUnavailable, match="shutting down"):
        theater.conductor.submit(request("late"))
    for session in sessions:
        assert isinstance((await collect(session.events()))[-1], Finished)


@pytest.mark.parametrize("steps_before", range(8))
async def test_wherever_it_is_aborted_there_is_exactly_one_end(steps_before: int) -> None:
    theater = stage(HELLO)
    session = theater.conductor.submit(request("r"))
    for _ in range(steps_before):
        await asyncio.sleep(0)
    theater.conductor.abort("r")
    ends = 0
    try:
        ends = sum(isinstance(event, Finished | Failed) for event in await collect(session.events()))
    except InferenceRefusal:
        ends += 1
    assert ends == 1
    await settled(theater)
    assert len(theater.notes.measurements) == 1
