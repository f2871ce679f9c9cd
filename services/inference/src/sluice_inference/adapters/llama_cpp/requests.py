"""Our request in llama.cpp's words."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from sluice_inference.domain.generation import Chat, Generation, Guide, GuideKind, RawPrompt, TokenPrompt
from sluice_inference.domain.refusals import InvalidRequest

# llama.cpp's seeds have 32 bits, and this one means "any".
_RANDOM_SEED = 0xFFFFFFFF


def request_body(
    generation: Generation, *, slot: int, may_reuse_cache: bool, control_tokens: re.Pattern[str] | None
) -> dict[str, Any]:
    """llama.cpp's request. Stop strings stay out: domain.stop_strings handles them for all backends alike."""
    sampling, stopping = generation.sampling, generation.stopping
    body: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "timings_per_token": True,  # the only exact count of tokens while streaming
        "return_progress": True,  # a chance to stop between prompt batches
        "id_slot": slot,
        "cache_prompt": may_reuse_cache and not generation.bypass_prefix_cache,
        "max_tokens": stopping.max_tokens,
        "ignore_eos": stopping.ignore_eos,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repeat_penalty": sampling.repetition_penalty,
        "seed": _RANDOM_SEED if sampling.seed is None else sampling.seed % _RANDOM_SEED,
        "logit_bias": [[token_id, bias] for token_id, bias in sampling.logit_bias],
    }
    if generation.logprobs is not None or generation.return_token_ids or stopping.stop_token_ids:
        body["logprobs"] = True if isinstance(generation.input, Chat) else max(1, generation.logprobs or 0)
        body["top_logprobs"] = body["n_probs"] = max(1, generation.logprobs or 0)
    return (
        body | _input_fields(generation, control_tokens) | (_guide_fields(generation.guide) if generation.guide else {})
    )


def lora_scales(names: Sequence[str], *, chosen: str) -> list[dict[str, Any]]:
    """All adapters, by the order of their loading, and only the chosen one in effect."""
    return [{"id": number, "scale": float(name == chosen)} for number, name in enumerate(names)]


def _input_fields(generation: Generation, control_tokens: re.Pattern[str] | None) -> dict[str, Any]:
    match generation.input:
        case Chat(turns):
            return {
                "messages": [{"role": turn.role, "content": defuse(turn.content, control_tokens)} for turn in turns],
                "reasoning_format": "none",
            }
        case RawPrompt(text):
            return {"prompt": text}
        case TokenPrompt(token_ids):
            return {"prompt": list(token_ids)}


def _guide_fields(guide: Guide) -> dict[str, Any]:
    match guide.kind:
        case GuideKind.JSON_OBJECT:
            return {"response_format": {"type": "json_object"}}
        case GuideKind.JSON_SCHEMA:
            return {"json_schema": _parse_schema(guide.source)}
        case GuideKind.CHOICE:
            return {"grammar": "root ::= " + " | ".join(f'"{_gbnf_escape(choice)}"' for choice in guide.choices)}
        case GuideKind.EBNF:
            return {"grammar": guide.source}
        case _:
            raise InvalidRequest("guided", f"llama.cpp is given no {guide.kind.value} guides here.")


def _parse_schema(source: str) -> dict[str, Any]:
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise InvalidRequest("guided.json_schema", "json_schema is not a JSON object.")
    return schema


def _gbnf_escape(text: str) -> str:
    """Everything but plain ASCII letters, digits and spaces as a code point, which GBNF takes anywhere."""
    return "".join(c if c.isascii() and (c.isalnum() or c == " ") else f"\\U{ord(c):08X}" for c in text)


def any_of(tokens: Sequence[str]) -> re.Pattern[str] | None:
    """Matches control tokens such as `<|im_end|>`; words in plain angle brackets such as `<filename>` are common text."""
    dangerous = [token for token in tokens if token.startswith("<|") or token in ("<s>", "</s>", "<bos>", "<eos>")]
    return re.compile("|".join(map(re.escape, dangerous))) if dangerous else None


def defuse(content: str, control_tokens: re.Pattern[str] | None) -> str:
    """Breaks up control tokens spelt in a message: llama.cpp would read them as the end of the message and a forged role."""
    if control_tokens is None:
        return content
    return control_tokens.sub(lambda found: found[0][0] + " " + found[0][1:], content)
