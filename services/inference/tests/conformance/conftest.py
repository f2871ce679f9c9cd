"""The backends that must all behave alike, each around something real or as near to it as this machine allows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance_types import Contender
from inference_stage import served
from llama_upstream import KEY, LlamaUpstream, running_upstream
from sluice_inference.adapters.llama_cpp.backend import LlamaCpp
from sluice_inference.adapters.openai_http.backend import OpenAiHttp, model_facts
from sluice_inference.adapters.openai_http.options import OpenAiHttpOptions
from tensorrt_stage import loaded

CONTEXT_TOKENS = 512


@pytest.fixture(scope="session")
def upstream() -> Iterator[LlamaUpstream]:
    with running_upstream() as upstream:
        yield upstream


@contextlib.asynccontextmanager
async def llama_cpp(engine: LlamaCpp, home: Path) -> AsyncIterator[Contender]:
    async with served(engine, home=home) as running:
        yield Contender(running, engine, engine.busy_slots)


@contextlib.asynccontextmanager
async def openai_http(upstream: LlamaUpstream, home: Path) -> AsyncIterator[Contender]:
    key = home / "key"
    key.write_text(KEY)
    options = OpenAiHttpOptions(
        base_url=upstream.address + "/v1", upstream_model="any", dialect="llama_cpp", key_file=key
    )
    facts = model_facts(options, model_id="remote", max_context_tokens=CONTEXT_TOKENS, max_output_tokens=500)
    backend = OpenAiHttp(options, model=facts)
    await backend.load()
    async with served(backend, home=home) as running:
        yield Contender(running, backend, lambda: asyncio.to_thread(upstream.busy_slots), lambda: backend.aborts)
    await backend.close()


@contextlib.asynccontextmanager
async def tensorrt_llm(checkpoint: Path, home: Path) -> AsyncIterator[Contender]:
    lora = home / "pirate"
    lora.mkdir()
    backend, llm = await loaded(checkpoint, guided_decoding="xgrammar", loras={"pirate": lora}, stats=True)

    async def live() -> int:
        return int(llm.engine.live)

    async with served(backend, home=home) as running:
        yield Contender(running, backend, live, lambda: llm.engine.aborts)
    await backend.close()
    assert llm.engine.live == 0


# Backend -> what serves it, and the fixture with the part that lives as long as all tests.
CONTENDERS: dict[str, tuple[Any, str]] = {
    "llama_cpp": (llama_cpp, "engine"),
    "openai_http": (openai_http, "upstream"),
    "tensorrt_llm": (tensorrt_llm, "checkpoint"),
}


@pytest.fixture(params=sorted(CONTENDERS))
def lasting(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """Resolved outside the event loop: the engines are brought up by loops of their own."""
    serve, fixture = CONTENDERS[request.param]
    return serve, request.getfixturevalue(fixture)


@pytest.fixture
async def contender(lasting: tuple[Any, Any], tmp_path: Path) -> AsyncIterator[Contender]:
    serve, part = lasting
    async with serve(part, tmp_path) as contender:
        yield contender
