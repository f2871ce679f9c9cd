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
import contextlib
import json
import os
import re
import secrets
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sluice_inference.adapters.gguf import GgufFacts
from sluice_inference.domain.backend import (
    Capabilities,
    EngineEnded,
    EngineStep,
    ModelFacts,
    NewTokens,
    PromptProgress,
)
from sluice_inference.domain.generation import (
    Chat,
    FinishReason,
    Generation,
    Guide,
    GuideKind,
    RawPrompt,
    Sampling,
    StopMatch,
    TokenLogprob,
    TokenPrompt,
)
from sluice_inference.domain.refusals import (
    EngineFailed,
    EngineUnavailable,
    InferenceRefusal,
    InvalidRequest,
    ModelUnusable,
)
from sluice_inference.domain.validation import prompt_too_long

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
GUIDES = frozenset({GuideKind.JSON_OBJECT, GuideKind.JSON_SCHEMA, GuideKind.CHOICE, GuideKind.EBNF})
# Prompt tokens computed between two chances to stop: 256 take about 1 s on two busy cores and cost no speed there.
PROMPT_BATCH = 256
# Steps that may wait for the event loop before the engine's thread waits too.
STEP_BOUND = 32
# llama.cpp's seeds have 32 bits, and this one means "any".
_RANDOM_SEED = 0xFFFFFFFF


