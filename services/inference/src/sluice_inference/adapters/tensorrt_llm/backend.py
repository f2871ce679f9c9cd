"""The backend over `tensorrt_llm.LLM`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from sluice_inference.adapters.tensorrt_llm.arguments import engine_arguments, guide_arguments, sampling_arguments
from sluice_inference.adapters.tensorrt_llm.checkpoint import CheckpointFacts
from sluice_inference.adapters.tensorrt_llm.options import TensorRtLlmOptions
from sluice_inference.adapters.tensorrt_llm.package import TensorRtLlmPackage, import_package
from sluice_inference.adapters.tensorrt_llm.run import PreparedRequest, TensorRtRun
from sluice_inference.adapters.tensorrt_llm.tokens import CheckpointTokens
from sluice_inference.domain.backend import Capabilities, ModelFacts
from sluice_inference.domain.generation import Generation, GuideKind, Sampling
from sluice_inference.domain.refusals import EngineUnavailable, ModelUnusable
from sluice_inference.domain.validation import prompt_too_long

# What a request without these fields gets; TensorRT-LLM's own absence would mean greedy.
DEFAULT_SAMPLING = Sampling(temperature=1.0, top_p=1.0)


class TensorRtLlm:
    """Fits domain.backend.Backend."""

    name = "tensorrt_llm"
    runs_outputs_together = True  # the engine batches for itself

    def __init__(self, options: TensorRtLlmOptions, *, model: ModelFacts, tokens: CheckpointTokens) -> None:
        self._options, self._model, self._tokens = options, model, tokens
        self._package: TensorRtLlmPackage | None = None
        self._llm: Any = None
        self._loras = {name: (number, path) for number, (name, path) in enumerate(options.loras.items(), 1)}
        self._reading_stats: asyncio.Task[None] | None = None
        self._kv_tokens: tuple[int, int] | None = None
        self.aborts = 0

    @property
    def model(self) -> ModelFacts:
        return self._model

    def kv_tokens(self) -> tuple[int, int] | None:
        return self._kv_tokens

    async def load(self) -> None:
        """Minutes of weights, autotuner and graphs, in a thread that does not keep the process from ending when time is over."""
        try:
            self._llm = await asyncio.wait_for(_in_daemon_thread(self._open), self._options.start_seconds)
        except TimeoutError as error:
            raise ModelUnusable(
                f"TensorRT-LLM did not start within {self._options.start_seconds:g} s: look for hanging MPI or NCCL, or raise start_seconds."
            ) from error
        if self._options.stats:
            self._reading_stats = asyncio.create_task(self._read_stats(), name="tensorrt-llm-stats")

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> TensorRtRun:
        """The engine keeps prefixes apart by cache_salt, so neither slot nor may_reuse_cache matters."""
        if self._llm is None or self._package is None:
            raise EngineUnavailable("the model is still loading; try again soon.")
        run = TensorRtRun(
            llm=self._llm,
            package=self._package,
            generation=generation,
            tokens=self._tokens,
            drain_seconds=self._options.drain_seconds,
            clock=time.monotonic,
            count_abort=self._count_abort,
        )
        run.begin(lambda: self._prepare(generation))
        return run

    async def close(self) -> None:
        if self._reading_stats:
            self._reading_stats.cancel()
            await asyncio.gather(self._reading_stats, return_exceptions=True)
        llm, self._llm, self._kv_tokens = self._llm, None, None
        if llm is not None:
            await asyncio.to_thread(llm.shutdown)

    def _open(self) -> Any:
        self._package = import_package()
        arguments = engine_arguments(self._options, context_tokens=self._model.max_context_tokens)
        try:
            return self._package.llm(**arguments)
        except Exception as error:
            # Out of memory, too few GPUs, a keyword of another release: the sentence holds no text of any request.
            raise ModelUnusable(f"TensorRT-LLM {self._package.version} cannot start: {error}") from error

    def _prepare(self, generation: Generation) -> PreparedRequest:
        """In a thread: tokenises, checks the length, builds fresh parameters. Raises InferenceRefusal."""
        package = self._package
        assert package is not None
        prompt = self._tokens.encode(generation.input)
        room = self._model.max_context_tokens - len(prompt)
        longest = self._model.max_context_tokens if self._options.chunked_prefill else self._options.max_num_tokens
        if room < 1 or len(prompt) > longest:
            raise prompt_too_long(len(prompt), min(longest, self._model.max_context_tokens), field="input")
        arguments = sampling_arguments(generation, max_tokens=min(generation.stopping.max_tokens or room, room))
        if generation.guide:
            arguments["guided_decoding"] = package.guided_decoding_params(**guide_arguments(generation.guide))
        keywords: dict[str, Any] = {"sampling_params": package.sampling_params(**arguments)}
        if generation.lora_name:
            number, path = self._loras[generation.lora_name]
            keywords["lora_request"] = package.lora_request(generation.lora_name, number, str(path))
        if generation.cache_salt:
            keywords["cache_salt"] = generation.cache_salt
        return PreparedRequest(prompt, keywords)

    async def _read_stats(self) -> None:
        """The only reader: items are drained. The iterator ends after two seconds of silence, so it is begun again and again."""
        while True:
            with contextlib.suppress(TimeoutError):
                async for item in self._llm.get_stats_async(timeout=2):
                    self._take_stats(item)
            await asyncio.sleep(0.5)

    def _take_stats(self, item: dict[str, Any]) -> None:
        cache = item.get("kvCacheStats") or {}
        block = int(cache.get("tokensPerBlock", 0))
        self._kv_tokens = (int(cache.get("usedNumBlocks", 0)) * block, int(cache.get("maxNumBlocks", 0)) * block)

    def _count_abort(self) -> None:
        self.aborts += 1


def model_facts(
    options: TensorRtLlmOptions,
    *,
    checkpoint: CheckpointFacts,
    tokens: CheckpointTokens,
    model_id: str,
    aliases: Sequence[str],
    context_tokens: int,
    most_output_tokens: int,
    version: str = "",
) -> ModelFacts:
    """Raises ModelUnusable when the context is longer than the model's own, or a LoRA folder is missing."""
    if checkpoint.context_tokens and context_tokens > checkpoint.context_tokens:
        raise ModelUnusable(
            f"context_tokens is {context_tokens}; {model_id} was made for at most {checkpoint.context_tokens}."
        )
    for name, path in options.loras.items():
        if not path.is_dir():
            raise ModelUnusable(f"The LoRA adapter {name} has no folder {path}.")
    kv_algo = options.kv_cache.dtype.upper() if options.kv_cache.dtype != "auto" else checkpoint.kv_cache_quant_algo
    return ModelFacts(
        model_id=model_id,
        backend=TensorRtLlm.name,
        aliases=tuple(aliases),
        version=version,
        max_context_tokens=context_tokens,
        max_output_tokens=min(most_output_tokens, context_tokens - 1),
        digest=checkpoint.digest,
        digest_covers=checkpoint.digest_covers,
        architecture=checkpoint.architecture,
        license=checkpoint.license,
        parameter_count=checkpoint.parameter_count,
        vocabulary_size=tokens.vocabulary_size,
        quant_algo=checkpoint.quant_algo,
        quant_group_size=checkpoint.quant_group_size,
        kv_cache_quant_algo=kv_algo,
        loras=tuple(options.loras),
        accelerators=options.gpus,
        capabilities=_capabilities(options, chat=tokens.has_template),
        default_sampling=DEFAULT_SAMPLING,
    )


