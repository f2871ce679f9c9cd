"""LoRARequest, from the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorrt_llm_double.contract import dataclass_of


def _check(self: Any) -> None:
    if self.lora_path is not None and not Path(self.lora_path or "/nowhere").exists():
        raise ValueError(f"lora_path ({self.lora_path}) does not exist.")
    if self.lora_ckpt_source not in ("hf", "nemo"):
        raise ValueError(f"lora_ckpt_source must be 'hf' or 'nemo', got '{self.lora_ckpt_source}'")


LoRARequest = dataclass_of("tensorrt_llm.executor.request", "LoRARequest", __post_init__=_check)
