"""Reads what a GGUF file says of itself: metadata, token types and parameter count, without an engine.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little endian).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

# Metadata value types by number: struct format, or None for string (8) and array (9).
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_CONTROL_TOKEN = 3

# llama.cpp's LLAMA_FTYPE numbers: name, and weights per scale.
_FILE_TYPES = {
    0: ("F32", 0), 1: ("F16", 0), 2: ("Q4_0", 32), 3: ("Q4_1", 32), 7: ("Q8_0", 32), 8: ("Q5_0", 32), 9: ("Q5_1", 32),
    10: ("Q2_K", 16), 11: ("Q3_K_S", 16), 12: ("Q3_K_M", 16), 13: ("Q3_K_L", 16), 14: ("Q4_K_S", 32), 15: ("Q4_K_M", 32),
    16: ("Q5_K_S", 32), 17: ("Q5_K_M", 32), 18: ("Q6_K", 16), 32: ("BF16", 0),
}  # fmt: skip


class NotGguf(ValueError):
    """The file is not a GGUF file of version 2 or 3."""


@dataclass(frozen=True)
class GgufFacts:
    """Numbers are 0 and texts empty where the file does not tell."""

    architecture: str
    name: str
    license: str
    context_tokens: int
    vocabulary_size: int
    parameter_count: int
    quant_algo: str
    quant_group_size: int
    eos_token_id: int | None
    control_tokens: tuple[str, ...]
    has_chat_template: bool


def read_facts(path: Path) -> GgufFacts:
    """Raises NotGguf, OSError."""
    with path.open("rb") as file:
        try:
            metadata, parameters = _read_header(file)
        except (struct.error, KeyError, OverflowError, MemoryError) as error:
            raise NotGguf("the GGUF header is damaged") from error
    architecture = str(metadata.get("general.architecture", ""))
    quant_algo, group = _FILE_TYPES.get(metadata.get("general.file_type", -1), ("", 0))
    tokens, types = metadata.get("tokenizer.ggml.tokens", []), metadata.get("tokenizer.ggml.token_type", [])
    return GgufFacts(
        architecture=architecture,
        name=str(metadata.get("general.name", "")),
        license=str(metadata.get("general.license", "")),
        context_tokens=int(metadata.get(f"{architecture}.context_length", 0)),
        vocabulary_size=len(tokens),
        parameter_count=parameters,
        quant_algo=quant_algo,
        quant_group_size=group,
        eos_token_id=metadata.get("tokenizer.ggml.eos_token_id"),
        control_tokens=tuple(token for token, kind in zip(tokens, types, strict=False) if kind == _CONTROL_TOKEN),
        has_chat_template="tokenizer.chat_template" in metadata,
    )


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    if file.read(4) != b"GGUF" or _scalar(file, "<I") not in (2, 3):
        raise NotGguf("the file is not a GGUF file")
    tensor_count, pair_count = _scalar(file, "<Q"), _scalar(file, "<Q")
    metadata = {}
    for _ in range(pair_count):
        key = _string(file)
        metadata[key] = _value(file, _scalar(file, "<I"))
    return metadata, sum(_tensor_size(file) for _ in range(tensor_count))


def _scalar(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _string(file: BinaryIO) -> str:
    # Some vocabularies hold pieces of characters, which are no UTF-8 by themselves.
    return file.read(_scalar(file, "<Q")).decode("utf-8", "replace")


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind != _ARRAY:
        return _scalar(file, _SCALARS[kind])
    inner, count = _scalar(file, "<I"), _scalar(file, "<Q")
    if inner in _SCALARS:
        form = _SCALARS[inner]
        return list(struct.unpack(f"<{count}{form[1]}", file.read(count * struct.calcsize(form))))
    return [_value(file, inner) for _ in range(count)]


def _tensor_size(file: BinaryIO) -> int:
    """Number of elements of the next tensor description."""
    _string(file)
    shape = [_scalar(file, "<Q") for _ in range(_scalar(file, "<I"))]
    file.read(struct.calcsize("<IQ"))  # type and offset
    return math.prod(shape)
