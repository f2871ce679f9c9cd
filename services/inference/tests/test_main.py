"""Starting and stopping: mistakes are one sentence, and the process obeys SIGTERM although llama.cpp took the signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as pb_grpc
from sluice.types.v1 import generation_pb2
from sluice_inference.adapters import model_file
from sluice_inference.adapters.backends import open_backend
from sluice_inference.adapters.static_embedding import FOLDER, StaticEmbedding
from sluice_inference.domain.refusals import ModelUnusable
from sluice_inference.main import listed_models, only_model
from sluice_inference.settings import InferenceSettings
from sluice_kit.settings import GrpcServiceSettings, load


@pytest.mark.parametrize("backend", ["tensorrt_llm", "openai_http", "onnx"])
def test_a_backend_that_needs_the_models_file_is_told_at_start(
    backend: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLUICE_INFERENCE_BACKEND", backend)
    with pytest.raises(SystemExit) as end:
        load(InferenceSettings)
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert len(lines) == 1
    assert lines[0].startswith("SLUICE_INFERENCE_BACKEND")
    assert "SLUICE_INFERENCE_MODELS_FILE" in lines[0]


def test_the_self_test_model_has_no_other_models_name(capsys: pytest.CaptureFixture[str]) -> None:
    taken = InferenceSettings().model_id
    with pytest.raises(SystemExit) as end:
        listed_models(InferenceSettings(self_test_model=taken))
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith(f"SLUICE_INFERENCE_SELF_TEST_MODEL: the name {taken} is given to two models")


def test_the_self_test_model_stands_beside_one_that_is_hosted_alone(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(
        "models: [{id: a, backend: tensorrt_llm, engine: {model: /m}, context_tokens: 9, max_output_tokens: 9}]"
    )
    listed = listed_models(InferenceSettings(models_file=path, self_test_model="sluice-self-test"))
    assert [entry.id for entry in listed.models] == ["a", "sluice-self-test"]


def test_a_wrong_model_file_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="SLUICE_INFERENCE_MODEL_PATH"):
        open_backend(only_model(InferenceSettings(model_path=tmp_path / "none.gguf")))
    with pytest.raises(ModelUnusable, match="sha256"):
        open_backend(only_model(InferenceSettings(model_sha256="deadbeef")))
    (tmp_path / "text.gguf").write_text("no model")
    with pytest.raises(ModelUnusable, match="not a GGUF file"):
        open_backend(only_model(InferenceSettings(model_path=tmp_path / "text.gguf")))


def test_a_damaged_embedding_model_is_told(tmp_path: Path) -> None:
    for name in ("vectors.npy", "vocab.txt"):
        (tmp_path / name).symlink_to(FOLDER / name)
    with pytest.raises(ModelUnusable, match="cannot be read"):
        StaticEmbedding(tmp_path)
    (tmp_path / "scales.npy").write_bytes(b"x")
    with pytest.raises(ModelUnusable, match="damaged"):
        StaticEmbedding(tmp_path)


def test_the_readme_names_every_setting() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    own = set(InferenceSettings.model_fields) - set(GrpcServiceSettings.model_fields)
    named = set(re.findall(r"^\| `([A-Z0-9_]+)`", readme, re.MULTILINE))
    assert {name.upper() for name in own} - named == set()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return dict(os.environ) | {
        "SLUICE_HOME": str(tmp_path),
        "SLUICE_INFERENCE_GRPC_LISTEN": "127.0.0.1:0",
        "SLUICE_INFERENCE_METRICS_LISTEN": "127.0.0.1:0",
        "SLUICE_KAFKA_BOOTSTRAP": "127.0.0.1:1",  # nobody: the outbox holds the events
        "SLUICE_INFERENCE_CONTEXT_TOKENS": "256",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }


@pytest.fixture
def process(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with (tmp_path / "log").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "sluice_inference.main"], env=environment, stdout=log, text=True
        )
        yield child
        child.kill()
        child.wait(timeout=10)


def logged(log: Path, event: str) -> dict[str, object]:
    """The first log line with this event, waited for."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines(keepends=True):
            if line.endswith("\n") and (entry := json.loads(line))["event"] == event:
                return dict(entry)
        time.sleep(0.05)
    raise AssertionError(f"{event} was not logged")


