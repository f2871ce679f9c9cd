"""Runs GGUF models with llama.cpp in this process, through xllamacpp.

Things of xllamacpp that shape this file:
* a streaming call blocks its thread and calls back with each chunk (GIL released in between): one thread per slot, and the
  chunks cross to the event loop;
* a callback that returns True stops the computation at the next token or prompt batch, not at the end;
* it always opens an HTTP port on loopback: it gets port 0 (any free one) and a random key, and `load` checks the lock;
* it takes SIGINT and SIGTERM for itself when it starts: `load` gives them back, or the process could not be stopped.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sluice_inference.adapters.gguf import GgufFacts
from sluice_inference.adapters.llama_cpp.chunks import ChunkReader
from sluice_inference.adapters.llama_cpp.guides import FOLLOWED, follower, guide_fields
from sluice_inference.adapters.llama_cpp.process import give_signals_back, wait_without_spinning
from sluice_inference.adapters.llama_cpp.requests import any_of, lora_scales, request_body
from sluice_inference.adapters.llama_cpp.run import LlamaRun
from sluice_inference.domain.backend import Capabilities, ModelFacts
from sluice_inference.domain.generation import Chat, Generation, Guide, GuideKind, Sampling
from sluice_inference.domain.refusals import EngineUnavailable, ModelUnusable

# Greedy SmolLM2 repeats itself for ever; these values are what PARTS.md found to work. The rest are llama.cpp's own.
DEFAULT_SAMPLING = Sampling(
    temperature=0.2,
    top_p=0.9,
    top_k=40,
    min_p=0.05,
    frequency_penalty=0.0,
    presence_penalty=0.0,
    repetition_penalty=1.1,
)
GUIDES = frozenset(GuideKind) - {GuideKind.STRUCTURAL_TAG}
# Prompt tokens computed between two chances to stop: 256 take about 1 s on two busy cores and cost no speed there.
PROMPT_BATCH = 256


@dataclass(frozen=True)
class LlamaCppOptions:
    """How to run the engine; context_tokens is per slot, threads 0 = one per core."""

    model_path: Path
    slots: int
    context_tokens: int
    threads: int
    loras: Mapping[str, Path] = field(default_factory=dict)
    """LoRA adapters (GGUF) by name; each request names at most one."""
    chat_template: str = ""
    """Jinja text in place of the model's own template; empty means the model's."""


def model_facts(
    gguf: GgufFacts,
    *,
    model_id: str,
    aliases: Sequence[str],
    digest: str,
    context_tokens: int,
    most_output_tokens: int,
    version: str = "",
    loras: Sequence[str] = (),
    has_template: bool = False,
) -> ModelFacts:
    """What GetModelInfo tells of a GGUF model; `has_template`: another template than the file's is used.

    Raises ModelUnusable when the context is longer than the model's own.
    """
    if gguf.context_tokens and context_tokens > gguf.context_tokens:
        raise ModelUnusable(
            f"SLUICE_INFERENCE_CONTEXT_TOKENS is {context_tokens}; this model was made for at most {gguf.context_tokens}."
        )
    return ModelFacts(
        model_id=model_id,
        backend=LlamaCpp.name,
        aliases=tuple(aliases),
        version=version,
        loras=tuple(loras),
        max_context_tokens=context_tokens,
        max_output_tokens=min(most_output_tokens, context_tokens - 1),
        digest=f"sha256:{digest}",
        digest_covers="file",
        architecture=gguf.architecture,
        license=_spdx(gguf.license),
        parameter_count=gguf.parameter_count,
        vocabulary_size=gguf.vocabulary_size,
        quant_algo=gguf.quant_algo,
        quant_group_size=gguf.quant_group_size,
        capabilities=Capabilities(
            chat=has_template or gguf.has_chat_template, completion=True, token_input=True, embed=False, num_sequences=True,
            logit_bias=True, guides=GUIDES, logprobs=True, return_token_ids=True, min_tokens=False, ignore_eos=True,
            stop_token_ids=True, cache_salt=True, bypass_prefix_cache=True, lora=bool(loras),
            tools=None, forced_tools=None,  # the engine tells, once it has read the chat template
        ),
        default_sampling=DEFAULT_SAMPLING,
    )  # fmt: skip


def _spdx(license_name: str) -> str:
    """GGUF files write licences in lower case as model hubs do."""
    return {"apache-2.0": "Apache-2.0", "mit": "MIT"}.get(license_name.lower(), license_name)


class LlamaCpp:
    """Fits domain.backend.Backend."""

    name = "llama_cpp"
    runs_outputs_together = False  # a request has one slot of the engine

    def __init__(self, options: LlamaCppOptions, *, model: ModelFacts, gguf: GgufFacts) -> None:
        self._options, self._model, self._eos = options, model, gguf.eos_token_id
        self._control_tokens = any_of(gguf.control_tokens)
        self._key = secrets.token_urlsafe(32)
        self._server: Any = None
        self._threads: ThreadPoolExecutor | None = None

    @property
    def model(self) -> ModelFacts:
        return self._model

    def kv_tokens(self) -> tuple[int, int] | None:
        return None

    async def load(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=self._options.slots, thread_name_prefix="llama-slot")
        try:
            self._server = await asyncio.to_thread(self._open)
        except RuntimeError as error:
            raise ModelUnusable(f"llama.cpp cannot load {self._options.model_path}: {error}") from error
        finally:
            give_signals_back()
        await asyncio.to_thread(self._check_the_port_is_locked)
        await self._learn_tools()
        await asyncio.to_thread(self._try_a_guide)

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> LlamaRun:
        if self._server is None or self._threads is None:
            raise EngineUnavailable("the model is still loading; try again soon.")
        body = request_body(generation, slot=slot, may_reuse_cache=may_reuse_cache, control_tokens=self._control_tokens)
        if self._options.loras:
            body["lora"] = lora_scales(tuple(self._options.loras), chosen=generation.lora_name)
        is_chat = isinstance(generation.input, Chat)
        call = self._server.handle_chat_completions if is_chat else self._server.handle_completions
        run = LlamaRun(call, body, reader=ChunkReader(eos_token_id=self._eos, follower=follower(generation.guide)))
        run.begin(self._threads)
        return run

    async def busy_slots(self) -> int:
        """Slots that llama.cpp itself says are computing; asks its HTTP port, so not for the request path."""
        slots = json.loads(await asyncio.to_thread(self._get, "/slots", key=self._key))
        return sum(bool(slot["is_processing"]) for slot in slots)

    async def close(self) -> None:
        if self._threads:
            await asyncio.to_thread(self._threads.shutdown)
        # The destructor joins the engine's thread, so the last reference must go elsewhere than on the event loop.
        holder, self._server = [self._server], None
        await asyncio.to_thread(holder.clear)

    async def _learn_tools(self) -> None:
        """A template without tools would leave them out in silence: the engine knows whether this one has them."""
        props = json.loads(await asyncio.to_thread(self._get, "/props", key=self._key))
        knows = props.get("chat_template_caps") or {}
        able = bool(knows.get("supports_tools") and knows.get("supports_tool_calls"))
        capabilities = replace(self._model.capabilities, tools=able, forced_tools=able)
        self._model = replace(self._model, capabilities=capabilities)

    def _try_a_guide(self) -> None:
        """Proves that this build of the engine follows guides by llguidance, and lets it index the vocabulary now, which takes a quarter of a
        second in which nobody else gets a token.
        """
        text: list[str] = []

        def keep(chunk: dict[str, Any]) -> bool:
            text.append((chunk.get("choices") or [{}])[0].get("text") or "")
            return False

        body = {"prompt": "a", "max_tokens": 1, "stream": True, "cache_prompt": False}
        self._server.handle_completions(body | guide_fields(Guide(GuideKind.REGEX, "[~]")), keep)
        if "".join(text) != "~":
            able = replace(self._model.capabilities, guides=GUIDES - FOLLOWED)
            self._model = replace(self._model, capabilities=able)

    def _open(self) -> Any:
        wait_without_spinning()
        import xllamacpp  # slow to import (100 MB library), and only wanted when this backend is chosen

        params = xllamacpp.CommonParams()
        params.model.path = str(self._options.model_path)
        params.n_parallel = self._options.slots
        params.n_ctx = self._options.context_tokens * self._options.slots
        params.n_batch = params.n_ubatch = PROMPT_BATCH
        if self._options.threads:
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._options.threads
        # Loaded, but with no effect until a request names one.
        params.lora_adapters = [
            xllamacpp.CommonAdapterLoraInfo(str(path), 1.0) for path in self._options.loras.values()
        ]
        params.lora_init_without_apply = True
        # Cached prompts outside the slots would be shared between tenants.
        params.cache_ram_mib = 0
        params.cache_idle_slots = False
        params.ctx_shift = False
        if self._options.chat_template:
            params.chat_template = self._options.chat_template
        params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
        params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [self._key]
        params.n_threads_http, params.ui, params.endpoint_slots = 1, False, True
        params.verbosity = -1  # its log would hold prompts
        return xllamacpp.Server(params)

    def _check_the_port_is_locked(self) -> None:
        try:
            self._get("/slots", key=None)
        except urllib.error.HTTPError as refusal:
            if refusal.code != 401:
                raise ModelUnusable(
                    f"llama.cpp's loopback port answered {refusal.code} to a call without key."
                ) from refusal
        else:
            raise ModelUnusable("llama.cpp's loopback port answers without a key; it must not be opened.")

    def _get(self, path: str, *, key: str | None) -> bytes:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        request = urllib.request.Request(self._server.listening_address + path, headers=headers)  # noqa: S310 - loopback
        with _NO_PROXY.open(request, timeout=5) as answer:
            return bytes(answer.read())


# The environment's HTTP proxy must not see loopback calls.
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
