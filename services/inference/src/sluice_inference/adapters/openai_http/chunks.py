"""An upstream's chunks in the domain's words, and its usage in disjoint buckets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sluice_inference.adapters.openai_http import trouble
from sluice_inference.domain.backend import EngineEnded, EngineStep, NewTokens
from sluice_inference.domain.generation import FinishReason, StopMatch, TokenLogprob
from sluice_inference.domain.refusals import EngineFailed, EngineUnavailable
from sluice_inference.domain.tools import ToolCallPiece

# English text has about four bytes a token in the vocabularies of the day; only used where an upstream does not count.
BYTES_PER_TOKEN = 4
_FINISH_REASONS = {
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "tool_calls": FinishReason.TOOL_CALLS,
}
_FAILURES = frozenset({"error", "abort", "cancelled"})


def estimated_tokens(text: str) -> int:
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


@dataclass(frozen=True)
class CountedUsage:
    """What an upstream counted; `prompt` includes `cached` and `cache_write`, `generated` includes `reasoning`."""

    prompt: int
    cached: int
    cache_write: int
    generated: int
    reasoning: int


def read_usage(usage: dict[str, Any], *, cached_in_prompt_tokens: bool) -> CountedUsage:
    """Reads both conventions: OpenAI's (cached tokens inside prompt_tokens) and Anthropic's (beside input_tokens)."""
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    cached = _count(details, "cached_tokens") or _count(usage, "cache_read_input_tokens", "cached_tokens")
    written = _count(details, "cache_creation_tokens") or _count(usage, "cache_creation_input_tokens")
    if not cached_in_prompt_tokens:
        prompt += cached + written
    answered = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    generated = _count(usage, "completion_tokens", "output_tokens")
    reasoning = _count(answered, "reasoning_tokens")
    # An upstream's own mistakes must not make a bucket negative.
    cached = min(cached, prompt)
    return CountedUsage(prompt, cached, min(written, prompt - cached), generated, min(reasoning, generated))


def _count(source: dict[str, Any], *names: str) -> int:
    for name in names:
        value = source.get(name)
        if isinstance(value, int | float) and value >= 0:
            return int(value)
    return 0


class ChunkReader:
    """One stream. `read` raises UpstreamTrouble, EngineFailed and EngineUnavailable for what the upstream reports as failures."""

    def __init__(self, *, prompt_tokens_guess: int, cached_in_prompt_tokens: bool) -> None:
        self._prompt_guess, self._cached_inside = prompt_tokens_guess, cached_in_prompt_tokens
        self._usage: CountedUsage | None = None
        self._finish: str | None = None
        self._bytes = self._chunks = self._counted = 0
        self._has_called = False

    @property
    def has_finished(self) -> bool:
        """True when the upstream said why it ended; only usage may follow."""
        return self._finish is not None

    def read(self, chunk: dict[str, Any]) -> Iterator[EngineStep]:
        if chunk.get("error"):
            raise trouble.of_error(chunk["error"])
        if isinstance(chunk.get("usage"), dict):
            self._usage = read_usage(chunk["usage"], cached_in_prompt_tokens=self._cached_inside)
        choice = (chunk.get("choices") or [{}])[0]
        text, calls = text_of(choice), read_tool_calls(choice)
        if text or calls or choice.get("logprobs"):
            yield self._tokens(text, calls, choice)
        finish = choice.get("finish_reason")
        if finish in _FAILURES:
            raise EngineUnavailable("the upstream gave the answer up; try again soon.")
        self._finish = finish or self._finish

    def ended(self) -> EngineEnded:
        """The end, once the stream is over. Raises EngineUnavailable when the upstream broke it off."""
        if self._finish is None:
            raise EngineUnavailable("the upstream broke the stream off; try again soon.")
        reason = _FINISH_REASONS.get(self._finish, FinishReason.STOP)
        if reason is FinishReason.STOP and self._has_called:
            reason = FinishReason.TOOL_CALLS  # a tool demanded by its name ends with "stop" on OpenAI's own servers
        if self._usage is None:
            return EngineEnded(reason, StopMatch(), self._prompt_guess, 0, self._guess(), estimated=True)
        usage = self._usage
        return EngineEnded(
            reason,
            StopMatch(),
            prompt_tokens=usage.prompt,
            cached_tokens=usage.cached,
            generated=usage.generated,
            cache_write_tokens=usage.cache_write,
            reasoning_tokens=usage.reasoning,
        )

    def _tokens(self, text: str, calls: tuple[ToolCallPiece, ...], choice: dict[str, Any]) -> NewTokens:
        logprobs = tuple(read_logprobs(choice.get("logprobs")))
        self._bytes += len(text.encode()) + sum(len((call.name + call.arguments).encode()) for call in calls)
        self._has_called = self._has_called or bool(calls)
        self._chunks += 1
        self._counted += len(logprobs)
        return NewTokens(text, self._guess(), logprobs=logprobs, tool_calls=calls)

    def _guess(self) -> int:
        """Tokens so far: those with a log probability, else as many as there were chunks, or more where a chunk holds several."""
        if self._usage and self._usage.generated:
            return self._usage.generated
        return self._counted or max(self._chunks, math.ceil(self._bytes / BYTES_PER_TOKEN))


def is_telling(chunk: dict[str, Any]) -> bool:
    """True for the first token, an end or an error; not for the empty chunk that names the role."""
    choice = (chunk.get("choices") or [{}])[0]
    return bool(chunk.get("error") or text_of(choice) or read_tool_calls(choice) or choice.get("finish_reason"))


def text_of(choice: dict[str, Any]) -> str:
    text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
    if not isinstance(text, str):
        raise EngineFailed("the upstream's answer has a form that is not known here.")
    return text


def read_tool_calls(choice: dict[str, Any]) -> tuple[ToolCallPiece, ...]:
    """Pieces of calls. Servers that send a call whole may leave its index out."""
    entries = (choice.get("delta") or {}).get("tool_calls") or ()
    try:
        return tuple(_tool_call(place, entry) for place, entry in enumerate(entries))
    except (AttributeError, TypeError, ValueError) as error:
        raise EngineFailed("the upstream's tool calls have a form that is not known here.") from error


def _tool_call(place: int, entry: dict[str, Any]) -> ToolCallPiece:
    function, index = entry.get("function") or {}, entry.get("index")
    return ToolCallPiece(
        place if index is None else int(index),
        str(entry.get("id") or ""),
        str(function.get("name") or ""),
        str(function.get("arguments") or ""),
    )


def read_logprobs(logprobs: Any) -> Iterator[TokenLogprob]:
    """Of a chat (`content` entries) or of a completion (parallel lists). Upstreams tell texts, and ids only where they extend the protocol."""
    if not isinstance(logprobs, dict):
        return
    for entry in logprobs.get("content") or ():
        yield _logprob(entry)
    for text, value, top in zip(
        logprobs.get("tokens") or (),
        logprobs.get("token_logprobs") or (),
        logprobs.get("top_logprobs") or [None] * len(logprobs.get("tokens") or ()),
        strict=False,
    ):
        others = tuple(TokenLogprob(0, other, float(score)) for other, score in (top or {}).items())
        yield TokenLogprob(0, text, float(value or 0.0), others)


def _logprob(entry: dict[str, Any]) -> TokenLogprob:
    others = tuple(_logprob({**other, "top_logprobs": ()}) for other in entry.get("top_logprobs") or ())
    return TokenLogprob(int(entry.get("id") or 0), str(entry["token"]), float(entry["logprob"]), others)
