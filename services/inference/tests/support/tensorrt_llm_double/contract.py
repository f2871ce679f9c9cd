"""Builds classes from contract.json, so that the double cannot have a signature that the contract does not have."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, create_model

CONTRACT: dict[str, Any] = json.loads((Path(__file__).parent / "contract.json").read_text(encoding="utf-8"))


def described(module: str, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = CONTRACT["modules"][module]["classes"][name]
    return entry


def dataclass_of(module: str, name: str, **members: Any) -> type:
    """A dataclass with the contract's fields, defaults, slots and keyword rule."""
    entry = described(module, name)
    decorator = next(iter(entry["decorators"]))
    fields = [(field_name, Any, _dataclass_field(field)) for field_name, field in entry["fields"].items()]
    return dataclasses.make_dataclass(
        name, fields, namespace=members, slots="slots=True" in decorator, kw_only="kw_only=True" in decorator
    )


def _dataclass_field(field: Mapping[str, Any]) -> Any:
    options = {key: field[key] for key in ("init", "repr") if key in field}
    if field["required"]:
        return dataclasses.field(**options)
    if field.get("default_factory") == "list":
        return dataclasses.field(default_factory=list, **options)
    return dataclasses.field(default=field.get("default"), **options)


def strict_model_of(module: str, name: str) -> type:
    """A pydantic model that takes the contract's fields and no other."""
    fields = {
        field: (Any, ... if entry["required"] else None) for field, entry in described(module, name)["fields"].items()
    }
    return create_model(name, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields)  # type: ignore[call-overload,no-any-return]


def signature_of(module: str, name: str, method: str) -> inspect.Signature:
    """For `bind`: a wrong keyword fails as it does there."""
    parameters = []
    for entry in described(module, name)["methods"][method]["parameters"]:
        default = (
            inspect.Parameter.empty if entry.get("required") or "default_source" not in entry else entry.get("default")
        )
        kind = getattr(inspect.Parameter, entry["kind"])
        is_star = kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        parameters.append(
            inspect.Parameter(entry["name"], kind, default=inspect.Parameter.empty if is_star else default)
        )
    return inspect.Signature(parameters)


def llm_argument_names() -> frozenset[str]:
    """Keywords that the PyTorch LLM takes."""
    module = "tensorrt_llm.llmapi.llm_args"
    names = {name for owner in ("BaseLlmArgs", "TorchLlmArgs") for name in described(module, owner)["fields"]}
    return frozenset(names | {"backend", "_mpi_session"})
