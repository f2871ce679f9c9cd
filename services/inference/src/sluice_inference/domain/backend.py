"""The seam every engine fits: llama.cpp today; TensorRT-LLM and OpenAI-compatible upstreams are written against the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from sluice_inference.domain.generation import FinishReason, Generation, Sampling, StopMatch, TokenLogprob


@dataclass(frozen=True)
class Capabilities:
    """What a model can do; None = not known."""

    chat: bool | None = None
    embed: bool | None = None
    logprobs: bool | None = None
    num_sequences: bool | None = None
    json_schema: bool | None = None
    grammar: bool | None = None
    choice: bool | None = None
    token_input: bool | None = None
    lora: bool | None = None
    seed: bool | None = None
    cache_salt: bool | None = None
    priority: bool | None = None
    logit_bias: bool | None = None
    tools: bool | None = None


@dataclass(frozen=True)
class ModelFacts:
    """Everything known about one model. Token counts; digest `sha256:...` or empty; 0 = not known."""

    model_id: str
    backend: str
    aliases: tuple[str, ...] = ()
    max_context_tokens: int = 0
    max_output_tokens: int = 0
    digest: str = ""
    license: str = ""
    parameter_count: int = 0
    vocabulary_size: int = 0
    quant_algo: str = ""
    quant_group_size: int = 0
    kv_cache_quant_algo: str = ""
    capabilities: Capabilities = field(default_factory=Capabilities)
    default_sampling: Sampling = field(default_factory=Sampling)

    def is_called(self, name: str) -> bool:
        return name == self.model_id or name in self.aliases


@dataclass(frozen=True)
class PromptProgress:
    """The engine works on the prompt. The first one means: accepted, and not too long."""

    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class NewTokens:
    """What the engine generated since the last step; text is whole characters, may be empty. `generated` is the count so far."""

    text: str
    generated: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prefill_seconds: float = 0.0


@dataclass(frozen=True)
class EngineEnded:
    """The engine finished by itself: end token, token limit or context limit. Nothing follows."""

    reason: FinishReason
    match: StopMatch
    prompt_tokens: int
    cached_tokens: int
    generated: int


EngineStep = PromptProgress | NewTokens | EngineEnded


class EngineRun(Protocol):
    """One generation inside an engine.

    Iterating gives PromptProgress (at least once), NewTokens, then EngineEnded; or raises an InferenceRefusal.
    Ending the iteration early does NOT stop an engine (true of TensorRT-LLM too): call `stop`, then await `closed`.
    """

    def __aiter__(self) -> AsyncIterator[EngineStep]: ...

    def stop(self) -> None:
        """Asks the engine to stop computing; idempotent, returns at once."""

    async def closed(self) -> None:
        """Returns when the engine computes nothing for this request any more."""


class Backend(Protocol):
    """An engine with its models loaded or not yet."""

    @property
    def name(self) -> str:
        """`llama_cpp`, `tensorrt_llm` or `openai_http`."""

    @property
    def model(self) -> ModelFacts:
        """The generating model. Known before `load`."""

    async def load(self) -> None:
        """Makes the model ready, off the event loop. Raises ModelUnusable."""

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> EngineRun:
        """Begins a generation; called on the event loop (TensorRT-LLM's generate_async demands it). Never blocks.

        `slot` is the ordinal of the admission slot, which engines with fixed slots map onto their own.
        """

    async def close(self) -> None:
        """Frees the model; no run may be open."""
