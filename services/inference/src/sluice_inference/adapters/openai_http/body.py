"""Our request in an upstream's words."""

from __future__ import annotations

import json
from typing import Any

from sluice_inference.adapters.openai_http.dialects import Dialect
from sluice_inference.domain.generation import (
    Chat,
    ChatTurn,
    Generation,
    Guide,
    GuideKind,
    RawPrompt,
    TokenPrompt,
)
from sluice_inference.domain.refusals import InvalidRequest
from sluice_inference.domain.tools import Tool, ToolMode, shown_tools

CHAT_PATH, COMPLETION_PATH = "chat/completions", "completions"


def request_body(generation: Generation, *, model: str, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """Path and JSON. Absent fields stay absent, zeros are sent. Stop strings stay out: domain.stop_strings handles them alike for all.

    Raises InvalidRequest.
    """
    path, body = _input(generation)
    body |= {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    for ours, theirs in dialect.sampling.items():
        value = getattr(generation.sampling, ours)
        if value is not None:
            body[theirs] = value
    if generation.stopping.max_tokens is not None:
        body[dialect.max_tokens if path == CHAT_PATH else "max_tokens"] = generation.stopping.max_tokens
    body |= _tools(generation, dialect) if path == CHAT_PATH else {}
    return path, body | _extensions(generation, dialect) | _logprobs(generation, path) | _guide(generation, dialect)


def _input(generation: Generation) -> tuple[str, dict[str, Any]]:
    match generation.input:
        case Chat(turns):
            return CHAT_PATH, {"messages": [_message(turn) for turn in turns]}
        case RawPrompt(text):
            return COMPLETION_PATH, {"prompt": text}
        case TokenPrompt(token_ids):
            return COMPLETION_PATH, {"prompt": list(token_ids)}


def _message(turn: ChatTurn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.name:
        message["name"] = turn.name
    if turn.tool_calls:
        # Servers refuse an empty text beside calls, or an absent one without them.
        message["content"] = turn.content or None
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in turn.tool_calls
        ]
    if turn.tool_call_id:
        message["tool_call_id"] = turn.tool_call_id
    return message


def _tools(generation: Generation, dialect: Dialect) -> dict[str, Any]:
    choice = generation.tool_choice
    tools = shown_tools(generation.tools, choice)
    if not tools or choice is None:
        return {}
    body: dict[str, Any] = {}
    if choice.name and dialect.named_tool:
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.mode is ToolMode.REQUIRED:
        body["tool_choice"] = "required"
        tools = tuple(tool for tool in tools if choice.name in ("", tool.name))
    if generation.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = generation.parallel_tool_calls
    return body | {"tools": [_tool(tool) for tool in tools]}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        function["parameters"] = json.loads(tool.parameters)
    return {"type": "function", "function": function}


def _extensions(generation: Generation, dialect: Dialect) -> dict[str, Any]:
    stopping, able = generation.stopping, dialect.extensions
    body: dict[str, Any] = {}
    if generation.sampling.logit_bias:
        body[able["logit_bias"]] = {str(token_id): bias for token_id, bias in generation.sampling.logit_bias}
    if stopping.min_tokens:
        body[able["min_tokens"]] = stopping.min_tokens
    if stopping.ignore_eos:
        body[able["ignore_eos"]] = True
    if stopping.stop_token_ids:
        body[able["stop_token_ids"]] = list(stopping.stop_token_ids)
    if generation.cache_salt and "cache_salt" in able:
        body[able["cache_salt"]] = generation.cache_salt
    if generation.bypass_prefix_cache:
        body[able["bypass_prefix_cache"]] = False  # llama.cpp's cache_prompt
    return body


def _logprobs(generation: Generation, path: str) -> dict[str, Any]:
    if generation.logprobs is None:
        return {}
    if path == COMPLETION_PATH:
        return {"logprobs": max(1, generation.logprobs)}
    # At least 1: some servers give nothing at all for 0; what is too much is left out of the answer.
    return {"logprobs": True, "top_logprobs": max(1, generation.logprobs)}


def _guide(generation: Generation, dialect: Dialect) -> dict[str, Any]:
    guide = generation.guide
    if guide is None:
        return {}
    match dialect.guides[guide.kind]:
        case "response_format":
            return {"response_format": _response_format(guide)}
        case "structured_outputs":
            names = {GuideKind.REGEX: "regex", GuideKind.EBNF: "grammar", GuideKind.CHOICE: "choice"}
            return {"structured_outputs": {names[guide.kind]: list(guide.choices) or guide.source}}
        case _:
            return {"grammar": guide.source}


def _response_format(guide: Guide) -> dict[str, Any]:
    match guide.kind:
        case GuideKind.JSON_OBJECT:
            return {"type": "json_object"}
        case GuideKind.JSON_SCHEMA:
            schema = parse_schema(guide.source)
            return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
        case GuideKind.REGEX:
            return {"type": "regex", "regex": guide.source}
        case GuideKind.EBNF:
            return {"type": "ebnf", "ebnf": guide.source}
        case _:
            return {"type": "structural_tag", "structural_tag": guide.source}


def parse_schema(source: str) -> dict[str, Any]:
    """Raises InvalidRequest."""
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict):
        raise InvalidRequest("guided.json_schema", "json_schema is not a JSON object.")
    return schema
