"""What is asked of a model and what comes back: the values every backend shares."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from sluice_inference.domain.tools import Tool, ToolCall, ToolCallPiece, ToolChoice


class FinishReason(enum.Enum):
    """Why a generation ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    CONTENT_FILTER = "content_filter"
    TOOL_CALLS = "tool_calls"
    ERROR = "error"


@dataclass(frozen=True)
class ChatTurn:
    """One message; role is `system`, `user`, `assistant` (which may have tool calls) or `tool` (the result of one)."""

    role: str
    content: str
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""

    @property
    def characters(self) -> int:
        calls = sum(len(call.name) + len(call.arguments) for call in self.tool_calls)
        return len(self.content) + len(self.name) + calls


@dataclass(frozen=True)
class Chat:
    turns: tuple[ChatTurn, ...]


@dataclass(frozen=True)
class RawPrompt:
    """Text for the model as it is, without its template."""

    text: str


@dataclass(frozen=True)
class TokenPrompt:
    token_ids: tuple[int, ...]


GenerationInput = Chat | RawPrompt | TokenPrompt


@dataclass(frozen=True)
class Sampling:
    """How to sample; None = not given, so the model's default holds. Zero means zero."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    num_sequences: int = 1
    logit_bias: tuple[tuple[int, float], ...] = ()

    def over(self, defaults: Sampling) -> Sampling:
        """These values, and the defaults where none was given."""
        names = (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "frequency_penalty",
            "presence_penalty",
            "repetition_penalty",
        )
        chosen = {
            name: getattr(defaults, name) if getattr(self, name) is None else getattr(self, name) for name in names
        }
        return Sampling(**chosen, seed=self.seed, num_sequences=self.num_sequences, logit_bias=self.logit_bias)


@dataclass(frozen=True)
class Stopping:
    """When to stop; max_tokens None = what the model allows."""

    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    include_stop_in_output: bool = False


class GuideKind(enum.Enum):
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    EBNF = "ebnf_grammar"
    STRUCTURAL_TAG = "structural_tag"
    CHOICE = "choice"


@dataclass(frozen=True)
class Guide:
    """A form the answer must have; `source` is the schema or grammar, `choices` the allowed answers."""

    kind: GuideKind
    source: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Generation:
    """One request, validated or not yet (see validation.admissible)."""

    request_id: str
    model: str
    input: GenerationInput
    sampling: Sampling = field(default_factory=Sampling)
    stopping: Stopping = field(default_factory=Stopping)
    guide: Guide | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    return_token_ids: bool = False
    echo: bool = False
    stream_interval: int = 1
    cache_salt: str = ""
    cache_salt_is_given: bool = False  # by the caller; otherwise it is the tenant
    bypass_prefix_cache: bool = False
    lora_name: str = ""
    priority: int = 0
    tenant_id: str = ""
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None  # None: the caller does not read tool calls
    parallel_tool_calls: bool | None = None
    has_tools: bool = False  # tools, or calls and results of earlier ones
    extra_keys: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()  # as the caller told them


@dataclass(frozen=True)
class TokenLogprob:
    """Natural logarithm of a token's probability, and its likeliest alternatives."""

    token_id: int
    text: str
    logprob: float
    alternatives: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Usage:
    """Tokens in disjoint buckets: their sum is what the model processed."""

    uncached_input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.uncached_input_tokens + other.uncached_input_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.estimated or other.estimated,
        )


@dataclass(frozen=True)
class StopMatch:
    """What made it stop; all None when nothing matched."""

    stop_text: str | None = None
    stop_token_id: int | None = None
    eos_token_id: int | None = None


@dataclass(frozen=True)
class Timings:
    """Seconds since acceptance, or durations; None = never came to it."""

    queue_seconds: float = 0.0
    prefill_seconds: float = 0.0
    time_to_first_token_seconds: float | None = None
    total_seconds: float = 0.0


@dataclass(frozen=True)
class Started:
    """The engine took the request."""


@dataclass(frozen=True)
class Delta:
    """New text, with the number of tokens it stands for."""

    text: str
    token_count: int
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    output_index: int = 0
    tool_calls: tuple[ToolCallPiece, ...] = ()


@dataclass(frozen=True)
class OutputEnd:
    """How one of the request's outputs ended."""

    index: int
    reason: FinishReason
    match: StopMatch = StopMatch()


@dataclass(frozen=True)
class Finished:
    """Terminal: every output ended."""

    outputs: tuple[OutputEnd, ...]
    usage: Usage
    timings: Timings

    @property
    def reason(self) -> FinishReason:
        """The reason of the whole: a cancelled or late output outweighs those that ended by themselves."""
        reasons = [output.reason for output in self.outputs]
        own = (FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS)
        cut = [reason for reason in reasons if reason not in own]
        return (cut or reasons)[0]

    @property
    def match(self) -> StopMatch:
        """What stopped the first output."""
        return self.outputs[0].match


@dataclass(frozen=True)
class Failed:
    """Terminal: the engine broke after the first token."""

    message: str
    retryable: bool
    usage: Usage
    timings: Timings


Terminal = Finished | Failed
GenerationEvent = Started | Delta | Finished | Failed