def test_the_process_warms_up_answers_and_ends_on_sigterm(process: subprocess.Popen[str], tmp_path: Path) -> None:
    port = logged(tmp_path / "log", "service.listening")["port"]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        logged(tmp_path / "log", "model.loaded")
        health = health_pb2_grpc.HealthStub(channel)
        deadline = time.monotonic() + 5
        while health.Check(health_pb2.HealthCheckRequest()).status != health_pb2.HealthCheckResponse.SERVING:
            assert time.monotonic() < deadline
        spec = pb.GenerationSpec(prompt="One, two,", stopping=generation_pb2.StoppingParameters(max_tokens=4))
        answer = pb_grpc.InferenceServiceStub(channel).Generate(pb.GenerateRequest(spec=spec))
        assert answer.outputs[0].text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert "One, two" not in (tmp_path / "log").read_text()


def test_an_engine_that_dies_ends_the_process_so_that_it_is_started_anew(
    environment: dict[str, str], checkpoint: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models.yaml"
    engine = f"{{model: {checkpoint}, drain_seconds: 1}}"
    models.write_text(
        f"models: [{{id: d, backend: tensorrt_llm, context_tokens: 512, max_output_tokens: 99, engine: {engine}}}]"
    )
    more = {"SLUICE_INFERENCE_MODELS_FILE": str(models), "DOUBLE_FAIL_AT": "5"}  # the warm-up takes two tokens
    with (tmp_path / "log").open("w") as log, (tmp_path / "errors").open("w") as errors:
        command = [sys.executable, "-m", "sluice_inference.main"]
        child = subprocess.Popen(command, env=environment | more, stdout=log, stderr=errors)
    try:
        port = logged(tmp_path / "log", "service.listening")["port"]
        logged(tmp_path / "log", "model.loaded")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = pb_grpc.InferenceServiceStub(channel)
            spec = pb.GenerationSpec(prompt="Count", stopping=generation_pb2.StoppingParameters(max_tokens=40))
            answers = list(stub.GenerateStream(pb.GenerateStreamRequest(spec=spec)))
        assert answers[-1].WhichOneof("event") == "error"
        assert child.wait(timeout=30) == 1
    finally:
        child.kill()
        child.wait()
    assert "must be started anew" in (tmp_path / "errors").read_text().splitlines()[-1]


def test_an_upstream_that_is_away_keeps_the_process_waiting_and_not_from_ending(
    environment: dict[str, str], tmp_path: Path
) -> None:
    upstream = "{base_url: 'http://127.0.0.1:1/v1', upstream_model: m, retries: {attempts: 1}}"
    (tmp_path / "models.yaml").write_text(f"models: [{{id: far, backend: openai_http, upstream: {upstream}}}]")
    more = {"SLUICE_INFERENCE_MODELS_FILE": str(tmp_path / "models.yaml")}
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-m", "sluice_inference.main"]
        child = subprocess.Popen(command, env=environment | more, stdout=log)
    try:
        port = logged(tmp_path / "log", "service.listening")["port"]
        logged(tmp_path / "log", "model.unusable")
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            models = pb_grpc.InferenceServiceStub(channel).ListModels(pb.ListModelsRequest()).models
            assert models[0].state in (pb.MODEL_STATE_FAILED, pb.MODEL_STATE_LOADING)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == 0
    finally:
        child.kill()
        child.wait()


def test_mistakes_in_the_models_file_are_told_and_end_with_code_2(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("models: [{id: a, backend: llama_cpp, slots: 0, colour: red}]")
    more = {"SLUICE_INFERENCE_MODELS_FILE": str(tmp_path / "models.yaml")}
    command = [sys.executable, "-m", "sluice_inference.main"]
    done = subprocess.run(command, env=environment | more, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "colour" in done.stderr


def test_a_model_the_engine_cannot_load_ends_the_process_with_one_sentence(
    environment: dict[str, str], tmp_path: Path
) -> None:
    damaged = tmp_path / "half.gguf"
    with model_file.locate_packaged().open("rb") as whole:
        damaged.write_bytes(whole.read(4_000_000))
    command = [sys.executable, "-m", "sluice_inference.main"]
    done = subprocess.run(
        command,
        env=environment | {"SLUICE_INFERENCE_MODEL_PATH": str(damaged)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("llama.cpp cannot load")
