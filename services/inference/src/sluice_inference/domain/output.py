"""One output of a request: counts its tokens, cuts it at its stop strings, bundles what is sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from sluice_inference.domain.backend import EngineEnded, EngineRun, NewTokens, PromptProgress
from sluice_inference.domain.generation import (
    Delta,
    FinishReason,
    Generation,
    OutputEnd,
    StopMatch,
    TokenLogprob,
    Usage,
)
from sluice_inference.domain.stop_strings import StopStrings
from sluice_inference.domain.tools import ToolCallPiece, join_pieces


@dataclass
class Pending:
    """Tokens not sent yet: held back, or waiting for stream_interval to be full."""

    text: str = ""
    count: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tool_calls: list[ToolCallPiece] = field(default_factory=list)

    def add(self, text: str, count: int, step: NewTokens | None = None) -> None:
        self.text += text
        self.count += count
        if step:
            self.token_ids += step.token_ids
            self.logprobs += step.logprobs
            self.tool_calls += step.tool_calls

    def take(self, output_index: int) -> Delta:
        calls = join_pieces(self.tool_calls)
        delta = Delta(self.text, self.count, tuple(self.token_ids), tuple(self.logprobs), output_index, calls)
        self.text, self.count, self.token_ids, self.logprobs, self.tool_calls = "", 0, [], [], []
        return delta


@dataclass
class Counters:
    """Tokens of one output, as far as they are known. `prompt` includes `cached`; `generated` includes `reasoning`."""

    prompt: int = 0
    cached: int = 0
    cache_write: int = 0
    generated: int = 0
    reasoning: int = 0
    estimated: bool = False

    def usage(self) -> Usage:
        return Usage(
            uncached_input_tokens=max(0, self.prompt - self.cached - self.cache_write),
            cached_input_tokens=self.cached,
            cache_write_tokens=self.cache_write,
            output_tokens=max(0, self.generated - self.reasoning),
            reasoning_tokens=self.reasoning,
            estimated=self.estimated,
        )


class Output:
    """Takes the steps of one engine run; `end` is set when the output is complete."""

    def __init__(self, index: int, generation: Generation) -> None:
        self.index = index
        self.counters = Counters()
        self.first_token_at: float | None = None
        self.last_token_at = 0.0
        self.token_seconds: list[float] = []
        self.sent: list[str] = []
        self.called_tools: list[str] = []
        self.end: OutputEnd | None = None
        self.run: EngineRun | None = None
        self._stop_token_ids = frozenset(generation.stopping.stop_token_ids)
        self._interval = generation.stream_interval
        self._pending = Pending()
        self._stops = StopStrings(generation.stopping.stop, include=generation.stopping.include_stop_in_output)

    def take_progress(self, step: PromptProgress) -> None:
        self.counters.prompt, self.counters.cached = step.prompt_tokens, step.cached_tokens
        self.counters.estimated = step.estimated

    def take_tokens(self, step: NewTokens, *, now: float) -> None:
        """Sets `end` when a stop string or token ended the answer."""
        count = self._note_tokens(step, now)
        stop_id = next((i for i in step.token_ids if i in self._stop_token_ids), None)
        # The text of a stop token is no part of the answer, as it is with the model's own end token.
        released = self._stops.feed("" if stop_id is not None else step.text)
        self._pending.add(released.text, count, step)
        if released.matched is None and stop_id is None:
            return
        if released.matched is None:
            self._pending.add(self._stops.flush(), 0)
        self.end = OutputEnd(
            self.index, FinishReason.STOP, StopMatch(stop_text=released.matched, stop_token_id=stop_id)
        )

    def take_end(self, step: EngineEnded) -> None:
        counters = self.counters
        self._pending.add(self._stops.flush(), max(0, step.generated - counters.generated))
        counters.prompt, counters.cached, counters.cache_write = (
            step.prompt_tokens,
            step.cached_tokens,
            step.cache_write_tokens,
        )
        counters.generated, counters.reasoning = step.generated, step.reasoning_tokens
        counters.estimated = step.estimated
        self.end = OutputEnd(self.index, step.reason, step.match)

    def cut(self, reason: FinishReason) -> OutputEnd:
        """How it ended, or that it is cut now for this reason."""
        self.end = self.end or OutputEnd(self.index, reason)
        return self.end

    def releasable(self) -> Delta | None:
        """What is to be sent now, if anything; at the end all of it."""
        enough = self.end is not None or self._pending.count >= self._interval or self._interval == 1
        if not (self._pending.text or self._pending.tool_calls) or not enough:
            return None
        delta = self._pending.take(self.index)
        self.sent.append(delta.text)
        self.called_tools += [call.name for call in delta.tool_calls if call.name]
        return delta

    def _note_tokens(self, step: NewTokens, now: float) -> int:
        count = max(0, step.generated - self.counters.generated)
        if self.first_token_at is None:
            self.first_token_at = now
        elif count:
            self.token_seconds += [(now - self.last_token_at) / count] * count
        self.last_token_at = now
        self.counters.generated = max(self.counters.generated, step.generated)
        return count
