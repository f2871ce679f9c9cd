"""Writes a checkpoint folder that the double and the adapter both read: a byte-level tokenizer, a chat template, the JSON files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from tensorrt_llm_double.engine import BYTE_OF

CONTEXT_TOKENS = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] == 'assistant' %}"
    "{{ raise_exception('a chat begins with a user') }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(BPE(vocab={token: index for index, token in enumerate(BYTE_OF)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    tokenizer.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "tokenizer_config.json": {"chat_template": CHAT_TEMPLATE, "eos_token": {"content": "<|im_end|>"}},
        "config.json": {"architectures": ["DoubleForCausalLM"], "max_position_embeddings": 4096, "vocab_size": 258},
        "generation_config.json": {"eos_token_id": [257]},
        "hf_quant_config.json": {
            "producer": {"name": "modelopt", "version": "0.40"},
            "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "group_size": None},
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    header = json.dumps({"lm_head.weight": {"dtype": "F8_E4M3", "shape": [258, 4], "data_offsets": [0, 1032]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(1032))
    return folder
