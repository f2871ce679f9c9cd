"""SamplingParams and GuidedDecodingParams, from the contract, with the documented validation at construction."""

from __future__ import annotations

import os
from typing import Any

from tensorrt_llm_double.contract import dataclass_of

_MODULE = "tensorrt_llm.sampling_params"


def _guides(self: Any) -> list[Any]:
    return [one for one in (self.json, self.regex, self.grammar, self.structural_tag) if one is not None] + (
        [True] if self.json_object else []
    )


GuidedDecodingParams = dataclass_of(_MODULE, "GuidedDecodingParams", _guides=_guides)


def _post_init(self: Any) -> None:
    if self.best_of is None:
        self.best_of = self.n
    if self.top_p is not None and not 0 <= self.top_p <= 1:
        raise ValueError(f"require 0 <= top_p <= 1, got top_p={self.top_p}")
    if self.top_k is not None and self.top_k < 0:
        raise ValueError(f"require top_k >= 0, got top_k={self.top_k}")
    if self.temperature is not None and self.temperature < 0:
        raise ValueError(f"require temperature >= 0, got temperature={self.temperature}")
    if self.best_of < self.n:
        raise ValueError(f"best_of ({self.best_of}) cannot be less than n ({self.n})")
    if self.best_of > 1 and self._greedy_decoding and not os.environ.get("TLLM_ALLOW_N_GREEDY_DECODING"):
        raise ValueError("Greedy decoding in the LLM API does not allow multiple returns.")
    if self.guided_decoding is not None and len(self.guided_decoding._guides()) > 1:
        raise ValueError(f"Only one guide can be used for a request, but got {len(self.guided_decoding._guides())}.")


def _greedy(self: Any) -> bool:
    nothing = self.temperature is None and self.top_p is None and self.top_k is None
    return not self.use_beam_search and (nothing or self.top_k == 1 or self.top_p == 0 or self.temperature == 0)


SamplingParams = dataclass_of(_MODULE, "SamplingParams", __post_init__=_post_init, _greedy_decoding=property(_greedy))

__all__ = ["GuidedDecodingParams", "SamplingParams"]
