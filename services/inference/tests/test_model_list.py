"""The file with the models: read whole, every mistake told, nothing secret repeated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sluice_inference.adapters.backends import open_backend
from sluice_inference.adapters.model_list import BadModelList, read_model_list
from sluice_inference.adapters.openai_http.backend import OpenAiHttp
from sluice_inference.domain.refusals import ModelUnusable

GOOD = """
models:
  - {id: small, backend: llama_cpp, aliases: [s], slots: 2, context_tokens: 512, max_output_tokens: 100}
  - id: large
    version: "2"
    backend: openai_http
    load: false
    context_tokens: 8192
    max_output_tokens: 0
    upstream:
      base_url: https://models.example/v1
      upstream_model: large-instruct
      dialect: vllm
      key_env: LARGE_KEY
      lora_models: {pirate: large-pirate}
embedders:
  - {id: e5, dimensions: 384, upstream: {base_url: "https://models.example/v1", upstream_model: e5}}
"""


def write(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "models.yaml"
    path.write_text(content)
    return path


def test_a_good_list_becomes_backends(tmp_path: Path) -> None:
    models = read_model_list(write(tmp_path, GOOD))
    assert [entry.id for entry in models.models] == ["small", "large"]
    backend = open_backend(models.models[1])
    assert isinstance(backend, OpenAiHttp)
    assert (backend.model.version, backend.model.loras, backend.model.max_output_tokens) == ("2", ("pirate",), 0)
    assert backend.model.capabilities.lora
    assert models.embedders[0].dimensions == 384
    assert [entry.watch_seconds for entry in models.models] == [30.0, 120.0]  # an upstream may queue for longer


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("models: []", "models"),
        ("models: [{id: a, backend: onnx}]", "backend"),
        ("models: [{id: a, backend: llama_cpp, colour: red}]", "colour"),
        ("models: [{id: a, backend: llama_cpp, context_tokens: 300}]", "256"),
        ("models: [{id: a, backend: llama_cpp}, {id: b, backend: llama_cpp, aliases: [a]}]", "two models"),
        ("models: [{id: a, backend: openai_http, upstream: {base_url: x, upstream_model: m}}]", "base_url"),
        ("{ not yaml", "YAML"),
        ("just text", "the file"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(BadModelList) as bad:
        read_model_list(write(tmp_path, content))
    assert words in "; ".join(bad.value.mistakes)


def test_every_mistake_is_told_at_once_and_no_value_is_repeated(tmp_path: Path) -> None:
    content = GOOD.replace("slots: 2", "slots: 0").replace("key_env: LARGE_KEY", "key_env: 'sk-secret value'")
    with pytest.raises(BadModelList) as bad:
        read_model_list(write(tmp_path, content))
    assert len(bad.value.mistakes) == 2
    assert "sk-secret" not in str(bad.value)


def test_the_readmes_example_and_the_gpu_overlays_list_are_good(tmp_path: Path) -> None:
    service = Path(__file__).parents[1]
    example = re.search(r"```yaml\n(.*?)```", (service / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example
    models = read_model_list(write(tmp_path, example[1]))
    assert [entry.backend for entry in models.models] == ["llama_cpp", "openai_http"]
    gpu = read_model_list(service.parents[1] / "deploy/gpu/models.yaml")
    assert gpu.models[0].backend == "tensorrt_llm"


def test_a_lora_file_that_is_missing_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path, "models: [{id: a, backend: llama_cpp, loras: {pirate: /nowhere.gguf}}]")
    with pytest.raises(ModelUnusable, match="pirate"):
        open_backend(read_model_list(path).models[0])
