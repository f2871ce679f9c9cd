"""Embeddings of a real upstream of another make, beside the packaged model."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from inference_stage import refused, served
from llama_upstream import KEY, LlamaUpstream
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice_inference.adapters.openai_http.backend import OpenAiEmbedding
from sluice_inference.adapters.openai_http.options import OpenAiHttpOptions
from sluice_inference.adapters.static_embedding import StaticEmbedding, StaticEmbeddingBackend
from tensorrt_stage import loaded


async def test_an_upstreams_embeddings_come_by_name_in_order_and_of_length_one(
    upstream: LlamaUpstream, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(KEY)
    options = OpenAiHttpOptions(
        base_url=upstream.embedding_address + "/v1", upstream_model="any", key_file=tmp_path / "key"
    )
    embedder = OpenAiEmbedding(options, model_id="remote-embedding", dimensions=576)
    backend, _ = await loaded(checkpoint)
    embedders = [StaticEmbeddingBackend(StaticEmbedding()), embedder]
    async with served(backend, home=tmp_path, embedders=embedders) as running:
        texts = ["the sea is deep", "the ocean is deep", "tax law of 1987"]
        answer = await running.stub.Embed(pb.EmbedRequest(texts=texts, model="remote-embedding"))
        vectors = np.array([row.values for row in answer.embeddings])
        assert vectors.shape == (3, 576)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-4)
        assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
        assert answer.usage.uncached_input_tokens > 10
        assert not answer.usage.estimated
        alone = await running.stub.Embed(pb.EmbedRequest(texts=texts[2:], model="remote-embedding", dimensions=8))
        cut = vectors[2][:8] / np.linalg.norm(vectors[2][:8])
        assert np.allclose(alone.embeddings[0].values, cut, atol=1e-2)
        assert (await running.stub.Embed(pb.EmbedRequest(texts=["x"]))).model == "sluice-static-minilm-256"
        error = await refused(
            running.stub.Embed(pb.EmbedRequest(texts=["x"], model="remote-embedding", dimensions=577))
        )
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    await embedder.close()
    await backend.close()
