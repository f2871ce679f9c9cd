"""The contract against the real package wherever it imports, and the comparison itself against the double."""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorrt_llm_double import contract

DOUBLE = Path(contract.__file__).parent


def run_drift(*arguments: str, path: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, str(DOUBLE / "drift.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def test_the_contract_is_what_the_real_package_has() -> None:
    real = [folder for folder in sys.path if Path(folder) != DOUBLE]
    if importlib.machinery.PathFinder.find_spec("tensorrt_llm", real) is None:
        pytest.skip("the real tensorrt_llm is not installed here: the contract was compared with nothing")
    done = run_drift(path=real)
    if done.returncode == 3:
        pytest.skip(f"the real tensorrt_llm does not import here: {done.stdout.strip()}")
    assert done.stdout.strip() == ""


def test_the_comparison_finds_the_double_true_to_the_contract() -> None:
    done = run_drift(path=[str(DOUBLE), str(DOUBLE.parent)])
    # The double has the classes that the backend uses; argument models hold names and no defaults.
    assert [line for line in done.stdout.splitlines() if line.strip()] == []
    assert done.returncode == 0


def test_the_comparison_finds_what_changed(tmp_path: Path) -> None:
    doctored = json.loads(json.dumps(contract.CONTRACT))
    params = doctored["modules"]["tensorrt_llm.sampling_params"]["classes"]["SamplingParams"]["fields"]
    params["max_tokens"]["default"] = 64
    params["thinking"] = {"annotation": "int", "required": False, "default": None}
    generate = doctored["modules"]["tensorrt_llm.llmapi.llm"]["classes"]["BaseLLM"]["methods"]["generate_async"]
    generate["parameters"].append({"name": "priority", "kind": "POSITIONAL_OR_KEYWORD"})
    (tmp_path / "contract.json").write_text(json.dumps(doctored))
    done = run_drift(str(tmp_path / "contract.json"), path=[str(DOUBLE), str(DOUBLE.parent)])
    assert done.returncode == 1
    for words in ("max_tokens: its default is 32", "thinking: is gone", "generate_async(priority): is gone"):
        assert words in done.stdout
