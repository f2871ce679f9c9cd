"""The way of an answer: chunking changes nothing, a slow caller holds the model up, a silent filter does not win."""

import asyncio
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sluice_gateway.domain.chat import FinishReason, Usage
from sluice_gateway.domain.completion import Completion, Operation, Protocol
from sluice_gateway.domain.lenient import LenientStream, PassThrough
from sluice_gateway.domain.neighbours import ModelEnd, ModelStart, ModelText, RedactionEnd
from sluice_gateway.domain.rejection import FilterUnavailable, Kind, Rejection
from sluice_gateway.domain.relay import Relay
from sluice_gateway.domain.verdict import Decision, Verdict


@dataclass
class ScriptedModel:
    """Says its chunks, then ends, or fails."""

    chunks: list[str]
    failure: Rejection | None = None
    said: int = 0
    cancelled: bool = False

    async def receive(self) -> ModelStart | ModelText | ModelEnd:
        await asyncio.sleep(0)
        if self.said < len(self.chunks):
            self.said += 1
            return ModelText(self.chunks[self.said - 1])
        if self.failure:
            raise self.failure
        return ModelEnd(FinishReason.STOP, Usage(output_tokens=self.said))

    def cancel(self) -> None:
        self.cancelled = True


class SentenceFilter(PassThrough[Verdict]):
    """Gives back whole sentences; blocks at the word BAD."""

    def __init__(self) -> None:
        super().__init__(Verdict("d"), room=2)
        self._held = ""
        self._ready: list[str | Verdict] = []

    async def receive(self) -> str | Verdict:
        while not self._ready:
            item = await super().receive()
            ended = isinstance(item, Verdict)
            self._held += "" if isinstance(item, Verdict) else item
            cut = len(self._held) if ended else self._held.rfind(".") + 1
            ready, self._held = self._held[:cut], self._held[cut:]
            if "BAD" in ready:
                return Verdict("d", Decision.BLOCK, categories=("toxicity",))
            self._ready = ([ready] if ready else []) + ([Verdict("d")] if ended else [])
        return self._ready.pop(0)


@dataclass
class Listener:
    """A caller."""

    heard: list[str] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def text(self, text: str) -> None:
        self.heard.append(text)
        if self.gate:
            await self.gate.wait()


def _completion() -> Completion:
    return Completion(Operation.CHAT, Protocol.GRPC, 0.0, "key", "tenant", "project")


def _relay(model: ScriptedModel, moderation: object = None, *, filter_timeout: float = 5) -> tuple[Relay, Completion]:
    completion = _completion()
    relay = Relay(
        model,
        moderation or SentenceFilter(),  # type: ignore[arg-type]
        PassThrough(RedactionEnd(), room=2),
        completion=completion,
        filter_timeout=filter_timeout,
        clock=lambda: 0.0,
    )
    return relay, completion


def _chunked(text: str, cuts: list[int]) -> list[str]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@settings(max_examples=60, deadline=None)
@given(st.text("ab. BAD", max_size=60), st.lists(st.integers(0, 60), max_size=20))
def test_any_chunking_from_the_model_gives_the_caller_the_same_text(text: str, cuts: list[int]) -> None:
    async def heard(chunks: list[str]) -> tuple[bool, str]:
        relay, _ = _relay(ScriptedModel(chunks))
        listener = Listener()
        end = await relay.run(listener)
        return end.finish_reason is FinishReason.CONTENT_FILTER, "".join(listener.heard)

    blocked, by_letter = asyncio.run(heard(list(text)))
    blocked_too, by_chunk = asyncio.run(heard(_chunked(text, cuts)))
    assert blocked == blocked_too == ("BAD" in text)
    if not blocked:
        assert by_letter == by_chunk == text
    assert "BAD" not in by_letter
    assert "BAD" not in by_chunk


async def test_a_caller_that_does_not_read_holds_the_model_up() -> None:
    model = ScriptedModel(["A sentence."] * 10_000)
    relay, _ = _relay(model, filter_timeout=0.05)
    listener = Listener(gate=asyncio.Event())
    running = asyncio.create_task(relay.run(listener))
    await asyncio.sleep(0.2)  # four times the filters' time: waiting for a caller must not count against them
    assert not running.done()
    assert model.said < 4000
    listener.gate.set()  # type: ignore[union-attr]
    assert (await running).finish_reason is FinishReason.STOP
    assert "".join(listener.heard) == "A sentence." * 10_000


async def test_a_filter_that_falls_silent_ends_the_answer_within_its_time() -> None:
    class Silent(SentenceFilter):
        async def receive(self) -> str | Verdict:
            return await asyncio.get_running_loop().create_future()

    relay, _ = _relay(ScriptedModel(["Hello."]), Silent(), filter_timeout=0.05)
    with pytest.raises(FilterUnavailable) as caught:
        await relay.run(Listener())
    assert caught.value.metadata == {"filter": "moderation", "cause": "timeout"}


async def test_a_filter_that_ends_early_is_no_leave_to_pass() -> None:
    class Hasty(SentenceFilter):
        async def receive(self) -> str | Verdict:
            return Verdict("d")

    model = ScriptedModel(["Hello."] * 50)
    relay, _ = _relay(model, Hasty())
    with pytest.raises(FilterUnavailable):
        await relay.run(Listener())
    assert model.cancelled


async def test_a_blocked_answer_stops_the_model_and_keeps_what_was_judged_before() -> None:
    model = ScriptedModel(["Good.", "BAD."] + ["more."] * 1000)
    relay, completion = _relay(model)
    listener = Listener()
    end = await relay.run(listener)
    assert (end.finish_reason, end.usage, listener.heard) == (FinishReason.CONTENT_FILTER, None, ["Good."])
    assert model.cancelled
    assert model.said < 20
    assert completion.blocked_categories == ("toxicity",)


async def test_a_failing_model_ends_everything_with_its_own_failure() -> None:
    relay, _ = _relay(ScriptedModel(["Hi."], failure=Rejection(Kind.UNAVAILABLE, "gone", reason="MODEL_UNAVAILABLE")))
    with pytest.raises(Rejection, match="gone"):
        await relay.run(Listener())


class Broken(SentenceFilter):
    """Works for `works` receives, then is away."""

    def __init__(self, works: int) -> None:
        super().__init__()
        self._works = works

    async def receive(self) -> str | Verdict:
        if self._works == 0:
            raise FilterUnavailable("moderation", "unavailable")
        self._works -= 1
        return await super().receive()


async def test_a_lenient_stream_passes_everything_when_the_filter_fails_at_once() -> None:
    skipped: list[str] = []
    stream = LenientStream(Broken(0), end_if_skipped=Verdict(""), on_skip=lambda: skipped.append("moderation"))
    relay, _ = _relay(ScriptedModel([f"{i}." for i in range(200)]), stream)
    listener = Listener()
    await relay.run(listener)
    assert "".join(listener.heard) == "".join(f"{i}." for i in range(200))
    assert skipped == ["moderation"]


async def test_a_lenient_stream_does_not_guess_once_the_filter_has_given_text_back() -> None:
    stream = LenientStream(Broken(1), end_if_skipped=Verdict(""), on_skip=lambda: None)
    relay, _ = _relay(ScriptedModel(["a."] * 20), stream)
    with pytest.raises(FilterUnavailable):
        await relay.run(Listener())
