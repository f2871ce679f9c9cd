"""Sends the conversations through both doors of the gateway, and what people think of the answers."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx2
import openai
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from sluice.feedback.v1 import feedback_service_pb2, feedback_service_pb2_grpc
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.gateway.v1 import gateway_service_pb2_grpc
from sluice.types.v1 import chat_pb2, feedback_pb2, finish_reason_pb2, generation_pb2
from tenacity import AsyncRetrying, retry_if_not_result, stop_after_delay, wait_exponential_jitter

from sluice_cli.demo.conversations import Conversation
from sluice_cli.mesh.readiness import CHANNEL_OPTIONS

SECONDS = 120.0
# What died is back in a few seconds; a caller asks again, as any well-made client does.
PATIENCE_SECONDS = 45.0
MOST_TOKENS = 48
# What the gateway says while a service behind it is being restarted.
_AWAY = ("FILTER_UNAVAILABLE", "MODEL_UNAVAILABLE")
_ROLES = {"system": chat_pb2.ROLE_SYSTEM, "user": chat_pb2.ROLE_USER, "assistant": chat_pb2.ROLE_ASSISTANT}


@dataclass(frozen=True)
class Outcome:
    """How one conversation ended, as the caller saw it."""

    conversation: Conversation
    request_id: str
    status: str
    """`answered`, `blocked` (before the model), `filtered` (the answer was withheld) or `failed`."""
    seconds: float
    answer: str = ""
    note: str = ""
    """Why it was blocked or failed: categories or an error code."""
    redacted: Mapping[str, int] = field(default_factory=dict)
    """Personal data replaced on the way in, by kind, where the door tells."""
    feedback: str | None = None
    """What was said about it."""
    earlier_ids: tuple[str, ...] = ()
    """Requests of this conversation that failed because a service was away; the gateway has counted them."""
    unanswered: int = 0
    """How often it was sent and no gateway answered."""


class Caller:
    """The tenants' programs. Use as an async context manager."""

    def __init__(
        self, environment: Mapping[str, str], keys: Mapping[str, str], *, declaring: Collection[str] = ()
    ) -> None:
        """`declaring`: the tenants that say which prompt a request is made with."""
        self._environment, self._keys, self._declaring = environment, keys, declaring
        # Loopback never goes through a proxy of this machine.
        self._http = openai.DefaultAsyncHttpxClient(trust_env=False, timeout=SECONDS)
        self._clients = {
            tenant: openai.AsyncOpenAI(
                base_url=f"{environment['SLUICE_HTTP_URL']}/v1",
                api_key=key,
                http_client=self._http,
                max_retries=0,  # type: ignore[arg-type]
            )
            for tenant, key in keys.items()
        }
        self._channel = grpc.aio.insecure_channel(environment["SLUICE_GRPC_TARGET"], options=CHANNEL_OPTIONS)
        self._gateway: Any = gateway_service_pb2_grpc.GatewayServiceStub(self._channel)
        self._feedback_channel = grpc.aio.insecure_channel(
            environment["SLUICE_FEEDBACK_TARGET"], options=CHANNEL_OPTIONS
        )
        self._feedback: Any = feedback_service_pb2_grpc.FeedbackServiceStub(self._feedback_channel)

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.aclose()
        await self._channel.close(None)
        await self._feedback_channel.close(None)

    async def send(self, conversation: Conversation) -> Outcome:
        """One conversation, and the feedback on its answer. Never raises: what fails is an outcome too."""
        begun = time.monotonic()
        tries: list[dict[str, Any]] = []

        async def ask() -> bool:
            over = self._over_http if conversation.door == "http" else self._over_grpc
            tries.append(await over(conversation))
            return _is_answer(tries[-1])

        again = AsyncRetrying(
            retry=retry_if_not_result(bool),
            stop=stop_after_delay(PATIENCE_SECONDS),
            wait=wait_exponential_jitter(multiplier=0.5, max=3),
            retry_error_callback=lambda state: None,
        )
        await again(ask)
        *earlier, last = tries
        outcome = Outcome(
            conversation=conversation,
            seconds=time.monotonic() - begun,
            earlier_ids=tuple(told["request_id"] for told in earlier if told["request_id"]),
            unanswered=sum(1 for told in tries if not told["request_id"]),
            **last,
        )
        if conversation.feedback and outcome.status == "answered":
            return await self._judge(outcome, conversation.feedback)
        return outcome

    async def _over_http(self, conversation: Conversation) -> dict[str, Any]:
        options: dict[str, Any] = {
            "model": self._environment["SLUICE_MODEL"],
            "max_tokens": MOST_TOKENS,
            "messages": [{"role": turn.role, "content": turn.text} for turn in conversation.turns],
            "metadata": self._labels(conversation),
        }
        completions = self._clients[conversation.tenant].chat.completions
        try:
            return (
                await _streamed(completions, options) if conversation.streamed else await _whole(completions, options)
            )
        except openai.APIStatusError as error:
            return _refused(error)
        except (openai.OpenAIError, httpx2.TransportError) as error:
            return {"request_id": "", "status": "failed", "note": type(error).__name__}

    async def _over_grpc(self, conversation: Conversation) -> dict[str, Any]:
        spec = pb.ChatSpec(
            model=self._environment["SLUICE_MODEL"],
            messages=[chat_pb2.ChatMessage(role=_ROLES[turn.role], content=turn.text) for turn in conversation.turns],
            stopping=generation_pb2.StoppingParameters(max_tokens=MOST_TOKENS),
            labels=self._labels(conversation),
        )
        options = {"metadata": (("authorization", f"Bearer {self._keys[conversation.tenant]}"),), "timeout": SECONDS}
        try:
            if conversation.streamed:
                return await _read(self._gateway.ChatStream(pb.ChatStreamRequest(spec=spec), **options))
            answer = await self._gateway.Chat(pb.ChatRequest(spec=spec), **options)
        except grpc.aio.AioRpcError as error:
            return _refused_by_status(error)
        choice = answer.choices[0]
        return _finished(answer.request_id, choice.message.content, choice.finish_reason, answer.guard)

    def _labels(self, conversation: Conversation) -> Mapping[str, str]:
        return conversation.labels if conversation.tenant in self._declaring else {}

    async def _judge(self, outcome: Outcome, feedback: str) -> Outcome:
        request = feedback_service_pb2.SubmitFeedbackRequest(request_id=outcome.request_id, **_FEEDBACK[feedback])
        metadata = (("x-sluice-tenant-id", outcome.conversation.tenant),)
        try:
            await self._feedback.SubmitFeedback(request, metadata=metadata, timeout=SECONDS)
        except grpc.aio.AioRpcError:
            return outcome
        return Outcome(**{**vars(outcome), "feedback": feedback})


