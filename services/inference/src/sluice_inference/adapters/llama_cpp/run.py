"""One generation inside llama.cpp: a blocking call in a thread, its chunks handed to the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sluice_inference.adapters.llama_cpp.chunks import ChunkReader
from sluice_inference.domain.backend import EngineStep
from sluice_inference.domain.refusals import EngineFailed, InferenceRefusal, InvalidRequest

# Steps that may wait for the event loop before the engine's thread waits too.
STEP_BOUND = 32


class LlamaRun:
    """Fits domain.backend.EngineRun: one blocking call in a thread, its chunks handed to the event loop."""

    def __init__(self, call: Any, body: dict[str, Any], *, reader: ChunkReader) -> None:
        self._call, self._body, self._reader = call, body, reader
        self._loop = asyncio.get_running_loop()
        self._steps: asyncio.Queue[EngineStep | InferenceRefusal | None] = asyncio.Queue()
        self._room = threading.Semaphore(STEP_BOUND)
        self._stopped = False
        self._done = asyncio.Event()

    def begin(self, threads: ThreadPoolExecutor) -> None:
        threads.submit(self._compute)

    async def __aiter__(self) -> AsyncIterator[EngineStep]:
        while (step := await self._steps.get()) is not None:
            self._room.release()
            if isinstance(step, InferenceRefusal):
                raise step
            yield step

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self._steps.put_nowait(None)

    async def closed(self) -> None:
        await self._done.wait()

    def _compute(self) -> None:
        """In the thread of the slot, from begin to end."""
        try:
            if not self._stopped:
                self._call(self._body, self._on_chunk)
                self._offer(None)
        except ValueError:
            # xllamacpp raises these for schemas and templates it cannot take; its text may quote the request.
            self._offer(InvalidRequest("guided", "the engine cannot follow this guide or chat."))
        except Exception as error:
            self._offer(EngineFailed(f"the engine raised {type(error).__name__}."))
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is gone: so is whoever would wait
                self._loop.call_soon_threadsafe(self._done.set)

    def _on_chunk(self, chunk: dict[str, Any]) -> bool:
        """Called by the engine; True stops the computation. An exception here would be lost in C++, so none may leave."""
        try:
            return self._stopped or not all(self._offer(step) for step in self._reader.read(chunk))
        except InferenceRefusal as refusal:
            self._offer(refusal)
            return True
        except Exception as error:
            self._offer(EngineFailed(f"the engine's answer could not be read ({type(error).__name__})."))
            return True

    def _offer(self, step: EngineStep | InferenceRefusal | None) -> bool:
        """Hands a step over, waiting for room; False when nobody wants it any more."""
        while not self._room.acquire(timeout=0.25):
            if self._stopped:
                return False
        try:
            self._loop.call_soon_threadsafe(self._steps.put_nowait, step)
        except RuntimeError:
            return False
        return True
