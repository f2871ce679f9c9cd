"""What OpenAI clients ask for: JSON bytes to requests of the domain."""

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from sluice_gateway.domain.chat import (
    ChatMessage,
    ChatRequest,
    EmbedRequest,
    Guide,
    Role,
    Sampling,
    Stopping,
    ToolCall,
    ToolDefinition,
)
from sluice_gateway.domain.cohorts import cohort_labels
from sluice_gateway.domain.rejection import Kind, Rejection, invalid
from sluice_gateway.domain.variants import variant_of


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A misspelt field is a mistake, not a wish to be ignored."""


class _Part(_Strict):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None


class _FunctionCall(_Strict):
    name: str
    arguments: str


class _ToolCall(_Strict):
    id: str
    function: _FunctionCall
    type: Literal["function"] = "function"
    index: int | None = None


class _Message(_Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    name: str | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None
    # What an OpenAI client's own answer object carries when it is sent back as history.
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None


class _Function(_Strict):
    name: str
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw(b"null")
    strict: bool | None = None


class _Tool(_Strict):
    function: _Function
    type: Literal["function"] = "function"


class _Schema(_Strict):
    schema: msgspec.Raw
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class _ResponseFormat(_Strict):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _StreamOptions(_Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatBody(_Strict):
    """Body of POST /v1/chat/completions."""

    model: str
    messages: list[_Message]
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    response_format: _ResponseFormat | None = None
    tools: list[_Tool] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    # Fields that OpenAI's API lacks and self-hosted models have (the names of vLLM and llama.cpp servers).
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    # Understood only in the values of _WITHOUT_EFFECT; anything else is refused by name.
    logprobs: Any = None
    top_logprobs: Any = None
    store: Any = None
    service_tier: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None
    moderation: Any = None
    prompt_cache_retention: Any = None
    prompt_cache_options: Any = None
    functions: Any = None
    function_call: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None


# For each field we do not support: the values that ask for nothing, so that clients which send defaults work.
_WITHOUT_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "logprobs": (False,),
    "top_logprobs": (),
    "store": (False,),  # and it has an effect: nothing of the request is captured
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "moderation": (),
    "prompt_cache_retention": (),
    "prompt_cache_options": (),
    "functions": (),
    "function_call": (),
    "tool_choice": ("auto", "none"),
    "parallel_tool_calls": (True, False),
}


class EmbeddingsBody(_Strict):
    """Body of POST /v1/embeddings."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


Body = TypeVar("Body")
_chat_decoder = msgspec.json.Decoder(ChatBody)
_embeddings_decoder = msgspec.json.Decoder(EmbeddingsBody)


def chat_request(body: bytes) -> tuple[ChatRequest, bool]:
    """The conversation, and whether a stream shall end with its usage. Raises Rejection naming the field."""
    wire = _decoded(_chat_decoder, body)
    _refuse_unsupported(wire)
    if wire.stream_options and not wire.stream:
        raise invalid("stream_options", "stream_options needs stream: true.")
    request = ChatRequest(
        model=wire.model,
        messages=tuple(_message(message, i) for i, message in enumerate(wire.messages)),
        tools=() if wire.tool_choice == "none" else tuple(map(_tool, wire.tools or ())),
        sampling=_sampling(wire),
        stopping=_stopping(wire),
        guide=_guide(wire.response_format),
        user=wire.user or wire.safety_identifier or "",
        streamed=bool(wire.stream),
        capture_declined=wire.store is False,
        cohorts=cohort_labels(wire.metadata),
        variant=variant_of(wire.metadata),
    )
    return request, bool(wire.stream_options and wire.stream_options.include_usage)


def embed_request(body: bytes) -> tuple[EmbedRequest, bool]:
    """The texts, and whether the vectors shall be base64. Raises Rejection naming the field."""
    wire = _decoded(_embeddings_decoder, body)
    texts = [wire.input] if isinstance(wire.input, str) else wire.input
    if not all(isinstance(text, str) for text in texts):
        raise Rejection(
            Kind.UNSUPPORTED,
            "input must be text: token ids cannot be checked by the filters.",
            reason="UNSUPPORTED_PARAMETER",
            field="input",
        )
    request = EmbedRequest(wire.model, tuple(str(text) for text in texts), wire.dimensions, wire.user or "")
    return request, wire.encoding_format == "base64"


_AT = re.compile(r" - at `(?:key in )?\$\.?(?P<path>[^`]*)`$")
_NAMED = re.compile(r"Object (?P<how>missing required|contains unknown) field `(?P<name>[^`]*)`")


def _decoded(decoder: "msgspec.json.Decoder[Body]", body: bytes) -> Body:
    if not body:
        raise Rejection(Kind.INVALID, "The body is empty; a JSON object is needed.", reason="EMPTY_REQUEST")
    try:
        return decoder.decode(body)
    except UnicodeDecodeError:
        raise Rejection(Kind.INVALID, "The body is not UTF-8.", reason="NOT_UTF8") from None
    except RecursionError:
        raise Rejection(Kind.INVALID, "The JSON is nested too deeply.", reason="MALFORMED_JSON") from None
    except msgspec.ValidationError as error:
        raise _wrong_shape(str(error)) from None
    except msgspec.DecodeError as error:
        raise Rejection(Kind.INVALID, f"The body is not valid JSON: {error}.", reason="MALFORMED_JSON") from None


