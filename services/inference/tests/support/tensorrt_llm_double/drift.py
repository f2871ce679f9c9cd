"""Compares the contract with the package that is installed here. Run it on a GPU machine: `python drift.py [contract.json]`.

Prints one line for each difference and ends with 1 when there is any, with 3 when the package cannot be imported.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Where the public name differs from the class of the contract.
PUBLIC = {("tensorrt_llm.llmapi.llm", "_TorchLLM"): "LLM", ("tensorrt_llm.llmapi.llm", "BaseLLM"): "LLM"}
# What the adapter leans on; the rest of the contract is reported too, but only these can break it.
LEANT_ON = {
    ("tensorrt_llm.sampling_params", "SamplingParams"),
    ("tensorrt_llm.sampling_params", "GuidedDecodingParams"),
    ("tensorrt_llm.llmapi.llm", "_TorchLLM"),
    ("tensorrt_llm.llmapi.llm", "BaseLLM"),
    ("tensorrt_llm.executor.result", "CompletionOutput"),
    ("tensorrt_llm.executor.result", "Logprob"),
    ("tensorrt_llm.executor.request", "LoRARequest"),
    ("tensorrt_llm.executor.utils", "RequestError"),
    ("tensorrt_llm.llmapi.llm_args", "TorchLlmArgs"),
    ("tensorrt_llm.llmapi.llm_args", "KvCacheConfig"),
    ("tensorrt_llm.llmapi.llm_args", "CudaGraphConfig"),
}
METHODS = {"__init__", "generate_async", "get_stats_async", "shutdown"}


def differences(contract: dict[str, Any]) -> Iterator[str]:
    """One sentence for each difference in what the adapter leans on."""
    for module_name, module in contract["modules"].items():
        for class_name, described in module["classes"].items():
            if (module_name, class_name) in LEANT_ON:
                yield from _of_class(module_name, class_name, described)


def _of_class(module_name: str, class_name: str, described: dict[str, Any]) -> Iterator[str]:
    name = f"{module_name}.{class_name}"
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        yield f"{name}: the module cannot be imported ({error})"
        return
    found = getattr(module, class_name, None) or getattr(module, PUBLIC.get((module_name, class_name), ""), None)
    if found is None:
        yield f"{name}: is not there"
        return
    yield from _of_fields(name, found, described.get("fields", {}))
    for method in METHODS & set(described.get("methods", {})):
        if (method == "__init__") is not (class_name == "BaseLLM"):  # LLM's own __init__ stands in _TorchLLM
            yield from _of_parameters(f"{name}.{method}", getattr(found, method, None), described["methods"][method])


def _of_fields(name: str, found: Any, fields: dict[str, Any]) -> Iterator[str]:
    if dataclasses.is_dataclass(found):
        actual = {field.name: _default(field) for field in dataclasses.fields(found)}
    elif hasattr(found, "model_fields"):
        actual = {field: one.default for field, one in found.model_fields.items()}
    else:
        return
    for field, entry in fields.items():
        if field not in actual:
            yield f"{name}.{field}: is gone"
        elif "default" in entry and dataclasses.is_dataclass(found) and actual[field] != entry["default"]:
            yield f"{name}.{field}: its default is {actual[field]!r}, the contract says {entry['default']!r}"
    yield from (f"{name}.{field}: is new" for field in sorted(set(actual) - set(fields)))


def _default(field: dataclasses.Field[Any]) -> Any:
    return None if field.default is dataclasses.MISSING else field.default


def _of_parameters(name: str, method: Any, described: dict[str, Any]) -> Iterator[str]:
    if method is None:
        yield f"{name}: is gone"
        return
    actual = list(inspect.signature(method).parameters)
    expected = [entry["name"] for entry in described["parameters"]]
    yield from (f"{name}({one}): is gone" for one in expected if one not in actual)
    yield from (f"{name}({one}): is new" for one in actual if one not in expected)
    common = [one for one in actual if one in expected]
    if common != [one for one in expected if one in common]:
        yield f"{name}: the order of its parameters changed"


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "contract.json"
    try:
        importlib.import_module("tensorrt_llm")
    except ImportError as error:
        print(f"tensorrt_llm cannot be imported: {error}")
        raise SystemExit(3) from None
    found = list(differences(json.loads(path.read_text(encoding="utf-8"))))
    print("\n".join(found))
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
