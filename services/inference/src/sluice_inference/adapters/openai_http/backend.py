"""The backend over an OpenAI-compatible upstream, and its embedding models."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import httpx2
import numpy as np

from sluice_inference.adapters.openai_http import trouble
from sluice_inference.adapters.openai_http.body import request_body
from sluice_inference.adapters.openai_http.chunks import BYTES_PER_TOKEN, ChunkReader, estimated_tokens, read_usage
from sluice_inference.adapters.openai_http.options import OpenAiHttpOptions
from sluice_inference.adapters.openai_http.sse import BrokenStream
from sluice_inference.adapters.openai_http.upstream import OpenStream, Upstream
from sluice_inference.adapters.pumped_run import PumpedRun
from sluice_inference.domain.backend import Capabilities, ModelFacts, PromptProgress
from sluice_inference.domain.generation import Chat, ChatTurn, Generation, RawPrompt, TokenPrompt
from sluice_inference.domain.profiles import Embedded
from sluice_inference.domain.refusals import EngineFailed, EngineUnavailable, InferenceRefusal
from sluice_inference.domain.tools import shown_tools


class OpenAiHttp:
    """Fits domain.backend.Backend."""

    name = "openai_http"
    runs_outputs_together = True  # the upstream has a scheduler of its own

    def __init__(self, options: OpenAiHttpOptions, *, model: ModelFacts) -> None:
        self._options, self._model = options, model
        self._dialect = options.spoken()
        self._upstream = Upstream(options)
        self.aborts = 0

    @property
    def model(self) -> ModelFacts:
        return self._model

    def kv_tokens(self) -> tuple[int, int] | None:
        return None

    async def load(self) -> None:
        """Opens the pool; the warm-up generation is the proof that the upstream answers."""
        await self._upstream.open_pool()

    def start(self, generation: Generation, *, slot: int, may_reuse_cache: bool) -> UpstreamRun:
        upstream_model = self._options.lora_models.get(generation.lora_name, self._options.upstream_model)
        path, body = request_body(generation, model=upstream_model, dialect=self._dialect)
        reader = ChunkReader(
            prompt_tokens_guess=guess_prompt_tokens(generation),
            cached_in_prompt_tokens=self._dialect.cached_in_prompt_tokens,
        )
        run = UpstreamRun(
            self._upstream,
            reader,
            prompt_tokens_guess=guess_prompt_tokens(generation),
            between_tokens_seconds=self._options.seconds.between_tokens,
            count_abort=self._count_abort,
        )
        run.begin(path, dict(self._options.extra_body) | body)
        return run

    async def close(self) -> None:
        await self._upstream.close()

    def _count_abort(self) -> None:
        self.aborts += 1


def model_facts(
    options: OpenAiHttpOptions,
    *,
    model_id: str,
    aliases: Sequence[str] = (),
    version: str = "",
    max_context_tokens: int = 0,
    max_output_tokens: int = 0,
) -> ModelFacts:
    """What is known of an upstream's model: what its operator wrote down."""
    return ModelFacts(
        model_id=model_id,
        backend=OpenAiHttp.name,
        aliases=tuple(aliases),
        version=version,
        max_context_tokens=max_context_tokens,
        max_output_tokens=max_output_tokens,
        loras=tuple(options.lora_models),
        computes_here=False,
        capabilities=options.spoken().capabilities(lora=bool(options.lora_models)),
    )


def guess_prompt_tokens(generation: Generation) -> int:
    """For upstreams that do not count: a quarter of the bytes, and four tokens a message for its frame."""
    match generation.input:
        case Chat(turns):
            tools = sum(tool.characters for tool in shown_tools(generation.tools, generation.tool_choice))
            return sum(4 + estimated_tokens(_text_of(turn)) for turn in turns) + tools // BYTES_PER_TOKEN
        case RawPrompt(text):
            return estimated_tokens(text)
        case TokenPrompt(token_ids):
            return len(token_ids)


