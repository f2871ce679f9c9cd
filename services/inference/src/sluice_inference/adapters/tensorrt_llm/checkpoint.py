"""What a checkpoint folder says of its model, without loading it."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sluice_inference.domain.refusals import ModelUnusable


@dataclass(frozen=True)
class CheckpointFacts:
    """Numbers are 0 and texts empty where the files do not tell.

    `digest` covers every byte (`digest_covers` is `checkpoint`), or names, sizes and headers of the weights, and every small file whole
    (`checkpoint_headers`): then two checkpoints that differ only in the values of their weights have the same digest.
    """

    digest: str
    digest_covers: str
    architecture: str
    context_tokens: int
    parameter_count: int
    quant_algo: str
    kv_cache_quant_algo: str
    quant_group_size: int
    license: str


def read_checkpoint(folder: Path, *, whole: bool = False) -> CheckpointFacts:
    """`whole`: the digest reads the weights too, which takes about a second a gigabyte. Raises ModelUnusable."""
    config = _json(folder / "config.json")
    if config is None:
        raise ModelUnusable(f"The checkpoint {folder} has no readable config.json: name its folder in `model`.")
    quantised = (_json(folder / "hf_quant_config.json") or {}).get("quantization", {})
    weights = sorted(folder.glob("*.safetensors"))
    try:
        headers = [_header(path) for path in weights]
        marks = [_whole_digest(path) for path in weights] if whole else headers
    except (OSError, ValueError, struct.error) as error:
        raise ModelUnusable(f"The weights in {folder} are damaged ({type(error).__name__}).") from error
    return CheckpointFacts(
        digest=f"sha256:{_digest(folder, weights, marks)}",
        digest_covers="checkpoint" if whole else "checkpoint_headers",
        architecture=str((config.get("architectures") or [""])[0]),
        context_tokens=int(config.get("max_position_embeddings") or 0),
        parameter_count=sum(_parameters(header) for header in headers),
        quant_algo=str(quantised.get("quant_algo") or ""),
        kv_cache_quant_algo=str(quantised.get("kv_cache_quant_algo") or ""),
        quant_group_size=int(quantised.get("group_size") or 0),
        license=str(config.get("license") or ""),
    )


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _header(path: Path) -> bytes:
    """The JSON header of a safetensors file: names, types, shapes and places of its tensors."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > 100_000_000:
            raise ValueError("header too long")
        return file.read(length)


def _parameters(header: bytes) -> int:
    """Elements of the weights; scales and the like of quantised layers are counted too, packed ones once per stored element."""
    tensors = json.loads(header)
    return sum(prod(tensor["shape"]) for name, tensor in tensors.items() if name != "__metadata__")


def _whole_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _digest(folder: Path, weights: list[Path], marks: list[bytes]) -> str:
    """Weights of hundreds of gigabytes are read whole only where that is asked for: their headers and sizes are; small files are read whole."""
    total = hashlib.sha256()
    for path, mark in zip(weights, marks, strict=True):
        total.update(f"{path.name}:{path.stat().st_size}:".encode() + mark)
    for path in sorted(_small_files(folder)):
        total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()


def _small_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_file() and path.suffix in (".json", ".jinja", ".model"))
