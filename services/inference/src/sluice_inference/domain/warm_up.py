"""Brings a backend up: loaded, and proven by one small generation."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from sluice_inference.domain.backend import Backend, EngineEnded
from sluice_inference.domain.generation import Chat, ChatTurn, Generation, Stopping
from sluice_inference.domain.refusals import InferenceRefusal, ModelUnusable

REQUEST_ID = f"warm-up-{uuid.uuid4().hex}"
"""No caller's: who calls may name its request as it likes, and cannot know this."""


async def bring_up(backend: Backend, *, clock: Callable[[], float]) -> float:
    """Seconds from the beginning of the load to the end of a warm-up generation. Raises ModelUnusable."""
    began = clock()
    await backend.load()
    try:
        await _generate_once(backend)
    except InferenceRefusal as refusal:
        raise ModelUnusable(
            f"The model {backend.model.model_id} was loaded, but cannot answer: {refusal.message}"
        ) from refusal
    return clock() - began


async def _generate_once(backend: Backend) -> None:
    probe = Generation(
        request_id=REQUEST_ID,
        model=backend.model.model_id,
        input=Chat((ChatTurn("user", "Say hello."),)),
        sampling=backend.model.default_sampling,
        stopping=Stopping(max_tokens=2),
    )
    run = backend.start(probe, slot=0, may_reuse_cache=False)
    ended = False
    try:
        async for step in run:
            ended = isinstance(step, EngineEnded)
    finally:
        run.stop()
        await run.closed()
    if not ended:
        raise ModelUnusable(f"The model {backend.model.model_id} was loaded, but its warm-up answer never ended.")
