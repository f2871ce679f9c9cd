"""What a request may ask for: every value has bounds, and a mistake names its field and how to mend it."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sluice_gateway.domain.chat import ChatMessage, ChatRequest, EmbedRequest, Guide, Role, Sampling, Stopping
from sluice_gateway.domain.rejection import Kind, Rejection, invalid

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
_UINT32 = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a request may be, whoever sends it."""

    messages: int = 512
    characters: int = 200_000
    tools: int = 128
    embed_texts: int = 256
    stops: int = 16
    stop_characters: int = 256
    user_characters: int = 512


def check_chat(request: ChatRequest, bounds: Bounds) -> None:
    """Raises Rejection for the first thing that is wrong."""
    _check_messages(request.messages, bounds)
    _check_sampling(request.sampling)
    _check_stopping(request.stopping, bounds)
    _check_tools(request, bounds)
    if request.guide:
        _check_guide(request.guide)
    _check_user(request.user, bounds)


def check_embed(request: EmbedRequest, bounds: Bounds) -> None:
    """Raises Rejection for the first thing that is wrong."""
    if not request.texts:
        raise invalid("input", "There is no text to embed.", reason="EMPTY_REQUEST")
    if len(request.texts) > bounds.embed_texts:
        raise invalid("input", f"{len(request.texts)} texts are too many; at most {bounds.embed_texts} are allowed.")
    for i, text in enumerate(request.texts):
        if not text.strip():
            raise invalid(f"input[{i}]", "The text is empty.", reason="EMPTY_REQUEST")
    check_size(request.texts, bounds)
    _check_range("dimensions", request.dimensions, 1, 65_536)
    _check_user(request.user, bounds)


def check_size(texts: Iterable[str], bounds: Bounds) -> None:
    """Raises Rejection when all texts together are too long."""
    characters = sum(map(len, texts))
    if characters > bounds.characters:
        raise Rejection(
            Kind.TOO_LARGE,
            f"The texts have {characters} characters; at most {bounds.characters} are allowed.",
            reason="REQUEST_TOO_LARGE",
        )


def tokens_allowed(asked: int | None, default: int, tenant_limit: int, key_limit: int | None = None) -> int:
    """Most output tokens of this request. Raises Rejection when more are asked for than the tenant or its key may use."""
    limit = tenant_limit if key_limit is None else min(tenant_limit, key_limit)
    if asked is None:
        return min(default, limit)
    if asked > limit:
        who = "this tenant" if limit == tenant_limit else "this API key and model"
        raise invalid("max_tokens", f"max_tokens is {asked}; {who} may ask for at most {limit}.")
    return asked


def _check_messages(messages: tuple[ChatMessage, ...], bounds: Bounds) -> None:
    if not messages:
        raise invalid("messages", "There are no messages; at least one is needed.", reason="EMPTY_REQUEST")
    if len(messages) > bounds.messages:
        raise invalid(
            "messages",
            f"{len(messages)} messages are too many; at most {bounds.messages} are allowed.",
            reason="TOO_MANY_MESSAGES",
        )
    for i, message in enumerate(messages):
        if message.role is Role.USER and not message.content.strip():
            raise invalid(f"messages[{i}].content", "A user message needs text.", reason="EMPTY_REQUEST")
        if message.role is Role.TOOL and not message.tool_call_id:
            raise invalid(f"messages[{i}].tool_call_id", "A tool message needs the id of the call it answers.")
        if message.tool_calls and message.role is not Role.ASSISTANT:
            raise invalid(f"messages[{i}].tool_calls", "Only an assistant message can have tool calls.")
    if not any(message.content.strip() for message in messages):
        raise invalid("messages", "No message has any text.", reason="EMPTY_REQUEST")


def _check_sampling(sampling: Sampling) -> None:
    _check_range("temperature", sampling.temperature, 0, 2)
    _check_range("top_p", sampling.top_p, 0, 1, above=True)
    _check_range("top_k", sampling.top_k, 0, 1_000_000)
    _check_range("min_p", sampling.min_p, 0, 1)
    _check_range("frequency_penalty", sampling.frequency_penalty, -2, 2)
    _check_range("presence_penalty", sampling.presence_penalty, -2, 2)
    _check_range("repetition_penalty", sampling.repetition_penalty, 0, 10, above=True)
    _check_range("seed", sampling.seed, 0, 2**64 - 1)
    _check_range("n", sampling.num_sequences, 1, 1)
    if len(sampling.logit_bias) > 300:
        raise invalid("logit_bias", f"logit_bias has {len(sampling.logit_bias)} entries; at most 300 are allowed.")
    for token, bias in sampling.logit_bias:
        _check_range("logit_bias", token, 0, _UINT32)
        _check_range("logit_bias", bias, -100, 100)


def _check_stopping(stopping: Stopping, bounds: Bounds) -> None:
    _check_range("max_tokens", stopping.max_tokens, 1, _UINT32)
    _check_range("min_tokens", stopping.min_tokens, 0, _UINT32)
    if len(stopping.stop) > bounds.stops:
        raise invalid("stop", f"{len(stopping.stop)} stop strings are too many; at most {bounds.stops} are allowed.")
    for i, stop in enumerate(stopping.stop):
        if not 1 <= len(stop) <= bounds.stop_characters:
            raise invalid(f"stop[{i}]", f"A stop string has 1 to {bounds.stop_characters} characters.")
    if len(stopping.stop_token_ids) > 64:
        raise invalid("stop_token_ids", "At most 64 stop tokens are allowed.")


def _check_tools(request: ChatRequest, bounds: Bounds) -> None:
    if len(request.tools) > bounds.tools:
        raise invalid("tools", f"{len(request.tools)} tools are too many; at most {bounds.tools} are allowed.")
    for i, tool in enumerate(request.tools):
        if not _TOOL_NAME.fullmatch(tool.name):
            raise invalid(f"tools[{i}].name", f"A tool's name must match {_TOOL_NAME.pattern}.")
        if tool.parameters_json_schema:
            check_json(f"tools[{i}].parameters", tool.parameters_json_schema)


def _check_guide(guide: Guide) -> None:
    if guide.kind == "json_schema":
        check_json("response_format", guide.texts[0])
    if guide.kind not in ("json_object", "json_schema") and not any(guide.texts):
        raise invalid("guided", "The grammar is empty.")


def _check_user(user: str, bounds: Bounds) -> None:
    if len(user) > bounds.user_characters:
        raise invalid("user", f"user has {len(user)} characters; at most {bounds.user_characters} are allowed.")


def check_json(field: str, text: str) -> None:
    """Raises Rejection unless the text is JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        raise invalid(field, f"{field} is not valid JSON.") from None


def _check_range(field: str, value: float | None, least: float, most: float, *, above: bool = False) -> None:
    # `not (a <= b)` and not `a > b`: NaN, which gRPC callers can send, must fail.
    if value is None or ((least < value if above else least <= value) and value <= most):
        return
    span = f"over {least} and at most {most}" if above else f"from {least} to {most}"
    if least == most:
        span = f"{least}"
    raise invalid(field, f"{field} is {value}; it must be {span}.")
