"""What OpenAI clients are answered: answers of the domain to JSON bytes."""

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice_gateway.domain.chat import FinishReason, Usage, Vectors
from sluice_gateway.domain.completion import Completion
from sluice_gateway.domain.configuration import Deployment

_encoder = msgspec.json.Encoder()


_FINISH: Mapping[FinishReason, str] = {
    FinishReason.LENGTH: "length",
    FinishReason.BUDGET: "length",
    FinishReason.CONTENT_FILTER: "content_filter",
    FinishReason.TOOL_CALLS: "tool_calls",
}


def completion_json(request_id: str, created: int, model: str, text: str, completion: Completion) -> bytes:
    """A whole answer, as `chat.completion`."""
    return _encoder.encode(
        {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": _FINISH.get(completion.finish_reason, "stop"),
                }
            ],
            "usage": usage_object(completion.usage or Usage()),
            "sluice": guard_object(completion),
        }
    )


class ChunkWriter:
    """Makes the `data:` lines of one stream; all that does not change from chunk to chunk is encoded once."""

    def __init__(self, request_id: str, created: int, model: str, *, with_usage: bool) -> None:
        head = _encoder.encode(
            {"id": f"chatcmpl-{request_id}", "object": "chat.completion.chunk", "created": created, "model": model}
        )[:-1]
        self._head, self._with_usage = head, with_usage
        self._before = b"data: " + head + b',"choices":[{"index":0,"delta":{"content":'
        self._after = b'},"logprobs":null,"finish_reason":null}]' + self._no_usage + b"}\n\n"

    @property
    def _no_usage(self) -> bytes:
        return b',"usage":null' if self._with_usage else b""

    def role(self) -> bytes:
        """The first chunk."""
        delta = b',"choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null}'
        return b"data: " + self._head + delta + b',"logprobs":null,"finish_reason":null}]' + self._no_usage + b"}\n\n"

    def text(self, text: str) -> bytes:
        """New text."""
        return self._before + _encoder.encode(text) + self._after

    def end(self, completion: Completion) -> bytes:
        """Why it ended, what the filters did, the usage if asked for, and the end mark."""
        reason = _encoder.encode(_FINISH.get(completion.finish_reason, "stop"))
        guard = b',"sluice":' + _encoder.encode(guard_object(completion))
        choice = b',"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":' + reason + b"}]"
        lines = b"data: " + self._head + choice + self._no_usage + guard + b"}\n\n"
        if self._with_usage:
            usage = _encoder.encode(usage_object(completion.usage or Usage()))
            lines += b"data: " + self._head + b',"choices":[],"usage":' + usage + b"}\n\n"
        return lines + b"data: [DONE]\n\n"


def usage_object(usage: Usage) -> dict[str, Any]:
    """OpenAI counts cached tokens inside prompt_tokens and reasoning tokens inside completion_tokens."""
    completion_tokens = usage.output_tokens + usage.reasoning_tokens
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": usage.input_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
    }


def guard_object(completion: Completion) -> dict[str, Any]:
    """What the filters did: our one addition to OpenAI's answer (clients ignore fields they do not know)."""
    return {
        "decision_ids": completion.decision_ids,
        "withheld_reason": completion.withheld_reason,
        "redacted_input": {found.kind: found.count for found in completion.redacted_input},
        "redacted_output": {found.kind: found.count for found in completion.redacted_output},
        "skipped_filters": completion.skipped_filters,
        "budget_limited": completion.budget_limited,
        "budget_unchecked": completion.budget_unchecked,
        "redaction_policy": completion.redaction_policy,
    }


def embeddings_json(model: str, vectors: Vectors, *, as_base64: bool) -> bytes:
    """The vectors, as OpenAI's `list` of `embedding`."""
    return _encoder.encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": i, "embedding": _vector(values, as_base64)}
                for i, values in enumerate(vectors.values)
            ],
            "model": model,
            "usage": {"prompt_tokens": vectors.usage.input_tokens, "total_tokens": vectors.usage.input_tokens},
        }
    )


def _vector(values: Sequence[float], as_base64: bool) -> Sequence[float] | str:
    if not as_base64:
        return values
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode("ascii")


def models_json(deployments: Sequence[Deployment], created: int) -> bytes:
    """The models, as OpenAI's `list` of `model`."""
    return _encoder.encode({"object": "list", "data": [_model(deployment, created) for deployment in deployments]})


def model_json(deployment: Deployment, created: int) -> bytes:
    """One model."""
    return _encoder.encode(_model(deployment, created))


def _model(deployment: Deployment, created: int) -> dict[str, Any]:
    return {"id": deployment.alias, "object": "model", "created": created, "owned_by": deployment.owned_by}
