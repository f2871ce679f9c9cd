"""One request inside TensorRT-LLM.

Rules of the package that shape this file (release 1.2.1; sources in the project's notes on it):
* `generate_async` is no coroutine, and must be called on the event loop's thread;
* it yields the same RequestOutput again and again, whose fields are cumulative and can even shrink: only own counters are right;
* leaving the iteration does not stop the engine, only `abort()` does; a last response follows, which is waited for;
* RequestError concerns one request; ValueError and TypeError are bad arguments; anything else means that the engine is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from sluice_inference.adapters.pumped_run import PumpedRun
from sluice_inference.adapters.tensorrt_llm.package import TensorRtLlmPackage
from sluice_inference.adapters.tensorrt_llm.tokens import CheckpointTokens
from sluice_inference.domain.backend import EngineEnded, EngineStep, NewTokens, PromptProgress
from sluice_inference.domain.generation import FinishReason, Generation, StopMatch, TokenLogprob
from sluice_inference.domain.refusals import (
    EngineDied,
    EngineFailed,
    EngineUnavailable,
    InferenceRefusal,
    InvalidRequest,
)

Prepare = Callable[[], "PreparedRequest"]


class PreparedRequest:
    """What `generate_async` is called with; made in a thread."""

    def __init__(self, prompt: list[int], keywords: dict[str, Any]) -> None:
        self.prompt, self.keywords = prompt, keywords


class TensorRtRun(PumpedRun):
    """Stopping it aborts the request in the engine; `closed` waits until the engine has let go of it."""

    def __init__(
        self,
        *,
        llm: Any,
        package: TensorRtLlmPackage,
        generation: Generation,
        tokens: CheckpointTokens,
        drain_seconds: float,
        clock: Callable[[], float],
        count_abort: Callable[[], None],
    ) -> None:
        super().__init__()
        self._llm, self._package, self._has_guide = llm, package, generation.guide is not None
        self._drain_seconds, self._clock, self._count_abort = drain_seconds, clock, count_abort
        self._death: EngineDied | None = None
        self._reader = OutputReader(generation, tokens)

    def begin(self, prepare: Prepare) -> None:
        self.begin_pumping(self._compute(prepare), name="tensorrt-llm")

    async def closed(self) -> None:
        await super().closed()
        if self._death:
            raise self._death

    async def _compute(self, prepare: Prepare) -> None:
        try:
            await self._generate(prepare)
        except Exception as error:
            await self.put(self._as_refusal(error))

    async def _generate(self, prepare: Prepare) -> None:
        request = await asyncio.to_thread(prepare)
        began = self._clock()
        result = self._llm.generate_async(request.prompt, streaming=True, **request.keywords)
        try:
            await self.put(PromptProgress(len(request.prompt), 0))
            async for answer in result:
                for step in self._reader.read(answer, prompt_tokens=len(request.prompt), seconds=self._clock() - began):
                    await self.put(step)
                if self._reader.has_ended:
                    return
        except self._package.request_error:
            self._reader.engine_finished = True  # the error was its last word on this request
            raise
        finally:
            if not self._reader.engine_finished:
                await self._abort(result)

    async def _abort(self, result: Any) -> None:
        """Tells the engine once and waits, bounded, for the last response: until then it may still compute."""
        self._count_abort()
        with contextlib.suppress(Exception):  # an engine that is lost cannot be told anything
            result.abort()
        draining = asyncio.ensure_future(_drain(result))
        done, _ = await asyncio.wait({draining}, timeout=self._drain_seconds)
        draining.cancel()
        if not done:
            self._death = EngineDied(f"the engine did not end an aborted request within {self._drain_seconds:g} s.")

    def _as_refusal(self, error: Exception) -> InferenceRefusal:
        """The package's errors; its messages may quote the request, so they are not passed on."""
        if isinstance(error, InferenceRefusal):
            return error
        if isinstance(error, self._package.request_error):
            return self._of_request_error()
        if isinstance(error, ValueError | TypeError):
            return InvalidRequest("request", "the engine does not take these parameters.")
        if isinstance(error, RuntimeError) and "shutting down" in str(error):
            return EngineUnavailable("the engine is shutting down; send the request to another replica.")
        self._death = EngineDied(f"the engine failed for all requests ({type(error).__name__}).")
        return self._death

    def _of_request_error(self) -> InferenceRefusal:
        if self._has_guide and not self._reader.has_begun:
            return InvalidRequest("guided", "the engine cannot follow this guide.")
        return EngineFailed("the engine failed on this request.")


