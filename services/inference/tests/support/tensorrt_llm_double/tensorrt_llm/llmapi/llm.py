"""LLM: checks every keyword by the contract, and computes with the double's engine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tensorrt_llm.executor.request import LoRARequest
from tensorrt_llm.executor.result import RequestOutput
from tensorrt_llm.executor.utils import RequestError
from tensorrt_llm.llmapi import llm_args
from tensorrt_llm.sampling_params import SamplingParams

from tensorrt_llm_double.contract import llm_argument_names, signature_of
from tensorrt_llm_double.engine import TOKENS_PER_BLOCK, Engine, Faults
from tensorrt_llm_double.guides import CannotFollow

_NESTED = {
    "kv_cache_config": llm_args.KvCacheConfig,
    "cuda_graph_config": llm_args.CudaGraphConfig,
    "scheduler_config": llm_args.SchedulerConfig,
}
_INIT = signature_of("tensorrt_llm.llmapi.llm", "_TorchLLM", "__init__")
_GENERATE = signature_of("tensorrt_llm.llmapi.llm", "BaseLLM", "generate_async")


class LLM:
    """`latest` is the last one made, for tests that start a whole service. Start faults come from the environment."""

    latest: LLM | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = _INIT.bind(self, *args, **kwargs).arguments
        keywords = given.pop("kwargs", {})
        given.pop("self")
        self.arguments: dict[str, Any] = given | keywords
        for key, value in keywords.items():
            if key not in llm_argument_names():
                raise ValueError(f"{type(self).__name__} got invalid argument: {key}")
            if key in _NESTED and isinstance(value, dict):
                _NESTED[key](**value)
        if not self.arguments["model"]:
            raise ValueError("model is empty")
        self._check_gpus()
        time.sleep(float(os.environ.get("DOUBLE_START_SECONDS", "0")))
        if os.environ.get("DOUBLE_OUT_OF_MEMORY"):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        self.faults = Faults(stream_interval=self.arguments.get("stream_interval") or 1)
        if fail_at := os.environ.get("DOUBLE_FAIL_AT"):
            self.faults.fail_at, self.faults.failure = int(fail_at), RuntimeError("CUDA error: an illegal access")
        self.engine = Engine(Path(self.arguments["model"]), faults=self.faults)
        self._is_shut = False
        self._count = 0
        LLM.latest = self

    def _check_gpus(self) -> None:
        world = self.arguments.get("tensor_parallel_size", 1) * self.arguments.get("pipeline_parallel_size", 1)
        gpus = int(os.environ.get("DOUBLE_GPUS", "8"))
        if world > gpus:
            raise RuntimeError(f"Only {gpus} GPUs are available, but {world} are required.")

    def generate_async(self, *args: Any, **kwargs: Any) -> RequestOutput:
        given = _GENERATE.bind(self, *args, **kwargs).arguments
        if self._is_shut:
            raise RuntimeError("LLM is shutting down")
        if self.faults.fail_at_call:
            raise self.faults.fail_at_call
        prompt, params = given["inputs"], given.get("sampling_params")
        if isinstance(prompt, dict):
            prompt = prompt["prompt_token_ids"]
        if not isinstance(prompt, list) or not all(isinstance(token, int) for token in prompt):
            raise TypeError(f"The inputs must be type str or list of int, but got {type(prompt)}")
        if params is not None and not isinstance(params, SamplingParams):
            raise TypeError(f"The sampling_params must be type SamplingParams or None, but got {type(params)}")
        params = params or SamplingParams()
        self._check(prompt, params, given.get("lora_request"))
        params.end_id = params.pad_id = self.engine.eos  # the package changes the caller's object
        try:
            request = self.engine.begin(prompt, params, lora=given.get("lora_request"), salt=given.get("cache_salt"))
        except CannotFollow as error:
            raise RequestError(str(error)) from error
        self._count += 1
        return RequestOutput._of(self.engine, request, self._count)

    def _check(self, prompt: list[int], params: Any, lora: Any) -> None:
        longest = self.arguments.get("max_num_tokens") or 8192
        if not self.arguments.get("enable_chunked_prefill") and len(prompt) > longest:
            raise RequestError(f"The sum of prompt length ({len(prompt)}) and query length (0) exceeds max_num_tokens")
        if params.guided_decoding is not None and not self.arguments.get("guided_decoding_backend"):
            raise ValueError("guided decoding is not enabled")
        if lora is not None and not (isinstance(lora, LoRARequest) and self.arguments.get("enable_lora")):
            raise ValueError("LoRA is not enabled")

    async def get_stats_async(self, timeout: float | None = 2) -> AsyncIterator[dict[str, Any]]:
        used = sum(len(request.prompt) for request in self.engine.requests if request.is_live)
        yield {
            "iter": self._count,
            "numActiveRequests": self.engine.live,
            "kvCacheStats": {
                "maxNumBlocks": 1000,
                "usedNumBlocks": -(-used // TOKENS_PER_BLOCK),
                "tokensPerBlock": TOKENS_PER_BLOCK,
            },
        }
        await asyncio.sleep(min(timeout or 0, 0.05))

    def shutdown(self) -> None:
        self._is_shut = True

    def __getstate__(self) -> None:
        raise RuntimeError("LLM object can not be pickled.")


LLM.__init__.__signature__ = _INIT  # type: ignore[attr-defined]
LLM.generate_async.__signature__ = _GENERATE  # type: ignore[attr-defined]