def _wrong_shape(message: str) -> Rejection:
    at = _AT.search(message)
    path = at["path"] if at else ""
    named = _NAMED.match(message)
    if named is None:
        what = message[: at.start()] if at else message
        return invalid(path, f"{path or 'The body'}: {what}.", reason="WRONG_TYPE")
    path = f"{path}.{named['name']}" if path else named["name"]
    if named["how"] == "missing required":
        return invalid(path, f"{path} is missing.", reason="MISSING_FIELD")
    return Rejection(Kind.UNSUPPORTED, f"There is no field {path}.", reason="UNKNOWN_FIELD", field=path)


def _refuse_unsupported(wire: ChatBody) -> None:
    for name, without_effect in _WITHOUT_EFFECT.items():
        value = getattr(wire, name)
        if value is not None and value not in without_effect:
            raise Rejection(
                Kind.UNSUPPORTED,
                f"{name} is not supported with this value; leave it out.",
                reason="UNSUPPORTED_PARAMETER",
                field=name,
            )
    if wire.metadata is not None and len(wire.metadata) > 16:
        raise invalid("metadata", f"metadata has {len(wire.metadata)} entries; at most 16 are allowed.")


def _message(wire: _Message, i: int) -> ChatMessage:
    calls = tuple(ToolCall(call.id, call.function.name, call.function.arguments) for call in wire.tool_calls or ())
    return ChatMessage(
        role=Role.SYSTEM if wire.role == "developer" else Role(wire.role),
        content=_content(wire, i),
        name=wire.name or "",
        tool_calls=calls,
        tool_call_id=wire.tool_call_id or "",
    )


def _content(wire: _Message, i: int) -> str:
    """One text for a message's parts. They are joined before the filters see them, exactly as the model will
    read them: personal data cannot hide by standing half in one part and half in the next."""
    if wire.content is None:
        return wire.refusal or ""
    if isinstance(wire.content, str):
        return wire.content
    texts = []
    for j, part in enumerate(wire.content):
        text = part.text if part.type == "text" else part.refusal if part.type == "refusal" else None
        if text is None:
            raise Rejection(
                Kind.UNSUPPORTED,
                "Only content parts of type text are supported: the filters read text.",
                reason="UNSUPPORTED_PARAMETER",
                field=f"messages[{i}].content[{j}]",
            )
        texts.append(text)
    return "\n".join(texts)


def _tool(wire: _Tool) -> ToolDefinition:
    schema = _text(wire.function.parameters, "tools")
    return ToolDefinition(wire.function.name, wire.function.description or "", "" if schema == "null" else schema)


def _text(raw: msgspec.Raw, field: str) -> str:
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError:
        raise Rejection(Kind.INVALID, "The body is not UTF-8.", reason="NOT_UTF8", field=field) from None


def _sampling(wire: ChatBody) -> Sampling:
    # OpenAI's seed is a signed 64-bit number; the same bits, read unsigned, are ours.
    seed = wire.seed + 2**64 if wire.seed is not None and -(2**63) <= wire.seed < 0 else wire.seed
    return Sampling(
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
        min_p=wire.min_p,
        frequency_penalty=wire.frequency_penalty,
        presence_penalty=wire.presence_penalty,
        repetition_penalty=wire.repetition_penalty,
        seed=seed,
        num_sequences=wire.n,
        logit_bias=tuple(_bias(token, bias) for token, bias in (wire.logit_bias or {}).items()),
    )


def _bias(token: str, bias: float) -> tuple[int, float]:
    if not (token.isascii() and token.isdigit() and len(token) <= 10):
        raise invalid("logit_bias", "The keys of logit_bias are token ids.")
    return int(token), bias


def _stopping(wire: ChatBody) -> Stopping:
    most = wire.max_completion_tokens if wire.max_tokens is None else wire.max_tokens
    if wire.max_completion_tokens is not None and wire.max_completion_tokens != most:
        raise invalid("max_completion_tokens", "max_tokens and max_completion_tokens differ; give one of them.")
    stop = (wire.stop,) if isinstance(wire.stop, str) else tuple(wire.stop or ())
    return Stopping(max_tokens=most, min_tokens=wire.min_tokens, stop=stop, ignore_eos=wire.ignore_eos)


def _guide(wire: _ResponseFormat | None) -> Guide | None:
    if wire is None or wire.type == "text":
        return None
    if wire.type == "json_object":
        return Guide("json_object")
    if wire.json_schema is None:
        raise invalid("response_format.json_schema", "response_format.json_schema is missing.", reason="MISSING_FIELD")
    return Guide("json_schema", (_text(wire.json_schema.schema, "response_format"),))
