"""Builds the backend of an entry of the model list; loads nothing yet."""

from __future__ import annotations

from sluice_inference.adapters import gguf, model_file
from sluice_inference.adapters.llama_cpp.backend import LlamaCpp, LlamaCppOptions
from sluice_inference.adapters.llama_cpp.backend import model_facts as llama_facts
from sluice_inference.adapters.model_list import (
    EmbedderEntry,
    LlamaCppEntry,
    ModelEntry,
    OpenAiHttpEntry,
    SelfTestEntry,
    TensorRtLlmEntry,
)
from sluice_inference.adapters.openai_http.backend import OpenAiEmbedding, OpenAiHttp
from sluice_inference.adapters.openai_http.backend import model_facts as upstream_facts
from sluice_inference.adapters.self_test import SelfTestModel
from sluice_inference.adapters.tensorrt_llm.backend import TensorRtLlm
from sluice_inference.adapters.tensorrt_llm.backend import model_facts as checkpoint_facts
from sluice_inference.adapters.tensorrt_llm.checkpoint import read_checkpoint
from sluice_inference.adapters.tensorrt_llm.tokens import CheckpointTokens
from sluice_inference.domain.backend import Backend
from sluice_inference.domain.refusals import ModelUnusable


def open_backend(entry: ModelEntry) -> Backend:
    """Proves the model's files and describes the model; reads whole files, so not for the event loop. Raises ModelUnusable."""
    match entry:
        case LlamaCppEntry():
            return _open_llama_cpp(entry)
        case OpenAiHttpEntry():
            facts = upstream_facts(
                entry.upstream,
                model_id=entry.id,
                aliases=entry.aliases,
                version=entry.version,
                max_context_tokens=entry.context_tokens,
                max_output_tokens=entry.max_output_tokens,
            )
            return OpenAiHttp(entry.upstream, model=facts)
        case TensorRtLlmEntry():
            return _open_tensorrt_llm(entry)
        case SelfTestEntry():
            return SelfTestModel(
                entry.id, context_tokens=entry.context_tokens, max_output_tokens=entry.max_output_tokens
            )


def open_embedder(entry: EmbedderEntry) -> OpenAiEmbedding:
    return OpenAiEmbedding(entry.upstream, model_id=entry.id, aliases=entry.aliases, dimensions=entry.dimensions)


def _open_llama_cpp(entry: LlamaCppEntry) -> LlamaCpp:
    path = entry.path or model_file.locate_packaged()
    expected = entry.sha256 or ("" if entry.path else model_file.PACKAGED_SHA256)
    digest = model_file.verify(path, expected_sha256=expected)
    try:
        facts = gguf.read_facts(path)
    except gguf.NotGguf as error:
        raise ModelUnusable(
            f"The model file {path} cannot be used: {error}; set SLUICE_INFERENCE_MODEL_PATH."
        ) from error
    template = _read_template(entry)
    model = llama_facts(
        facts,
        model_id=entry.id,
        aliases=entry.aliases,
        version=entry.version,
        digest=digest,
        context_tokens=entry.context_tokens,
        most_output_tokens=entry.max_output_tokens,
        loras=tuple(entry.loras),
        has_template=bool(template),
    )
    for name, file in entry.loras.items():
        if not file.is_file():
            raise ModelUnusable(f"The LoRA adapter {name} of {entry.id} has no file {file}.")
    options = LlamaCppOptions(path, entry.slots, entry.context_tokens, entry.threads, entry.loras, template)
    return LlamaCpp(options, model=model, gguf=facts)


def _read_template(entry: LlamaCppEntry) -> str:
    try:
        return entry.chat_template.read_text(encoding="utf-8") if entry.chat_template else ""
    except (OSError, UnicodeDecodeError) as error:
        raise ModelUnusable(f"The chat template {entry.chat_template} of {entry.id} cannot be read.") from error


def _open_tensorrt_llm(entry: TensorRtLlmEntry) -> TensorRtLlm:
    tokens = CheckpointTokens(entry.engine.model)
    model = checkpoint_facts(
        entry.engine,
        checkpoint=read_checkpoint(entry.engine.model, whole=entry.engine.digest == "whole"),
        tokens=tokens,
        model_id=entry.id,
        aliases=entry.aliases,
        version=entry.version,
        context_tokens=entry.context_tokens,
        most_output_tokens=entry.max_output_tokens,
    )
    return TensorRtLlm(entry.engine, model=model, tokens=tokens)
