"""Settings of the inference service: environment variables SLUICE_INFERENCE_*."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, FilePath, field_validator
from sluice_kit.settings import GrpcServiceSettings, settings_config


class InferenceSettings(GrpcServiceSettings):
    """Defaults serve the packaged model on the CPU."""

    model_config = settings_config("inference")

    models_file: FilePath | None = None
    """YAML file with the models to host; the settings of the one model below are then not looked at."""
    backend: str = "llama_cpp"
    """Engine of the one model; the others need a models file."""
    model_path: Path | None = None
    """GGUF file; empty means the packaged SmolLM2-135M-Instruct."""
    model_sha256: str = Field("", pattern=r"^(sha256:)?([0-9a-fA-F]{8,64})?$")
    """Expected sha256 of the file, or its first 8 to 64 digits; empty means any file, or the packaged model's own."""
    model_id: str = Field("smollm2-135m-instruct", pattern=r"^[A-Za-z0-9._:/-]{1,128}$")
    """Name by which the model is asked for."""
    model_aliases: str = "smollm2"
    """Other names, separated by commas."""
    slots: int = Field(4, ge=1, le=64)
    """Requests computed at once (continuous batching)."""
    context_tokens: int = Field(2048, ge=256, le=131_072, multiple_of=256)
    """Prompt plus answer of one request; a multiple of 256, to which llama.cpp rounds up. The cache takes 23 KB a token and slot."""
    max_output_tokens: int = Field(1024, ge=1, le=131_072)
    """Longest answer, also where a request gives no max_tokens."""
    threads: int = Field(0, ge=0, le=256)
    """Threads that compute; 0 means one a core."""
    queue_limit: int = Field(32, ge=0, le=10_000)
    """Requests that may wait for a slot before new ones are shed."""
    generation_seconds: float = Field(120.0, gt=0, le=3600)
    """Longest time a generation may compute."""
    stall_seconds: float = Field(30.0, gt=0, le=600)
    """An engine that is silent for so long is taken for broken: its request ends, health says NOT_SERVING."""
    self_test_model: str = Field("", pattern=r"^[A-Za-z0-9._:/-]{0,128}$")
    """Id of a model for the mesh's self-tests to host beside the others (docs/decisions/0022-self-test-probes.md); empty means none."""
    max_messages: int = Field(256, ge=1, le=10_000)
    """Messages of a chat."""
    max_input_characters: int = Field(65_536, ge=1, le=10_000_000)
    """Code points of an input, checked before it is tokenised."""
    told_tools: str = Field("", pattern=r"^[A-Za-z0-9_, -]{0,8000}$")
    """Names of tools that may stand in events when a model calls them, separated by commas; any other is `(other)`."""

    @property
    def told_tool_names(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.told_tools.split(",") if name.strip())

    @field_validator("backend")
    @classmethod
    def _backend_needs_no_file(cls, value: str) -> str:
        if value in ("tensorrt_llm", "openai_http"):
            raise ValueError(f"the backend {value} is configured in the file that SLUICE_INFERENCE_MODELS_FILE names.")
        if value != "llama_cpp":
            raise ValueError("there is no such backend; use llama_cpp, or name others in SLUICE_INFERENCE_MODELS_FILE.")
        return value
