"""What is asked of a model and what it used: values shared by both doors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Role(Enum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(Enum):
    """Why an answer ended."""

    UNSPECIFIED = "unspecified"
    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    CONTENT_FILTER = "content_filter"
    ERROR = "error"
    TOOL_CALLS = "tool_calls"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the assistant asked for."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message; `content` may be empty where `tool_calls` is not."""

    role: Role
    content: str
    name: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool the model may ask for; the schema is JSON text."""

    name: str
    description: str = ""
    parameters_json_schema: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample; None means the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    num_sequences: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Stopping:
    """When to stop; None means the deployment's default."""

    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool | None = None
    include_stop_in_output: bool | None = None


@dataclass(frozen=True, slots=True)
class Guide:
    """A grammar to follow: `kind` is json_object, json_schema, regex, ebnf_grammar, structural_tag or choice."""

    kind: str
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """Which prompt, and which arm of an experiment, made a request; empty where nobody said so."""

    prompt_version: str = ""
    """`name@version`."""
    experiment_arm: str = ""
    """`experiment/arm`."""

    @property
    def labels(self) -> dict[str, str]:
        """What is said, under the names it goes by in labels."""
        said = {"prompt_version": self.prompt_version, "experiment_arm": self.experiment_arm}
        return {label: value for label, value in said.items() if value}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to be answered, as the caller sent it."""

    model: str
    messages: tuple[ChatMessage, ...]
    tools: tuple[ToolDefinition, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    stopping: Stopping = field(default_factory=Stopping)
    guide: Guide | None = None
    user: str = ""
    streamed: bool = False
    capture_declined: bool = False
    """No text of it may be captured, whatever the tenant's terms are."""
    cohorts: Mapping[str, str] = field(default_factory=dict)
    """Attribute to value, as the caller declared them."""
    variant: Variant = field(default_factory=Variant)
    """As the caller declared it."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts to be turned into vectors."""

    model: str
    texts: tuple[str, ...]
    dimensions: int | None = None
    user: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens in disjoint buckets; `estimated` when the model gave no count."""

    uncached_input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False

    @property
    def input_tokens(self) -> int:
        """All input tokens, cached or not."""
        return self.uncached_input_tokens + self.cached_input_tokens + self.cache_write_tokens


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings, one for each text."""

    values: tuple[tuple[float, ...], ...]
    usage: Usage
    model: str = ""
