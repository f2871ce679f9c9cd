"""Results: one object, yielded again and again, with cumulative fields."""

from __future__ import annotations

import asyncio
from typing import Any

from tensorrt_llm_double.contract import dataclass_of
from tensorrt_llm_double.engine import Engine, Live, Step

CompletionOutput = dataclass_of("tensorrt_llm.executor.result", "CompletionOutput")
Logprob = dataclass_of("tensorrt_llm.executor.result", "Logprob")


class RequestOutput:
    """Made by `generate_async` alone."""

    def __init__(self) -> None:
        raise RuntimeError("RequestOutput is not made directly")

    @classmethod
    def _of(cls, engine: Engine, request: Live, number: int) -> RequestOutput:
        self = object.__new__(cls)
        self._engine, self._request = engine, request
        try:
            self._loop: Any = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self.request_id, self.prompt, self.prompt_token_ids = number, None, request.prompt
        self.outputs = [CompletionOutput(index=0)]
        self.cached_tokens, self.context_logits, self.metrics_dict = 0, None, {}
        self._done = self._aborted = False
        self._shown: list[int] = []
        return self

    @property
    def finished(self) -> bool:
        return self._done

    def abort(self) -> None:
        self._aborted = True
        self._engine.abort(self._request)

    def aborted(self) -> bool:
        return self._aborted

    def __aiter__(self) -> RequestOutput:
        return self

    async def __anext__(self) -> RequestOutput:
        assert self._loop is not None, "The asyncio event loop was not present during initialization"
        if self._done:
            raise StopAsyncIteration
        item = await self._request.queue.get()
        if isinstance(item, BaseException):
            self._done = True
            raise item
        self._take(item)
        return self

    def _take(self, step: Step) -> None:
        output, faults = self.outputs[0], self._engine.faults
        self.cached_tokens = self._request.cached
        if step.count:
            output.token_ids = self._request.tokens[: step.count]
            if not (faults.empty_texts and step.count % 2 and step.finish_reason is None):
                output.text = self._engine.text_of(output.token_ids, final=step.finish_reason is not None)
        if isinstance(step.stop_reason, int) and not self._request.params.include_stop_str_in_output:
            # Taken away at the end, also from what was streamed.
            output.token_ids = output.token_ids[:-1]
            output.text = self._engine.text_of(output.token_ids, final=True)
        if self._request.params.logprobs:
            output.logprobs = [self._logprob(index, faults.float_logprobs) for index in range(len(output.token_ids))]
        output.finish_reason, output.stop_reason = step.finish_reason, step.stop_reason
        # A stop string ends the iteration, not the engine.
        self._done = step.finish_reason is not None

    def _logprob(self, index: int, as_float: bool) -> Any:
        token = self._request.tokens[index]
        if as_float:
            return -0.1
        others = [(token + offset) % 256 for offset in range(1, self._request.params.logprobs)]
        return {token: Logprob(-0.1, 1)} | {one: Logprob(-1.0 - rank, rank + 2) for rank, one in enumerate(others)}
