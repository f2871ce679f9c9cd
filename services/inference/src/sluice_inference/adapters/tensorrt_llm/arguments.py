"""Arguments of `tensorrt_llm.LLM` and `SamplingParams`. Names and defaults: contract.json (release 1.2.1)."""

from __future__ import annotations

import json
from typing import Any

from sluice_inference.adapters.tensorrt_llm.options import TensorRtLlmOptions
from sluice_inference.domain.generation import Generation, Guide, GuideKind
from sluice_inference.domain.refusals import InvalidRequest


def engine_arguments(options: TensorRtLlmOptions, *, context_tokens: int) -> dict[str, Any]:
    """Keywords of `LLM(...)`. `quant_config`, `build_config` and `backend` are never among them: the PyTorch LLM refuses or deprecates them."""
    arguments: dict[str, Any] = {
        "model": str(options.model),
        "tensor_parallel_size": options.tensor_parallel,
        "pipeline_parallel_size": options.pipeline_parallel,
        "dtype": options.dtype,
        "trust_remote_code": options.trust_remote_code,
        "load_format": options.load_format,
        "max_batch_size": options.max_batch_size,
        "max_num_tokens": options.max_num_tokens,
        # Bounds the cache per sequence and our own checks: the engine checks nothing up front.
        "max_seq_len": context_tokens,
        "enable_chunked_prefill": options.chunked_prefill,
        "stream_interval": options.stream_interval,
        "enable_autotuner": options.autotuner,
        "enable_iter_perf_stats": options.stats,
        "kv_cache_config": _kv_cache(options),
        "cuda_graph_config": _cuda_graphs(options),
    }
    if options.speculative is not None:
        arguments["speculative_config"] = options.speculative
    if options.guided_decoding:
        arguments["guided_decoding_backend"] = options.guided_decoding
    if options.loras:
        arguments["enable_lora"] = True
        arguments["lora_config"] = {
            "lora_dir": [str(path) for path in options.loras.values()],
            "max_lora_rank": options.max_lora_rank,
            "max_loras": len(options.loras),
        }
    return arguments


def _kv_cache(options: TensorRtLlmOptions) -> dict[str, Any]:
    cache = options.kv_cache
    config: dict[str, Any] = {
        "free_gpu_memory_fraction": cache.memory_fraction,
        "dtype": cache.dtype,
        "enable_block_reuse": cache.reuse,
    }
    if cache.max_bytes:
        config["max_gpu_total_bytes"] = cache.max_bytes
    if cache.host_bytes:
        config["host_cache_size"] = cache.host_bytes
    return config


def _cuda_graphs(options: TensorRtLlmOptions) -> dict[str, Any] | None:
    graphs = options.cuda_graphs
    if not graphs.enabled:
        return None
    config: dict[str, Any] = {"enable_padding": graphs.padding}
    if graphs.max_batch_size:
        config["max_batch_size"] = graphs.max_batch_size
    return config


def sampling_arguments(generation: Generation, *, max_tokens: int) -> dict[str, Any]:
    """Keywords of `SamplingParams(...)`, all for one constructor call, because only that call validates.

    max_tokens, temperature, top_p and seed are always among them: the package's defaults (32 tokens, greedy, seed 0) are traps.
    `end_id`, `stop` and `n` never are: see docs/decisions/0007-inference-backends.md. Raises InvalidRequest.
    """
    sampling, stopping = generation.sampling, generation.stopping
    arguments: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": 1.0 if sampling.temperature is None else sampling.temperature,
        "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
        "seed": sampling.seed,
        "ignore_eos": stopping.ignore_eos,
        "include_stop_str_in_output": stopping.include_stop_in_output,
        "detokenize": True,
        "skip_special_tokens": True,
        "add_special_tokens": False,  # ids go in, special tokens included
    }
    optional = {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "min_tokens": stopping.min_tokens or None,
        "stop_token_ids": list(stopping.stop_token_ids) or None,
        # 0 is falsy there and gives none: 1 is the chosen token alone.
        "logprobs": None if generation.logprobs is None else max(1, generation.logprobs),
    }
    return arguments | {name: value for name, value in optional.items() if value is not None}


def guide_arguments(guide: Guide) -> dict[str, Any]:
    """Keywords of `GuidedDecodingParams(...)`; exactly one. Raises InvalidRequest."""
    match guide.kind:
        case GuideKind.JSON_OBJECT:
            return {"json_object": True}
        case GuideKind.JSON_SCHEMA:
            return {"json": _schema(guide.source)}
        case GuideKind.REGEX:
            return {"regex": guide.source}
        case GuideKind.EBNF:
            return {"grammar": guide.source}
        case GuideKind.CHOICE:
            return {"regex": "|".join(f"({_escaped(choice)})" for choice in guide.choices)}
        case GuideKind.STRUCTURAL_TAG:
            return {"structural_tag": guide.source}


def _schema(source: str) -> dict[str, Any]:
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise InvalidRequest("guided.json_schema", "json_schema is not a JSON object.")
    return schema


def _escaped(text: str) -> str:
    """Only what has a meaning in every dialect of regular expressions: `re.escape` escapes spaces too, which some refuse."""
    return "".join(f"\\{c}" if c in r"\.^$*+?{}[]()|/-" else c for c in text)