@dataclass(frozen=True)
class LlamaCppOptions:
    """How to run the engine; context_tokens is per slot, threads 0 = one per core."""

    model_path: Path
    slots: int
    context_tokens: int
    threads: int
    loras: Mapping[str, Path] = field(default_factory=dict)
    """LoRA adapters (GGUF) by name; each request names at most one."""


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
) -> ModelFacts:
    """What GetModelInfo tells of a GGUF model. Raises ModelUnusable when the context is longer than the model's own."""
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
        license=_spdx(gguf.license),
        parameter_count=gguf.parameter_count,
        vocabulary_size=gguf.vocabulary_size,
        quant_algo=gguf.quant_algo,
        quant_group_size=gguf.quant_group_size,
        capabilities=Capabilities(
            chat=gguf.has_chat_template, completion=True, token_input=True, embed=False, num_sequences=True,
            logit_bias=True, guides=GUIDES, logprobs=True, return_token_ids=True, min_tokens=False, ignore_eos=True,
            stop_token_ids=True, cache_salt=True, bypass_prefix_cache=True, lora=bool(loras), tools=False,
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
        self._control_tokens = _any_of(gguf.control_tokens)
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

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> LlamaRun:
        if self._server is None or self._threads is None:
            raise EngineUnavailable("the model is still loading; try again soon.")
        body = request_body(generation, slot=slot, may_reuse_cache=may_reuse_cache, control_tokens=self._control_tokens)
        if self._options.loras:
            body["lora"] = lora_scales(tuple(self._options.loras), chosen=generation.lora_name)
        is_chat = isinstance(generation.input, Chat)
        call = self._server.handle_chat_completions if is_chat else self._server.handle_completions
        run = LlamaRun(call, body, reader=ChunkReader(eos_token_id=self._eos))
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


class LlamaRun:
    """Fits domain.backend.EngineRun: one blocking call in a thread, its chunks handed to the event loop."""

    def __init__(self, call: Any, body: dict[str, Any], *, reader: ChunkReader) -> None:
        self._call, self._body, self._reader = call, body, reader
        self._loop = asyncio.get_running_loop()
        self._steps: asyncio.Queue[EngineStep | InferenceRefusal | None] = asyncio.Queue()
        self._room = threading.Semaphore(STEP_BOUND)
        self._stopped = False
        self._done = asyncio.Event()

    def begin(self, threads: ThreadPoolExecutor) -> None:
        threads.submit(self._compute)

    async def __aiter__(self) -> AsyncIterator[EngineStep]:
        while (step := await self._steps.get()) is not None:
            self._room.release()
            if isinstance(step, InferenceRefusal):
                raise step
            yield step

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._steps.put_nowait(None)

    async def closed(self) -> None:
        await self._done.wait()

    def _compute(self) -> None:
        """In the thread of the slot, from begin to end."""
        try:
            if not self._stopped:
                self._call(self._body, self._on_chunk)
                self._offer(None)
        except ValueError:
            # xllamacpp raises these for schemas and templates it cannot take; its text may quote the request.
            self._offer(InvalidRequest("guided", "the engine cannot follow this guide or chat."))
        except Exception as error:
            self._offer(EngineFailed(f"the engine raised {type(error).__name__}."))
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is gone: so is whoever would wait
                self._loop.call_soon_threadsafe(self._done.set)

    def _on_chunk(self, chunk: dict[str, Any]) -> bool:
        """Called by the engine; True stops the computation. An exception here would be lost in C++, so none may leave."""
        try:
            return self._stopped or not all(self._offer(step) for step in self._reader.read(chunk))
        except Exception as error:
            self._offer(EngineFailed(f"the engine's answer could not be read ({type(error).__name__})."))
            return True

    def _offer(self, step: EngineStep | InferenceRefusal | None) -> bool:
        """Hands a step over, waiting for room; False when nobody wants it any more."""
        while not self._room.acquire(timeout=0.25):
            if self._stopped:
                return False
        try:
            self._loop.call_soon_threadsafe(self._steps.put_nowait, step)
        except RuntimeError:
            return False
        return True


class ChunkReader:
    """Turns llama.cpp's OpenAI-shaped chunks into engine steps."""

    def __init__(self, *, eos_token_id: int | None) -> None:
        self._eos = eos_token_id
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
        text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        generated = timings.get("predicted_n", self._generated)
        if not self._finish and (text or generated > self._generated):
            self._generated = generated
            yield self._tokens(text, choice, timings)
        if self._finish and "usage" in chunk:
            yield self._ended(chunk["usage"])

    def _tokens(self, text: str, choice: dict[str, Any], timings: dict[str, Any]) -> NewTokens:
        entries = (choice.get("logprobs") or {}).get("content") or []
        logprobs = tuple(_logprob(entry) for entry in entries)
        return NewTokens(
            text, self._generated, tuple(p.token_id for p in logprobs), logprobs, timings.get("prompt_ms", 0.0) / 1000
        )

    def _ended(self, usage: dict[str, Any]) -> EngineEnded:
        is_stop = self._finish == "stop"
        return EngineEnded(
            reason=FinishReason.STOP if is_stop else FinishReason.LENGTH,
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


def _logprob(entry: dict[str, Any]) -> TokenLogprob:
    alternatives = tuple(_logprob({**other, "top_logprobs": ()}) for other in entry.get("top_logprobs") or ())
    return TokenLogprob(entry["id"], entry["token"], float(entry["logprob"]), alternatives)


def request_body(
    generation: Generation, *, slot: int, may_reuse_cache: bool, control_tokens: re.Pattern[str] | None
) -> dict[str, Any]:
    """llama.cpp's request. Stop strings stay out: domain.stop_strings handles them for all backends alike."""
    sampling, stopping = generation.sampling, generation.stopping
    body: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "timings_per_token": True,  # the only exact count of tokens while streaming
        "return_progress": True,  # a chance to stop between prompt batches
        "id_slot": slot,
        "cache_prompt": may_reuse_cache and not generation.bypass_prefix_cache,
        "max_tokens": stopping.max_tokens,
        "ignore_eos": stopping.ignore_eos,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        "seed": _RANDOM_SEED if sampling.seed is None else sampling.seed % _RANDOM_SEED,
        "logit_bias": [[token_id, bias] for token_id, bias in sampling.logit_bias],
    }
    if generation.logprobs is not None or generation.return_token_ids or stopping.stop_token_ids:
        body["logprobs"] = True if isinstance(generation.input, Chat) else max(1, generation.logprobs or 0)
        body["top_logprobs"] = body["n_probs"] = max(1, generation.logprobs or 0)
    return (
        body | _input_fields(generation, control_tokens) | (_guide_fields(generation.guide) if generation.guide else {})
    )


def lora_scales(names: Sequence[str], *, chosen: str) -> list[dict[str, Any]]:
    """All adapters, by the order of their loading, and only the chosen one in effect."""
    return [{"id": number, "scale": float(name == chosen)} for number, name in enumerate(names)]


def _input_fields(generation: Generation, control_tokens: re.Pattern[str] | None) -> dict[str, Any]:
    match generation.input:
        case Chat(turns):
            return {
                "messages": [{"role": turn.role, "content": defuse(turn.content, control_tokens)} for turn in turns],
                "reasoning_format": "none",
            }
        case RawPrompt(text):
            return {"prompt": text}
        case TokenPrompt(token_ids):
            return {"prompt": list(token_ids)}


def _guide_fields(guide: Guide) -> dict[str, Any]:
    match guide.kind:
        case GuideKind.JSON_OBJECT:
            return {"response_format": {"type": "json_object"}}
        case GuideKind.JSON_SCHEMA:
            return {"json_schema": _parse_schema(guide.source)}
        case GuideKind.CHOICE:
            return {"grammar": "root ::= " + " | ".join(f'"{_gbnf_escape(choice)}"' for choice in guide.choices)}
        case GuideKind.EBNF:
            return {"grammar": guide.source}
        case _:
            raise InvalidRequest("guided", f"llama.cpp is given no {guide.kind.value} guides here.")


def _parse_schema(source: str) -> dict[str, Any]:
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise InvalidRequest("guided.json_schema", "json_schema is not a JSON object.")
    return schema


def _gbnf_escape(text: str) -> str:
    """Everything but plain ASCII letters, digits and spaces as a code point, which GBNF takes anywhere."""
    return "".join(c if c.isascii() and (c.isalnum() or c == " ") else f"\\U{ord(c):08X}" for c in text)


def _any_of(tokens: Sequence[str]) -> re.Pattern[str] | None:
    """Matches control tokens such as `<|im_end|>`; words in plain angle brackets such as `<filename>` are common text."""
    dangerous = [token for token in tokens if token.startswith("<|") or token in ("<s>", "</s>", "<bos>", "<eos>")]
    return re.compile("|".join(map(re.escape, dangerous))) if dangerous else None


def defuse(content: str, control_tokens: re.Pattern[str] | None) -> str:
    """Breaks up control tokens spelt in a message: llama.cpp would read them as the end of the message and a forged role."""
    if control_tokens is None:
        return content
    return control_tokens.sub(lambda found: found[0][0] + " " + found[0][1:], content)


def wait_without_spinning() -> None:
    """Makes the engine's threads sleep when they wait for one another; works before xllamacpp is first imported only.

    libgomp spins by default. With other processes on the same cores that starves the very thread that is waited for: 40 tokens
    on 2 threads took 30 to 70 s on a busy two-core machine, and 1.3 to 2.3 s with this. Set either variable to override.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def give_signals_back() -> None:
    """Re-installs Python's handlers over the ones llama.cpp set by sigaction; works in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        if handler is not None:
            signal.signal(number, handler)
            signal.siginterrupt(number, False)