def _text_of(turn: ChatTurn) -> str:
    return turn.content + "".join(call.name + call.arguments for call in turn.tool_calls)


class UpstreamRun(PumpedRun):
    """Stopping it cuts the connection, which stops the upstream."""

    def __init__(
        self,
        upstream: Upstream,
        reader: ChunkReader,
        *,
        prompt_tokens_guess: int,
        between_tokens_seconds: float,
        count_abort: Callable[[], None],
    ) -> None:
        super().__init__()
        self._upstream, self._reader = upstream, reader
        self._prompt_tokens_guess, self._between = prompt_tokens_guess, between_tokens_seconds
        self._count_abort = count_abort

    def begin(self, path: str, body: dict[str, object]) -> None:
        self.begin_pumping(self._compute(path, body), name="upstream")

    async def _compute(self, path: str, body: dict[str, object]) -> None:
        try:
            stream = await self._upstream.stream(path, body)
            try:
                await self._read(stream)
            finally:
                await stream.close()
        except asyncio.CancelledError:
            self._count_abort()
            raise
        except Exception as error:
            await self.put(_as_refusal(error))

    async def _read(self, stream: OpenStream) -> None:
        await self.put(PromptProgress(self._prompt_tokens_guess, 0, estimated=True))
        for seen in stream.seen:
            await self._take(seen)
        while (chunk := await self._next_chunk(stream)) is not None:
            await self._take(chunk)
        await self.put_last(self._reader.ended())

    async def _take(self, chunk: dict[str, Any]) -> None:
        for step in self._reader.read(chunk):
            await self.put(step)

    async def _next_chunk(self, stream: OpenStream) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(self._between):
                return await anext(stream.chunks, None)
        except TimeoutError as error:
            if self._reader.has_finished:
                return None  # only the usage is missing: it is estimated
            raise EngineUnavailable(f"the upstream was silent for {self._between:g} s in mid-answer.") from error
        except httpx2.TransportError:
            if self._reader.has_finished:
                return None
            raise


def _as_refusal(error: Exception) -> InferenceRefusal:
    match error:
        case InferenceRefusal():
            return error
        case trouble.UpstreamTrouble():
            return error.refusal
        case httpx2.TransportError() | BrokenStream():
            return trouble.of_connection(error).refusal
        case _:
            return EngineFailed(f"the upstream's answer could not be read ({type(error).__name__}).")


class OpenAiEmbedding:
    """Fits domain.embedding.EmbeddingBackend."""

    def __init__(
        self, options: OpenAiHttpOptions, *, model_id: str, aliases: Sequence[str] = (), dimensions: int = 0
    ) -> None:
        self._options, self._upstream = options, Upstream(options)
        self.dimensions = dimensions
        self.model = ModelFacts(
            model_id=model_id,
            backend=OpenAiHttp.name,
            aliases=tuple(aliases),
            capabilities=Capabilities(chat=False, embed=True, sampling=frozenset()),
        )

    async def embed(self, texts: Sequence[str], *, dimensions: int | None) -> Embedded:
        body = {"model": self._options.upstream_model, "input": list(texts), "encoding_format": "float"}
        answer = await self._upstream.post("embeddings", dict(self._options.extra_body) | body)
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = np.asarray([row["embedding"] for row in rows], dtype=np.float32)[:, :dimensions]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise EngineFailed("the upstream's embeddings have a form that is not known here.") from error
        if len(vectors) != len(texts):
            raise EngineFailed(f"the upstream gave {len(vectors)} embeddings for {len(texts)} texts.")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.where(lengths == 0, 1.0, lengths)
        return Embedded(unit.astype(np.float32), *_tokens(answer, texts))

    async def close(self) -> None:
        await self._upstream.close()


def _tokens(answer: dict[str, object], texts: Sequence[str]) -> tuple[int, bool]:
    usage = answer.get("usage")
    if isinstance(usage, dict):
        return read_usage(usage, cached_in_prompt_tokens=True).prompt, False
    return sum(map(estimated_tokens, texts)), True
