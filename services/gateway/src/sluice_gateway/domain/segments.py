"""Every text of a request that could reach the model, taken out for the filters and put back redacted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sluice_gateway.domain.chat import ChatMessage, ChatRequest, Guide, ToolCall, ToolDefinition


@dataclass(frozen=True, slots=True)
class Segment:
    """One text and its path in the request. `writer` is the role that said it, empty for what nobody says."""

    id: str
    text: str
    writer: str = ""


def segments_of(request: ChatRequest) -> tuple[Segment, ...]:
    """All texts that are not empty, in the order in which `with_texts` puts them back.

    Besides what is said this covers names, ids, tool definitions, stop strings and grammars: wherever a caller can
    write, personal data can stand.
    """
    return tuple(Segment(path, text, writer) for path, text, writer in _walk(request) if text)


def with_texts(request: ChatRequest, texts: Sequence[str]) -> ChatRequest:
    """The same request with its segments' texts replaced. ValueError when the number of texts is not theirs."""
    hand = _Dealer(texts)
    replaced = replace(
        request,
        messages=tuple(_message_with(message, hand) for message in request.messages),
        tools=tuple(_tool_with(tool, hand) for tool in request.tools),
        stopping=replace(request.stopping, stop=tuple(map(hand.next, request.stopping.stop))),
        guide=request.guide and Guide(request.guide.kind, tuple(map(hand.next, request.guide.texts))),
    )
    hand.check_all_dealt()
    return replaced


def can_be_cut(segment_id: str) -> bool:
    """Whether a sentence of the segment can be replaced: prose can; a name, an id, JSON or a grammar would break."""
    return segment_id.endswith("].content") or segment_id.startswith("input[")


def _walk(request: ChatRequest) -> Iterator[tuple[str, str, str]]:
    for i, message in enumerate(request.messages):
        yield f"messages[{i}].content", message.content, message.role.value
        yield f"messages[{i}].name", message.name, ""
        for j, call in enumerate(message.tool_calls):
            yield f"messages[{i}].tool_calls[{j}].id", call.id, ""
            yield f"messages[{i}].tool_calls[{j}].name", call.name, ""
            yield f"messages[{i}].tool_calls[{j}].arguments", call.arguments, ""
        yield f"messages[{i}].tool_call_id", message.tool_call_id, ""
    for i, tool in enumerate(request.tools):
        yield f"tools[{i}].name", tool.name, ""
        yield f"tools[{i}].description", tool.description, ""
        yield f"tools[{i}].parameters", tool.parameters_json_schema, ""
    for i, stop in enumerate(request.stopping.stop):
        yield f"stop[{i}]", stop, ""
    if request.guide:
        for i, text in enumerate(request.guide.texts):
            yield f"guided[{i}]", text, ""


class _Dealer:
    """Hands out replacement texts in order; an empty text had no segment and stays empty."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = iter(texts)

    def next(self, original: str) -> str:
        if not original:
            return original
        try:
            return next(self._texts)
        except StopIteration:
            raise ValueError("fewer texts than segments") from None

    def check_all_dealt(self) -> None:
        if next(self._texts, None) is not None:
            raise ValueError("more texts than segments")


# The order of evaluation in the functions below is the order of _walk: keyword arguments are evaluated left to right.
def _message_with(message: ChatMessage, hand: _Dealer) -> ChatMessage:
    return ChatMessage(
        role=message.role,
        content=hand.next(message.content),
        name=hand.next(message.name),
        tool_calls=tuple(
            ToolCall(id=hand.next(call.id), name=hand.next(call.name), arguments=hand.next(call.arguments))
            for call in message.tool_calls
        ),
        tool_call_id=hand.next(message.tool_call_id),
    )


def _tool_with(tool: ToolDefinition, hand: _Dealer) -> ToolDefinition:
    return ToolDefinition(
        name=hand.next(tool.name),
        description=hand.next(tool.description),
        parameters_json_schema=hand.next(tool.parameters_json_schema),
    )
