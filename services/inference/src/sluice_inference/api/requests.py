"""Messages to domain values, without judging them (domain.validation does)."""

from __future__ import annotations

from typing import Any

from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.types.v1 import chat_pb2, generation_pb2

from sluice_inference.domain.generation import (
    Chat,
    ChatTurn,
    Generation,
    GenerationInput,
    Guide,
    GuideKind,
    RawPrompt,
    Sampling,
    Stopping,
    TokenPrompt,
)
from sluice_inference.domain.refusals import InvalidRequest
from sluice_inference.domain.tools import Tool, ToolCall, ToolChoice, ToolMode

_ROLES = {
    chat_pb2.ROLE_SYSTEM: "system",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}


def read_generation(spec: pb.GenerationSpec, *, request_id: str, tenant_id: str) -> Generation:
    """`request_id` and, as cache salt, `tenant_id` hold where the spec leaves them empty. Raises InvalidRequest for what has no meaning."""
    return Generation(
        request_id=spec.request_id or request_id,
        model=spec.model,
        input=_read_input(spec),
        sampling=_read_sampling(spec.sampling),
        stopping=_read_stopping(spec.stopping),
        guide=_read_guide(spec.guided),
        logprobs=_optional(spec.response, "logprobs"),
        prompt_logprobs=_optional(spec.response, "prompt_logprobs"),
        return_token_ids=spec.response.return_token_ids,
        echo=spec.response.echo,
        stream_interval=spec.response.stream_interval if spec.response.HasField("stream_interval") else 1,
        cache_salt=spec.cache.cache_salt or tenant_id,
        cache_salt_is_given=bool(spec.cache.cache_salt),
        bypass_prefix_cache=spec.cache.bypass_prefix_cache,
        lora_name=spec.lora_name,
        priority=spec.priority,
        tenant_id=tenant_id,
        tools=tuple(Tool(t.name, t.description, t.parameters_json_schema) for t in spec.chat.tools),
        tool_choice=_read_tool_choice(spec.chat),
        parallel_tool_calls=_optional(spec.chat, "parallel_tool_calls"),
        has_tools=_has_tools(spec.chat),
        extra_keys=tuple(spec.extra.fields),
        labels=tuple(sorted(spec.labels.items())),
    )


def _optional(message: Any, field: str) -> Any:
    """The value, or None where the sender left it absent: zero is not absence."""
    return getattr(message, field) if message.HasField(field) else None


def _read_input(spec: pb.GenerationSpec) -> GenerationInput:
    match spec.WhichOneof("input"):
        case "prompt":
            return RawPrompt(spec.prompt)
        case "chat":
            return Chat(tuple(_read_turn(index, message) for index, message in enumerate(spec.chat.messages)))
        case "tokens":
            return TokenPrompt(tuple(spec.tokens.token_ids))
        case _:
            raise InvalidRequest("input", "the input is missing: give one of prompt, chat and tokens.")


def _read_turn(index: int, message: chat_pb2.ChatMessage) -> ChatTurn:
    role = _ROLES.get(message.role)
    if role is None:
        raise InvalidRequest(
            f"chat.messages[{index}].role", f"message {index} has no known role: use system, user, assistant or tool."
        )
    calls = tuple(ToolCall(call.id, call.name, call.arguments) for call in message.tool_calls)
    return ChatTurn(role, message.content, message.name, calls, message.tool_call_id)


def _has_tools(chat: pb.ChatInput) -> bool:
    return bool(chat.tools) or any(m.tool_calls or m.role == chat_pb2.ROLE_TOOL for m in chat.messages)


_TOOL_MODES = {
    pb.TOOL_CHOICE_MODE_UNSPECIFIED: ToolMode.AUTO,
    pb.TOOL_CHOICE_MODE_AUTO: ToolMode.AUTO,
    pb.TOOL_CHOICE_MODE_NONE: ToolMode.NONE,
    pb.TOOL_CHOICE_MODE_REQUIRED: ToolMode.REQUIRED,
}


def _read_tool_choice(chat: pb.ChatInput) -> ToolChoice | None:
    if not chat.HasField("tool_choice"):
        return None
    if chat.tool_choice.WhichOneof("choice") == "tool_name":
        return ToolChoice(ToolMode.REQUIRED, chat.tool_choice.tool_name)
    mode = _TOOL_MODES.get(chat.tool_choice.mode)
    if mode is None:
        raise InvalidRequest("chat.tool_choice.mode", "tool_choice has no known mode: use auto, none or required.")
    return ToolChoice(mode)


def _read_sampling(sampling: generation_pb2.SamplingParameters) -> Sampling:
    # A float32 such as 0.7 would become 0.699999988: the shortest decimal of the same float32 is what the caller wrote.
    def number(field: str) -> float | None:
        value = _optional(sampling, field)
        return None if value is None else float(f"{value:.7g}")

    return Sampling(
        temperature=number("temperature"),
        top_p=number("top_p"),
        top_k=_optional(sampling, "top_k"),
        min_p=number("min_p"),
        frequency_penalty=number("frequency_penalty"),
        presence_penalty=number("presence_penalty"),
        repetition_penalty=number("repetition_penalty"),
        seed=_optional(sampling, "seed"),
        num_sequences=sampling.num_sequences if sampling.HasField("num_sequences") else 1,
        logit_bias=tuple(sorted(sampling.logit_bias.items())),
    )


def _read_stopping(stopping: generation_pb2.StoppingParameters) -> Stopping:
    return Stopping(
        max_tokens=_optional(stopping, "max_tokens"),
        min_tokens=stopping.min_tokens,
        stop=tuple(stopping.stop),
        stop_token_ids=tuple(stopping.stop_token_ids),
        ignore_eos=stopping.ignore_eos,
        include_stop_in_output=stopping.include_stop_in_output,
    )


def _read_guide(guided: generation_pb2.GuidedDecoding) -> Guide | None:
    chosen = guided.WhichOneof("guide")
    if chosen is None or (chosen == "json_object" and not guided.json_object):
        return None
    if chosen == "choice":
        return Guide(GuideKind.CHOICE, choices=tuple(guided.choice.choices))
    if chosen == "json_object":
        return Guide(GuideKind.JSON_OBJECT)
    return Guide(GuideKind(chosen), source=getattr(guided, chosen))
