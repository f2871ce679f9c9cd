"""How large a request can be for the model, in tokens: known before any tokenizer has seen it."""

from dataclasses import dataclass

from sluice_gateway.domain.chat import ChatRequest, EmbedRequest
from sluice_gateway.domain.segments import segments_of

# What a chat template puts round each message and round the whole. The templates of the models we know of add at most 12 tokens a
# message and 30 a conversation (a default system prompt); a preamble that explains tools is about 300.
MESSAGE_TOKENS = 32
REQUEST_TOKENS = 64
TOOLS_TOKENS = 512
TOOL_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Size:
    """Upper bounds. `output_tokens` is what was asked for, `least_output_tokens` what is still of use of it."""

    prompt_tokens: int
    output_tokens: int = 0
    least_output_tokens: int = 0


def size_of_chat(request: ChatRequest, *, output_tokens: int, least_output_tokens: int) -> Size:
    """Of a conversation as the model will see it. A tokenizer makes no more tokens than bytes."""
    tokens = sum(len(segment.text.encode()) for segment in segments_of(request))
    tokens += REQUEST_TOKENS + MESSAGE_TOKENS * len(request.messages)
    if request.tools:
        tokens += TOOLS_TOKENS + TOOL_TOKENS * len(request.tools)
    return Size(tokens, output_tokens, min(least_output_tokens, output_tokens))


def size_of_embed(request: EmbedRequest) -> Size:
    """Of texts to be turned into vectors, which have no output."""
    return Size(sum(len(text.encode()) + MESSAGE_TOKENS for text in request.texts))
