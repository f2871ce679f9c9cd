"""How TensorRT-LLM is started. Everything here becomes an argument of `tensorrt_llm.LLM`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class KvCache(_Options):
    """The key-value cache; the least of fraction and bytes wins."""

    memory_fraction: float = Field(0.85, gt=0, lt=1)
    """Of the memory that is free after the weights; the package's own 0.9 runs out of memory in practice."""
    max_bytes: int = Field(0, ge=0)
    """Most bytes; 0 means only the fraction counts."""
    dtype: Literal["auto", "fp8", "nvfp4"] = "auto"
    """fp8 can be forced at load (Ampere and up); nvfp4 needs a checkpoint quantised for it."""
    reuse: bool = True
    """Keep prefixes; they are read within one tenant (cache_salt) only."""
    host_bytes: int = Field(0, ge=0)
    """Room in host memory for blocks that the GPU has no place for."""


class CudaGraphs(_Options):
    """Recorded decode steps: faster tokens, slower start, up to 200 MB each."""

    enabled: bool = True
    max_batch_size: int = Field(0, ge=0)
    """Largest recorded batch; 0 means the package's default."""
    padding: bool = True
    """Round batches up to a recorded size."""


class TensorRtLlmOptions(_Options):
    """One checkpoint on the GPUs of this machine."""

    model: Path
    """Folder of the checkpoint (config.json, safetensors, tokenizer.json; hf_quant_config.json where it is quantised)."""
    tensor_parallel: int = Field(1, ge=1, le=64)
    """GPUs that share each layer."""
    pipeline_parallel: int = Field(1, ge=1, le=64)
    """Groups of GPUs that have the layers in turn."""
    dtype: str = "auto"
    """Type of the weights that are not quantised."""
    max_batch_size: int = Field(64, ge=1, le=8192)
    """Sequences computed at once; with several outputs per request more than `slots` may be needed."""
    max_num_tokens: int = Field(8192, ge=1)
    """Tokens of one step; without chunked prefill the longest prompt too."""
    chunked_prefill: bool = True
    """Long prompts are computed in parts between other requests' tokens."""
    kv_cache: KvCache = KvCache()
    cuda_graphs: CudaGraphs = CudaGraphs()
    speculative: dict[str, Any] | None = None
    """Speculative decoding, in the package's own words, such as {decoding_type: NGram, max_draft_len: 4}."""
    guided_decoding: Literal["xgrammar", "llguidance"] | None = None
    """Engine of guided decoding; absent means guides are refused."""
    loras: dict[str, Path] = Field(default_factory=dict)
    """LoRA adapters: name -> folder in Hugging Face's layout."""
    max_lora_rank: int = Field(64, ge=1, le=1024)
    """Highest rank among the adapters."""
    stream_interval: int = Field(1, ge=1, le=64)
    """Tokens per step of a stream, for the whole engine; more is cheaper and less smooth."""
    stats: bool = False
    """Read the engine's iteration statistics, for GetLoad; costs host memory in some versions."""
    autotuner: bool = True
    """Try kernels at start: slower start, more memory, faster tokens."""
    load_format: Literal["auto", "dummy"] = "auto"
    """dummy: random weights, to try a deployment."""
    digest: Literal["headers", "whole"] = "headers"
    """What the digest that GetModelInfo tells covers: names, sizes and headers of the weights, or every byte (about a second a gigabyte)."""
    trust_remote_code: bool = False
    """Run code that comes with the checkpoint."""
    start_seconds: float = Field(1800.0, gt=0, le=7200)
    """Longest start: weights, autotuner, graphs."""
    drain_seconds: float = Field(10.0, gt=0, le=300)
    """How long an aborted request may take to end before the engine is taken for dead."""

    @model_validator(mode="after")
    def _check(self) -> TensorRtLlmOptions:
        if self.speculative is not None and "decoding_type" not in self.speculative:
            raise ValueError("speculative has no decoding_type; give one, such as NGram, Eagle, MTP or DraftTarget")
        return self

    @property
    def gpus(self) -> int:
        return self.tensor_parallel * self.pipeline_parallel
