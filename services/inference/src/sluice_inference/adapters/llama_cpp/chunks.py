"""llama.cpp's OpenAI-shaped chunks and errors, in the domain's words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sluice_inference.adapters.llama_cpp.guides import Follower
from sluice_inference.domain.backend import EngineEnded, EngineStep, NewTokens, PromptProgress
from sluice_inference.domain.generation import FinishReason, StopMatch, TokenLogprob
from sluice_inference.domain.refusals import EngineFailed, EngineUnavailable, InferenceRefusal, InvalidRequest
from sluice_inference.domain.tools import ToolCallPiece
from sluice_inference.domain.validation import prompt_too_long

_FINISH_REASONS = {"stop": FinishReason.STOP, "tool_calls": FinishReason.TOOL_CALLS}


class ChunkReader:
    """Turns llama.cpp's OpenAI-shaped chunks into engine steps."""

    def __init__(self, *, eos_token_id: int | None, follower: Follower | None = None) -> None:
        self._eos, self._follower = eos_token_id, follower
        self._finish: str | None = None
        self._generated = 0

    def read(self, chunk: dict[str, Any]) -> Iterator[EngineStep | InferenceRefusal]:
        if "error" in chunk:
            yield engine_error(chunk["error"])
            return
        if "prompt_progress" in chunk:
            yield PromptProgress(chunk["prompt_progress"]["total"], chunk["prompt_progress"]["cache"])
        choice = (chunk.get("choices") or [{}])[0]
        self._finish = choice.get("finish_reason") or self._finish
        timings = chunk.get("timings") or {}
        delta = choice.get("delta") or {}
        text = choice.get("text") or delta.get("content") or ""
        generated = timings.get("predicted_n", self._generated)
        if not self._finish and (text or delta.get("tool_calls") or generated > self._generated):
            self._generated = generated
            if self._follower:
                self._follower.feed(text)
            yield self._tokens(text, choice, timings)
        if self._finish and "usage" in chunk:
            if self._follower and self._finish == "stop":
                self._follower.end()
            yield self._ended(chunk["usage"])

    def _tokens(self, text: str, choice: dict[str, Any], timings: dict[str, Any]) -> NewTokens:
        entries = (choice.get("logprobs") or {}).get("content") or []
        logprobs = tuple(_logprob(entry) for entry in entries)
        return NewTokens(
            text,
            self._generated,
            tuple(p.token_id for p in logprobs),
            logprobs,
            timings.get("prompt_ms", 0.0) / 1000,
            read_tool_calls((choice.get("delta") or {}).get("tool_calls")),
        )

    def _ended(self, usage: dict[str, Any]) -> EngineEnded:
        is_stop = self._finish in _FINISH_REASONS
        return EngineEnded(
            reason=_FINISH_REASONS.get(self._finish or "", FinishReason.LENGTH),
            match=StopMatch(eos_token_id=self._eos if is_stop else None),
            prompt_tokens=usage["prompt_tokens"],
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            generated=usage["completion_tokens"],
        )


def engine_error(error: dict[str, Any]) -> InferenceRefusal:
    """Classifies llama.cpp's error object; its message may quote the request, so it is not passed on."""
    if error.get("type") == "exceed_context_size_error":
        return prompt_too_long(error["n_prompt_tokens"], error["n_ctx"], field="input")
    if error.get("code") == 400:
        return InvalidRequest("guided", "the engine refused the request's guide or parameters.")
    if error.get("code") == 503:
        return EngineUnavailable("the model is still loading; try again soon.")
    return EngineFailed("the engine failed on this request.")


def read_tool_calls(entries: Any) -> tuple[ToolCallPiece, ...]:
    """Of a delta in OpenAI's form."""
    return tuple(
        ToolCallPiece(
            int(entry["index"]),
            str(entry.get("id") or ""),
            str((entry.get("function") or {}).get("name") or ""),
            str((entry.get("function") or {}).get("arguments") or ""),
        )
        for entry in entries or ()
    )


def _logprob(entry: dict[str, Any]) -> TokenLogprob:
    alternatives = tuple(_logprob({**other, "top_logprobs": ()}) for other in entry.get("top_logprobs") or ())
    return TokenLogprob(entry["id"], entry["token"], float(entry["logprob"]), alternatives)
