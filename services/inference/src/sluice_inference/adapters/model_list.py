"""Which models the service hosts: a YAML file, every entry checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sluice_inference.adapters.openai_http.options import OpenAiHttpOptions
from sluice_inference.adapters.tensorrt_llm.options import TensorRtLlmOptions

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,128}$")]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class HostedEntry(_Entry):
    """What every model has."""

    id: Name
    """Name by which the model is asked for."""
    aliases: tuple[Name, ...] = ()
    """Other names."""
    version: str = Field("", pattern=r"^[A-Za-z0-9._-]{0,64}$")
    """Version; several versions of one id may be listed, and are reached as `id@version`."""
    load: bool = True
    """Load it at start; False waits for LoadModel."""
    slots: int = Field(4, ge=1, le=4096)
    """Requests computed at once."""
    queue_limit: int = Field(32, ge=0, le=10_000)
    """Requests that may wait before new ones are shed."""
    context_tokens: int = Field(2048, ge=0, le=10_000_000)
    """Prompt plus answer; 0 = not known (upstreams only)."""
    max_output_tokens: int = Field(1024, ge=0, le=10_000_000)
    """Longest answer; 0 = not limited here (upstreams only)."""
    generation_seconds: float = Field(120.0, gt=0, le=3600)
    """Longest time a generation may compute."""
    stall_seconds: float = Field(30.0, gt=0, le=600)
    """An engine that is silent for so long is taken for broken (not an upstream: its own phases are timed)."""

    @property
    def watch_seconds(self) -> float:
        """After how much silence the watchdog bites."""
        return self.stall_seconds


class LlamaCppEntry(HostedEntry):
    """A GGUF file in this process."""

    backend: Literal["llama_cpp"]
    path: Path | None = None
    """GGUF file; absent means the packaged model."""
    sha256: str = Field("", pattern=r"^(sha256:)?([0-9a-fA-F]{8,64})?$")
    """Expected sha256 of the file, or its first 8 digits or more."""
    threads: int = Field(0, ge=0, le=256)
    """Threads that compute; 0 means one a core."""
    loras: dict[str, Path] = Field(default_factory=dict)
    """LoRA adapters as GGUF files: name -> file."""
    chat_template: Path | None = None
    """Jinja file in place of the model's own chat template, such as one that knows tools."""

    @model_validator(mode="after")
    def _check(self) -> LlamaCppEntry:
        if self.context_tokens < 256 or self.context_tokens % 256:
            raise ValueError(f"context_tokens is {self.context_tokens}; llama.cpp needs a multiple of 256")
        return self


class OpenAiHttpEntry(HostedEntry):
    """A model behind an OpenAI-compatible server."""

    backend: Literal["openai_http"]
    upstream: OpenAiHttpOptions
    """How it is reached."""

    @property
    def watch_seconds(self) -> float:
        """Never before the adapter's own limits: an upstream's queue is no sign that this service is broken."""
        return self.generation_seconds


class TensorRtLlmEntry(HostedEntry):
    """A checkpoint on this machine's GPUs; one model a process."""

    backend: Literal["tensorrt_llm"]
    engine: TensorRtLlmOptions
    """How it is started."""

    @model_validator(mode="after")
    def _check(self) -> TensorRtLlmEntry:
        if self.context_tokens < 2 or self.max_output_tokens < 1:
            raise ValueError("context_tokens and max_output_tokens are needed: TensorRT-LLM bounds its memory by them")
        return self


class SelfTestEntry(HostedEntry):
    """The model of the mesh's self-tests, which has no weights and answers nobody else."""

    backend: Literal["self_test"]


class EmbedderEntry(_Entry):
    """An embedding model behind an OpenAI-compatible server."""

    id: Name
    """Name by which it is asked for."""
    aliases: tuple[Name, ...] = ()
    """Other names."""
    dimensions: int = Field(0, ge=0, le=65_536)
    """Dimensions of its vectors; 0 = not known."""
    upstream: OpenAiHttpOptions
    """How it is reached."""


ModelEntry = Annotated[
    LlamaCppEntry | OpenAiHttpEntry | TensorRtLlmEntry | SelfTestEntry, Field(discriminator="backend")
]


class ModelList(_Entry):
    """The whole file."""

    models: tuple[ModelEntry, ...]
    """Generating models, the default one first."""
    embedders: tuple[EmbedderEntry, ...] = ()
    """Embedding models beside the packaged one, which stays the default."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> ModelList:
        if not self.models:
            raise ValueError("models is empty; name at least one")
        loaded = [entry for entry in self.models if entry.backend != "self_test"]  # which has no weights and no GPU
        if len(loaded) > 1 and any(entry.backend == "tensorrt_llm" for entry in loaded):
            # Its fatal errors end the process, and it takes all memory of its GPUs.
            raise ValueError("a tensorrt_llm model is hosted alone; run one process (pod) for each")
        seen: set[str] = set()
        for entry in (*self.models, *self.embedders):
            version = getattr(entry, "version", "")
            for name in (entry.id, *entry.aliases):
                full = f"{name}@{version}" if version else name
                if full in seen:
                    raise ValueError(
                        f"the name {full} is given to two models; give one of them another version or name"
                    )
                seen.add(full)
        return self


class BadModelList(Exception):
    """The file cannot be used; `mistakes` has one sentence each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


def read_model_list(path: Path) -> ModelList:
    """Raises BadModelList with every mistake at once; values are not repeated, for they may be secret."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadModelList([f"{path} cannot be read as YAML ({type(error).__name__})."]) from error
    try:
        return ModelList.model_validate(content)
    except ValidationError as error:
        mistakes = error.errors(include_input=False, include_url=False, include_context=False)
        raise BadModelList([_sentence(mistake["loc"], mistake["msg"]) for mistake in mistakes]) from error


def with_self_test(listed: ModelList, model_id: str) -> ModelList:
    """The list and the model of the mesh's self-tests. Raises BadModelList where another one has its name."""
    try:
        return ModelList(
            models=(*listed.models, SelfTestEntry(backend="self_test", id=model_id)), embedders=listed.embedders
        )
    except ValidationError as error:
        raise BadModelList([mistake["msg"].removeprefix("Value error, ") for mistake in error.errors()]) from error


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in place) or "the file"
    return f"{where}: {message.removeprefix('Value error, ')}"
