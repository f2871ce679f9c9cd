"""How one model of one upstream is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sluice_inference.adapters.openai_http.dialects import DIALECTS, Dialect

Seconds = Annotated[float, Field(gt=0, le=3600)]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class PhaseSeconds(_Options):
    """How long each phase of a request may last; the whole is bounded by the model's generation_seconds and the caller's deadline."""

    connect: Seconds = 5.0
    """To a connection, a free place in the pool included."""
    first_token: Seconds = 60.0
    """From the request sent to its first token; a retry has this time anew."""
    between_tokens: Seconds = 20.0
    """From one token to the next."""


class Retries(_Options):
    """Only before the first token: what was shown once cannot be taken back."""

    attempts: int = Field(3, ge=1, le=10)
    """Tries in all."""
    first_wait_seconds: Seconds = 0.25
    """Longest first wait; doubles each time, a random part of it is waited."""
    longest_wait_seconds: Seconds = 8.0
    """Longest wait, also for Retry-After: an upstream that asks for more is not waited for, the caller is told."""
    budget_ratio: float = Field(0.1, ge=0, le=1)
    """Retries allowed for each request that was sent: an upstream in trouble gets at most this much more load."""
    budget_burst: int = Field(10, ge=0, le=1000)
    """Retries that may be saved up."""


class OpenAiHttpOptions(_Options):
    """One upstream and one of its models."""

    base_url: str = Field(pattern=r"^https?://[^\s]+$")
    """Address up to and including `/v1`."""
    upstream_model: str = Field(min_length=1, max_length=256)
    """The model's name there."""
    dialect: str = "openai"
    """Make of the server: openai, vllm, trtllm_serve, llama_cpp, ollama or anthropic_like."""
    without: frozenset[str] = frozenset()
    """Fields of the dialect that this server does not have; requests with them are refused."""
    key_file: Path | None = None
    """File with the key, read anew for every connection attempt, so that it can be rotated."""
    key_env: str = Field("", pattern=r"^[A-Za-z0-9_]*$")
    """Or the environment variable with it."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Further headers, none of them secret."""
    proxy: str = Field("", pattern=r"^(https?://[^\s@]+)?$")
    """Outbound proxy, such as http://proxy.internal:3128; empty means none. The environment's HTTP_PROXY is not looked at."""
    proxy_auth_file: Path | None = None
    """File with `user:password` for the proxy."""
    ca_file: Path | None = None
    """Authority of the server's certificate; absent means the system's."""
    http: Literal["auto", "1.1", "2"] = "auto"
    """auto: HTTP/2 where TLS negotiates it. 2: HTTP/2 without asking, for servers on plain TCP that speak it."""
    connections: int = Field(64, ge=1, le=4096)
    """Most connections held open."""
    seconds: PhaseSeconds = PhaseSeconds()
    retries: Retries = Retries()
    lora_models: dict[str, str] = Field(default_factory=dict)
    """LoRA adapters: our name -> the name under which the upstream serves base model and adapter (vLLM does so)."""
    extra_body: dict[str, object] = Field(default_factory=dict)
    """Sent with every request."""

    @field_validator("dialect")
    @classmethod
    def _dialect_is_known(cls, value: str) -> str:
        if value not in DIALECTS:
            raise ValueError(f"there is no dialect {value}; use one of {', '.join(sorted(DIALECTS))}")
        return value

    @model_validator(mode="after")
    def _check(self) -> OpenAiHttpOptions:
        if self.key_file and self.key_env:
            raise ValueError("key_file and key_env are both given; use one")
        self.spoken()
        return self

    def spoken(self) -> Dialect:
        """The dialect less what this server does not have."""
        return DIALECTS[self.dialect].without(self.without)