_FEEDBACK: Mapping[str, Mapping[str, Any]] = {
    "thumb up": {"thumb": feedback_pb2.THUMB_UP},
    "thumb down": {"thumb": feedback_pb2.THUMB_DOWN, "tags": ["inaccurate"]},
    "rating": {"rating": 4},
    "correction": {"correction": "A better answer would be shorter and begin with the point."},
}


async def _whole(completions: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    answer = await completions.create(**options)
    choice = answer.choices[0]
    redacted = (getattr(answer, "sluice", None) or {}).get("redacted_input", {})
    return _answered(answer.id, choice.message.content or "", choice.finish_reason, redacted)


async def _streamed(completions: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    pieces: list[str] = []
    request_id, finish_reason = "", ""
    redacted: dict[str, int] = {}
    stream = await completions.create(**options, stream=True)
    try:
        async for chunk in stream:
            request_id = chunk.id
            redacted = (getattr(chunk, "sluice", None) or {}).get("redacted_input", redacted)
            for choice in chunk.choices:
                pieces.append(choice.delta.content or "")
                finish_reason = choice.finish_reason or finish_reason
    except openai.APIConnectionError:
        raise
    except openai.APIError as error:  # the gateway told of a failure in the stream itself: it knows this request
        known = stream.response.headers.get("x-request-id", "")
        return {"request_id": known, "status": "failed", "note": str(error.code or type(error).__name__).upper()}
    if not finish_reason:
        return {"request_id": "", "status": "failed", "note": "stream ended early"}
    return _answered(request_id, "".join(pieces), finish_reason, redacted)


def _answered(completion_id: str, text: str, finish_reason: str, redacted: Mapping[str, int]) -> dict[str, Any]:
    status = "filtered" if finish_reason == "content_filter" else "answered"
    return {
        "request_id": completion_id.removeprefix("chatcmpl-"),
        "status": status,
        "answer": text,
        "redacted": redacted,
    }


def _refused(error: openai.APIStatusError) -> dict[str, Any]:
    body: Any = error.body if isinstance(error.body, dict) else {}
    blocked = error.code == "content_filter"
    note = body.get("sluice", {}).get("categories", "") if blocked else str(error.code or error.status_code).upper()
    request_id = error.response.headers.get("x-request-id", "")
    return {"request_id": request_id, "status": "blocked" if blocked else "failed", "note": note}


async def _read(stream: Any) -> dict[str, Any]:
    pieces: list[str] = []
    async for response in stream:
        pieces.append(response.delta.content)
        if response.HasField("finished"):
            finished = response.finished
            return _finished(response.request_id, "".join(pieces), finished.finish_reason, finished.guard)
    return {"request_id": "", "status": "failed", "note": "stream ended early"}


def _finished(request_id: str, text: str, finish_reason: int, guard: pb.GuardReport) -> dict[str, Any]:
    filtered = finish_reason == finish_reason_pb2.FINISH_REASON_CONTENT_FILTER
    redacted = {each.kind: each.count for each in guard.redacted_input}
    return {
        "request_id": request_id,
        "status": "filtered" if filtered else "answered",
        "answer": text,
        "redacted": redacted,
    }


def _refused_by_status(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    for detail in status.details if status else ():
        _ = detail.Unpack(info) or detail.Unpack(request)
    blocked = info.reason == "CONTENT_BLOCKED"
    note = info.metadata.get("categories", "") if blocked else info.reason or error.code().name
    return {"request_id": request.request_id, "status": "blocked" if blocked else "failed", "note": note}


def _is_answer(told: Mapping[str, Any]) -> bool:
    """False when it makes sense to ask again: a service was away, or no gateway lived to tell the end (there is no id then)."""
    return bool(told["status"] != "failed" or (told["request_id"] and told["note"] not in _AWAY))


def of_status(outcomes: Sequence[Outcome], status: str) -> list[Outcome]:
    """Those that ended so."""
    return [outcome for outcome in outcomes if outcome.status == status]
