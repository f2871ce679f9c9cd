"""The package `tensorrt_llm`, imported only when a model needs it: importing it initialises MPI and CUDA."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

from sluice_inference.domain.refusals import ModelUnusable

# 1.2.1 mends a corruption of the key-value cache.
LEAST_VERSION = (1, 2, 1)


@dataclass(frozen=True)
class TensorRtLlmPackage:
    """The names that are used of it."""

    version: str
    llm: Any
    sampling_params: Any
    guided_decoding_params: Any
    lora_request: Any
    request_error: type[Exception]


def import_package() -> TensorRtLlmPackage:
    """Raises ModelUnusable when it is missing, broken or too old."""
    try:
        root = importlib.import_module("tensorrt_llm")
        sampling = importlib.import_module("tensorrt_llm.sampling_params")
        requests = importlib.import_module("tensorrt_llm.executor.request")
        utils = importlib.import_module("tensorrt_llm.executor.utils")
    except ImportError as error:
        raise ModelUnusable(
            f"TensorRT-LLM cannot be imported ({error.name or 'a library is missing'}): run this service from the GPU image (deploy/gpu)."
        ) from error
    version = str(getattr(root, "__version__", "0"))
    if _numbers(version) < LEAST_VERSION:
        raise ModelUnusable(
            f"TensorRT-LLM is {version}; at least {'.'.join(map(str, LEAST_VERSION))} is needed, as older ones corrupt the key-value cache."
        )
    return TensorRtLlmPackage(
        version=version,
        llm=root.LLM,
        sampling_params=root.SamplingParams,
        guided_decoding_params=sampling.GuidedDecodingParams,
        lora_request=requests.LoRARequest,
        request_error=utils.RequestError,
    )


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return tuple(int(part) for part in found.groups()) if found else (0,)
