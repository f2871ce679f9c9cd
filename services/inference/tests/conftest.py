"""The real engine with the real model, loaded once for all tests."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sluice_inference.adapters import gguf, model_file
from sluice_inference.adapters.llama_cpp.backend import LlamaCpp, LlamaCppOptions, model_facts
from sluice_inference.domain.warm_up import bring_up

CONTEXT_TOKENS = 512
# What several test files share is imported from here: pytest's importlib mode puts no folder on the path.
SUPPORT = Path(__file__).parent / "support"
sys.path.insert(0, str(SUPPORT))


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    from lora_file import write_lora

    loras = {"pirate": write_lora(tmp_path_factory.mktemp("lora") / "pirate.gguf")}
    path = model_file.locate_packaged()
    facts = gguf.read_facts(path)
    model = model_facts(
        facts,
        model_id="smollm2",
        aliases=("tiny",),
        digest=model_file.PACKAGED_SHA256,
        context_tokens=CONTEXT_TOKENS,
        most_output_tokens=512,
        loras=tuple(loras),
    )
    backend = LlamaCpp(
        LlamaCppOptions(path, slots=4, context_tokens=CONTEXT_TOKENS, threads=2, loras=loras), model=model, gguf=facts
    )
    asyncio.run(bring_up(backend, clock=time.monotonic))
    yield backend
    asyncio.run(backend.close())


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkpoint folder, with the double of TensorRT-LLM importable as `tensorrt_llm` while it is in use."""
    from tensorrt_llm_double.checkpoint import write_checkpoint

    sys.path.insert(0, str(SUPPORT / "tensorrt_llm_double"))
    yield write_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    sys.path.remove(str(SUPPORT / "tensorrt_llm_double"))
