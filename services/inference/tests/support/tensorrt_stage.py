"""A loaded TensorRT-LLM backend over the double."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sluice_inference.adapters.tensorrt_llm.backend import TensorRtLlm, model_facts
from sluice_inference.adapters.tensorrt_llm.checkpoint import read_checkpoint
from sluice_inference.adapters.tensorrt_llm.options import TensorRtLlmOptions
from sluice_inference.adapters.tensorrt_llm.tokens import CheckpointTokens
from tensorrt_llm_double.checkpoint import CONTEXT_TOKENS


def built(folder: Path, **options: Any) -> TensorRtLlm:
    """Not loaded yet."""
    chosen = TensorRtLlmOptions(model=folder, **{"drain_seconds": 2.0} | options)
    tokens = CheckpointTokens(folder)
    facts = model_facts(
        chosen,
        checkpoint=read_checkpoint(folder),
        tokens=tokens,
        model_id="double",
        aliases=("d",),
        context_tokens=CONTEXT_TOKENS,
        most_output_tokens=500,
    )
    return TensorRtLlm(chosen, model=facts, tokens=tokens)


async def loaded(folder: Path, **options: Any) -> tuple[TensorRtLlm, Any]:
    """The backend and the double's LLM inside it."""
    backend = built(folder, **options)
    await backend.load()
    return backend, backend._llm
