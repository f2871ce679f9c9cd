"""Writes a LoRA adapter for the packaged model as GGUF: random matrices, which change every answer and improve none."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

_STRING, _FLOAT32, _F32 = 8, 6, 0
ALIGNMENT = 32
HIDDEN, INNER, RANK = 576, 1536, 4


def write_lora(path: Path, *, seed: int = 1, strength: float = 0.3) -> Path:
    """For the down projections of eight layers."""
    dice = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for layer in range(10, 18):
        name = f"blk.{layer}.ffn_down.weight"
        tensors[f"{name}.lora_a"] = dice.normal(0, strength, (RANK, INNER)).astype(np.float32)
        tensors[f"{name}.lora_b"] = dice.normal(0, strength, (HIDDEN, RANK)).astype(np.float32)
    texts = {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora"}
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(texts) + 1)
    for key, text in texts.items():
        head += _string(key) + struct.pack("<I", _STRING) + _string(text)
    head += _string("adapter.lora.alpha") + struct.pack("<If", _FLOAT32, float(RANK))
    offset = 0
    for name, values in tensors.items():
        head += _string(name) + struct.pack("<I", 2) + struct.pack("<QQ", *reversed(values.shape))
        head += struct.pack("<IQ", _F32, offset)
        offset += -(-values.nbytes // ALIGNMENT) * ALIGNMENT
    body = b"".join(_padded(values.tobytes()) for values in tensors.values())
    path.write_bytes(_padded(head) + body)
    return path


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % ALIGNMENT)
