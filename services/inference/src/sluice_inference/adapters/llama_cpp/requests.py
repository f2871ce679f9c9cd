"""Our request in llama.cpp's words."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from sluice_inference.adapters.llama_cpp.guides import guide_fields, has_loose_pattern
from sluice_inference.domain.generation import Chat, ChatTurn, Generation, RawPrompt, TokenPrompt
from sluice_inference.domain.refusals import InvalidRequest
from sluice_inference.domain.tools import ToolMode, is_json_object, shown_tools

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
        body | _input_fields(generation, control_tokens) | (guide_fields(generation.guide) if generation.guide else {})
    )


def lora_scales(names: Sequence[str], *, chosen: str) -> list[dict[str, Any]]:
    """All adapters, by the order of their loading, and only the chosen one in effect."""
    return [{"id": number, "scale": float(name == chosen)} for number, name in enumerate(names)]


def _input_fields(generation: Generation, control_tokens: re.Pattern[str] | None) -> dict[str, Any]:
    match generation.input:
        case Chat(turns):
            messages = [_message(index, turn, control_tokens) for index, turn in enumerate(turns)]
            return {"messages": messages, "reasoning_format": "none"} | _tool_fields(generation, control_tokens)
        case RawPrompt(text):
            return {"prompt": text}
        case TokenPrompt(token_ids):
            return {"prompt": list(token_ids)}


def _message(index: int, turn: ChatTurn, control_tokens: re.Pattern[str] | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": defuse(turn.content, control_tokens)}
    if turn.tool_calls:
        # The engine parses them, and its complaint about what is no JSON would quote them.
        if not all(is_json_object(call.arguments) for call in turn.tool_calls):
            raise InvalidRequest(
                f"chat.messages[{index}].tool_calls",
                f"the arguments of a tool call of message {index} are no JSON object.",
            )
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": defuse(call.name, control_tokens),
                    "arguments": defuse(call.arguments, control_tokens),
                },
            }
            for call in turn.tool_calls
        ]
    if turn.tool_call_id:
        message["tool_call_id"] = turn.tool_call_id
    return message


def _tool_fields(generation: Generation, control_tokens: re.Pattern[str] | None) -> dict[str, Any]:
    """llama.cpp knows no choice of one tool: it is shown that one alone, and must call it."""
    choice = generation.tool_choice
    tools = shown_tools(generation.tools, choice)
    if not tools or choice is None:
        return {}
    wanted = [tool for tool in tools if choice.name in ("", tool.name)]
    functions = [
        {
            "name": tool.name,
            "description": defuse(tool.description, control_tokens),
            "parameters": json.loads(defuse(tool.parameters, control_tokens) or '{"type": "object"}'),
        }
        for tool in wanted
    ]
    if has_loose_pattern(functions):
        raise InvalidRequest(
            "chat.tools", "a schema of a tool has a pattern that is not anchored by ^ and $, and would not be held to."
        )
    fields: dict[str, Any] = {
        "tools": [{"type": "function", "function": function} for function in functions],
        "tool_choice": "required" if choice.mode is ToolMode.REQUIRED else "auto",
    }
    if generation.parallel_tool_calls is not None:
        fields["parallel_tool_calls"] = generation.parallel_tool_calls
    return fields


def any_of(tokens: Sequence[str]) -> re.Pattern[str] | None:
    """Matches control tokens such as `<|im_end|>`; words in plain angle brackets such as `<filename>` are common text."""
    dangerous = [token for token in tokens if token.startswith("<|") or token in ("<s>", "</s>", "<bos>", "<eos>")]
    return re.compile("|".join(map(re.escape, dangerous))) if dangerous else None


def defuse(content: str, control_tokens: re.Pattern[str] | None) -> str:
    """Breaks up control tokens spelt in a message: llama.cpp would read them as the end of the message and a forged role."""
    if control_tokens is None:
        return content
    return control_tokens.sub(lambda found: found[0][0] + " " + found[0][1:], content)