def _capabilities(options: TensorRtLlmOptions, *, chat: bool) -> Capabilities:
    guides = set()
    if options.guided_decoding:
        guides = set(GuideKind) - (set() if options.guided_decoding == "xgrammar" else {GuideKind.STRUCTURAL_TAG})
    return Capabilities(
        chat=chat,
        completion=True,
        token_input=True,
        embed=False,
        num_sequences=True,
        logit_bias=False,  # would need a tensor over the vocabulary for each request
        guides=frozenset(guides),
        logprobs=True,
        return_token_ids=True,
        min_tokens=True,
        ignore_eos=True,
        stop_token_ids=True,
        cache_salt=True,
        bypass_prefix_cache=False,
        lora=bool(options.loras),
        tools=False,  # the package gives text: the forms of calls differ by model, and no parser of them is vouched for here
    )


async def _in_daemon_thread(function: Callable[[], Any]) -> Any:
    """Like asyncio.to_thread, but a call that never returns does not keep the interpreter from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def deliver(result: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(result)

    def work() -> None:
        try:
            result, error = function(), None
        except BaseException as raised:
            result, error = None, raised
        with contextlib.suppress(RuntimeError):  # the loop is gone: so is whoever would wait
            loop.call_soon_threadsafe(deliver, result, error)

    threading.Thread(target=work, name="tensorrt-llm-start", daemon=True).start()
    return await done