async def _drain(result: Any) -> None:
    with contextlib.suppress(Exception):  # that it ended is all that matters here
        async for _ in result:
            pass


class OutputReader:
    """Turns the cumulative RequestOutput into steps, by own counters."""

    def __init__(self, generation: Generation, tokens: CheckpointTokens) -> None:
        self._tokens = tokens
        self._stop_token_ids = frozenset(generation.stopping.stop_token_ids)
        self._seen_ids = self._seen_logprobs = 0
        self._text = ""
        self._cached: int | None = None
        self.has_begun = self.has_ended = False
        self.engine_finished = False
        """True when the engine itself computes nothing more: an abort would be one too many."""

    def read(self, answer: Any, *, prompt_tokens: int, seconds: float) -> Iterator[EngineStep]:
        """Raises EngineFailed for an end that is not known."""
        output = answer.outputs[0]
        if self._cached is None:
            self._cached = int(answer.cached_tokens or 0)
            yield PromptProgress(prompt_tokens, min(self._cached, prompt_tokens))
        if step := self._new_tokens(output, seconds):
            yield step
        if output.finish_reason is not None:
            # A stop string (we send none) is found in decoded text only, and the engine runs on.
            self.engine_finished = not isinstance(output.stop_reason, str)
            self.has_ended = True
            yield self._ended(output, prompt_tokens)

    def _new_tokens(self, output: Any, seconds: float) -> NewTokens | None:
        ids = tuple(output.token_ids[self._seen_ids :])
        # At the end the ids of a stop word are taken away again: what was counted stays counted.
        self._seen_ids = max(self._seen_ids, len(output.token_ids))
        text = output.text[len(self._text) :] if output.text.startswith(self._text) else ""
        self._text += text
        if not ids and not text:
            return None
        prefill = 0.0 if self.has_begun else seconds
        self.has_begun = True
        return NewTokens(text, self._seen_ids, ids, self._logprobs(output, ids), prefill)

    def _logprobs(self, output: Any, ids: tuple[int, ...]) -> tuple[TokenLogprob, ...]:
        new = list(output.logprobs or ())[self._seen_logprobs :]
        self._seen_logprobs += len(new)
        return tuple(self._logprob(token_id, entry) for token_id, entry in zip(ids, new, strict=False))

    def _logprob(self, token_id: int, entry: Any) -> TokenLogprob:
        """`entry` is the chosen token's number, or a mapping of token id to Logprob."""
        if isinstance(entry, int | float):
            return TokenLogprob(token_id, self._tokens.text_of(token_id), float(entry))
        others = sorted(entry.items(), key=lambda item: -item[1].logprob)
        return TokenLogprob(
            token_id,
            self._tokens.text_of(token_id),
            float(entry[token_id].logprob),
            tuple(TokenLogprob(other, self._tokens.text_of(other), float(one.logprob)) for other, one in others),
        )

    def _ended(self, output: Any, prompt_tokens: int) -> EngineEnded:
        reason, match = self._reason(output)
        return EngineEnded(reason, match, prompt_tokens, min(self._cached or 0, prompt_tokens), self._seen_ids)

    def _reason(self, output: Any) -> tuple[FinishReason, StopMatch]:
        stop = output.stop_reason
        match output.finish_reason:
            case "stop" if isinstance(stop, str):
                return FinishReason.STOP, StopMatch(stop_text=stop)
            case "stop" if stop in self._stop_token_ids:
                return FinishReason.STOP, StopMatch(stop_token_id=stop)
            case "stop":
                # generation_config.json may name further end tokens, which the engine reports as stop words.
                return FinishReason.STOP, StopMatch(eos_token_id=self._tokens.eos_token_id if stop is None else stop)
            case "length":
                return FinishReason.LENGTH, StopMatch()
            case "timeout":
                return FinishReason.TIMEOUT, StopMatch()
            case "cancelled":
                return FinishReason.CANCELLED, StopMatch()
            case _:
                raise EngineFailed("the engine ended the answer for a reason that is not known here.")
