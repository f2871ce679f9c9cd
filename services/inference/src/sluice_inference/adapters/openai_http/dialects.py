"""What each make of server understands beyond OpenAI's protocol, and by which names.

A field that a dialect does not list is refused before it is sent (UNIMPLEMENTED): most servers ignore unknown fields in silence.
Sources: the servers' own references (OpenAI API, vLLM 0.11 protocol, llama.cpp tools/server/README, trtllm-serve API reference,
Ollama's OpenAI compatibility page).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sluice_inference.domain.backend import SAMPLING_FIELDS, Capabilities
from sluice_inference.domain.generation import GuideKind

_OPENAI_SAMPLING = {name: name for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed")}
_WIDE_SAMPLING = _OPENAI_SAMPLING | {name: name for name in ("top_k", "min_p", "repetition_penalty")}
_OPENAI_GUIDES = {GuideKind.JSON_OBJECT: "response_format", GuideKind.JSON_SCHEMA: "response_format"}


@dataclass(frozen=True)
class Dialect:
    """`sampling` and `extensions` map our field names to the server's; `guides` tells where a guide of each kind is put."""

    name: str
    sampling: Mapping[str, str] = field(default_factory=lambda: dict(_OPENAI_SAMPLING))
    extensions: Mapping[str, str] = field(default_factory=dict)
    guides: Mapping[GuideKind, str] = field(default_factory=lambda: dict(_OPENAI_GUIDES))
    max_tokens: str = "max_tokens"
    chat: bool = True
    completion: bool = True
    token_input: bool = False
    logprobs: bool = True
    tools: bool = True
    forced_tools: bool = True
    """A call can be demanded (`tool_choice`)."""
    named_tool: bool = True
    """`tool_choice` may name one; otherwise that one is shown alone, and a call demanded."""
    cached_in_prompt_tokens: bool = True
    """OpenAI counts cached tokens inside prompt_tokens; Anthropic and gateways that follow it count them beside."""

    def without(self, names: frozenset[str]) -> Dialect:
        """The dialect less some fields that this very server does not have. Raises ValueError for a name that it never had."""
        unknown = names - self._names()
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} is no field of the dialect {self.name}")
        return replace(
            self,
            sampling={ours: theirs for ours, theirs in self.sampling.items() if ours not in names},
            extensions={ours: theirs for ours, theirs in self.extensions.items() if ours not in names},
            guides={kind: place for kind, place in self.guides.items() if kind.value not in names},
            chat=self.chat and "chat" not in names,
            completion=self.completion and "completion" not in names,
            token_input=self.token_input and "token_input" not in names,
            logprobs=self.logprobs and "logprobs" not in names,
            tools=self.tools and "tools" not in names,
            forced_tools=self.forced_tools and not names & {"tools", "forced_tools"},
        )

    def capabilities(self, *, lora: bool) -> Capabilities:
        able = self.extensions
        return Capabilities(
            chat=self.chat,
            completion=self.completion,
            token_input=self.token_input,
            embed=False,
            num_sequences=True,
            sampling=frozenset(self.sampling),
            logit_bias="logit_bias" in able,
            guides=frozenset(self.guides),
            logprobs=self.logprobs,
            return_token_ids=False,
            min_tokens="min_tokens" in able,
            ignore_eos="ignore_eos" in able,
            stop_token_ids="stop_token_ids" in able,
            cache_salt="cache_salt" in able,
            bypass_prefix_cache="bypass_prefix_cache" in able,
            lora=lora,
            tools=self.tools,
            forced_tools=self.forced_tools,
        )

    def _names(self) -> frozenset[str]:
        flags = {"chat", "completion", "token_input", "logprobs", "tools", "forced_tools"}
        return SAMPLING_FIELDS | flags | frozenset(self.extensions) | {kind.value for kind in self.guides}


DIALECTS = {
    dialect.name: dialect
    for dialect in (
        Dialect("openai", extensions={"logit_bias": "logit_bias"}, max_tokens="max_completion_tokens", completion=False),
        Dialect(
            "vllm",
            sampling=_WIDE_SAMPLING,
            extensions={
                name: name for name in ("logit_bias", "min_tokens", "ignore_eos", "stop_token_ids", "cache_salt")
            },
            guides=_OPENAI_GUIDES
            | dict.fromkeys((GuideKind.REGEX, GuideKind.EBNF, GuideKind.CHOICE), "structured_outputs"),
            token_input=True,
        ),
        Dialect(
            "trtllm_serve",
            sampling=_WIDE_SAMPLING,
            extensions={name: name for name in ("min_tokens", "ignore_eos", "stop_token_ids")},
            guides=_OPENAI_GUIDES
            | dict.fromkeys((GuideKind.REGEX, GuideKind.EBNF, GuideKind.STRUCTURAL_TAG), "response_format"),
            token_input=True,
            logprobs=False,
            # Its --tool_parser decides what comes back, and its reference was not read that far: refused until somebody has seen it work.
            tools=False,
            forced_tools=False,
        ),
        Dialect(
            "llama_cpp",
            sampling=_WIDE_SAMPLING | {"repetition_penalty": "repeat_penalty"},
            extensions={"logit_bias": "logit_bias", "ignore_eos": "ignore_eos", "bypass_prefix_cache": "cache_prompt"},
            guides=_OPENAI_GUIDES | {GuideKind.EBNF: "grammar"},
            token_input=True,
            named_tool=False,
        ),
        Dialect("ollama", guides=_OPENAI_GUIDES, logprobs=False, forced_tools=False),
        Dialect("anthropic_like", sampling={n: n for n in ("temperature", "top_p")}, guides={}, completion=False,
                logprobs=False, cached_in_prompt_tokens=False),
    )
}  # fmt: skip
