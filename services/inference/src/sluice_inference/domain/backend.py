"""The seam every engine fits: llama.cpp in this process, TensorRT-LLM, and OpenAI-compatible servers (docs/decisions/0007-inference-backends.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from sluice_inference.domain.generation import (
    FinishReason,
    Generation,
    GuideKind,
    Sampling,
    StopMatch,
    TokenLogprob,
)
from sluice_inference.domain.tools import ToolCallPiece

# Everything of a request that a backend may be unable to do, by the name of its field.
SAMPLING_FIELDS = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "seed"}
)


@dataclass(frozen=True)
class Capabilities:
    """What a model can do; None = not known, which is treated as "no". A request that asks for more is refused, never cut down in silence."""

    chat: bool | None = None
    completion: bool | None = None
    token_input: bool | None = None
    embed: bool | None = None
    num_sequences: bool | None = None
    sampling: frozenset[str] = SAMPLING_FIELDS
    logit_bias: bool | None = None
    guides: frozenset[GuideKind] = frozenset()
    logprobs: bool | None = None
    return_token_ids: bool | None = None
    min_tokens: bool | None = None
    ignore_eos: bool | None = None
    stop_token_ids: bool | None = None
    cache_salt: bool | None = None
    bypass_prefix_cache: bool | None = None
    lora: bool | None = None
    priority: bool | None = True
    tools: bool | None = None
    forced_tools: bool | None = None  # REQUIRED, or a tool by its name

    @property
    def json_schema(self) -> bool:
        return GuideKind.JSON_SCHEMA in self.guides

    @property
    def grammar(self) -> bool:
        return GuideKind.EBNF in self.guides

    @property
    def regex(self) -> bool:
        return GuideKind.REGEX in self.guides

    @property
    def seed(self) -> bool:
        return "seed" in self.sampling


@dataclass(frozen=True)
class ModelFacts:
    """Everything known about one model. Token counts; digest `sha256:...` or empty; 0 = not known."""

    model_id: str
    backend: str
    aliases: tuple[str, ...] = ()
    version: str = ""
    max_context_tokens: int = 0
    max_output_tokens: int = 0
    digest: str = ""
    digest_covers: str = ""
    architecture: str = ""
    license: str = ""
    parameter_count: int = 0
    vocabulary_size: int = 0
    quant_algo: str = ""
    quant_group_size: int = 0
    kv_cache_quant_algo: str = ""
    loras: tuple[str, ...] = ()
    computes_here: bool = True  # False: an upstream does, and this process only waits
    accelerators: int = 0
    capabilities: Capabilities = field(default_factory=Capabilities)
    default_sampling: Sampling = field(default_factory=Sampling)

    @property
    def names(self) -> tuple[str, ...]:
        """Its id and aliases, alone and as `name@version`."""
        known = (self.model_id, *self.aliases)
        return known + (tuple(f"{one}@{self.version}" for one in known) if self.version else ())

    def is_called(self, name: str) -> bool:
        return name in self.names


@dataclass(frozen=True)
class PromptProgress:
    """The engine works on the prompt. The first one means: accepted, and not too long. `estimated`: the counts are ours, not the engine's."""

    prompt_tokens: int
    cached_tokens: int
    estimated: bool = False


@dataclass(frozen=True)
class NewTokens:
    """What the engine generated since the last step; text is whole characters, may be empty. `generated` is the count so far."""

    text: str
    generated: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prefill_seconds: float = 0.0
    tool_calls: tuple[ToolCallPiece, ...] = ()


@dataclass(frozen=True)
class EngineEnded:
    """The engine finished by itself: end token, token limit or context limit. Nothing follows.

    `prompt_tokens` includes cached ones; `generated` includes reasoning ones; `estimated`: the counts are ours, not the engine's.
    """

    reason: FinishReason
    match: StopMatch
    prompt_tokens: int
    cached_tokens: int
    generated: int
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


EngineStep = PromptProgress | NewTokens | EngineEnded


class EngineRun(Protocol):
    """One output of one request inside an engine.

    Iterating gives PromptProgress (at least once), NewTokens, then EngineEnded; or raises an InferenceRefusal.
    Ending the iteration early does NOT stop an engine (true of TensorRT-LLM too): call `stop`, then await `closed`.
    """

    def __aiter__(self) -> AsyncIterator[EngineStep]: ...

    def stop(self) -> None:
        """Makes the engine abort this run, once, unless it has finished; may be called often and always returns at once."""

    async def closed(self) -> None:
        """Returns when the engine computes nothing for this run any more. Raises EngineDied when it does not let go of it."""


class Backend(Protocol):
    """An engine with its one model loaded or not yet."""

    @property
    def name(self) -> str:
        """`llama_cpp`, `tensorrt_llm` or `openai_http`."""

    @property
    def model(self) -> ModelFacts:
        """The generating model. Known before `load`."""

    @property
    def runs_outputs_together(self) -> bool:
        """True when the outputs of one request may run at the same time; False: one after the other, in the slot of the request."""

    def kv_tokens(self) -> tuple[int, int] | None:
        """Tokens in the key-value cache and its room, where the engine tells; None: our own counters must do."""

    async def load(self) -> None:
        """Makes the model ready, off the event loop. Raises ModelUnusable."""

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> EngineRun:
        """Begins one output; called on the event loop (TensorRT-LLM's generate_async demands it). Never blocks.

        `generation.sampling.num_sequences` is not looked at: several outputs are several runs, whose seeds differ.
        `slot` is the ordinal of the admission slot, which engines with fixed slots map onto their own.
        """

    async def close(self) -> None:
        """Frees the model; no run may be open. It can be loaded again."""
