"""The gateway's gRPC door."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.gateway.v1 import gateway_service_pb2_grpc as pb_grpc
from sluice.types.v1 import chat_pb2, finish_reason_pb2, generation_pb2
from sluice_kit.errors import from_rpc_error
from sluice_kit.telemetry import logger

from sluice_probes.domain.findings import UNREADABLE, Answer, policy_named

log = logger(__name__)


class GrpcDoor:
    """Fits domain.round.Door, whole or streamed."""

    def __init__(self, channel: Any, key: str, *, streamed: bool, seconds: float) -> None:
        self._stub: Any = pb_grpc.GatewayServiceStub(channel)
        self._options = {"metadata": (("authorization", f"Bearer {key}"),), "timeout": seconds}
        self._streamed = streamed

    async def models(self) -> list[str]:
        """All aliases; empty where they cannot be had."""
        try:
            return [
                each.model for each in (await self._stub.ListModels(pb.ListModelsRequest(), **self._options)).models
            ]
        except grpc.RpcError:
            return []

    async def chat(self, model: str, system: str, text: str, *, most_tokens: int) -> Answer:
        spec = pb.ChatSpec(model=model, stopping=generation_pb2.StoppingParameters(max_tokens=most_tokens))
        if system:
            spec.messages.add(role=chat_pb2.ROLE_SYSTEM, content=system)
        spec.messages.add(role=chat_pb2.ROLE_USER, content=text)
        try:
            return await (self._stream(spec) if self._streamed else self._whole(spec))
        except Exception as error:  # an answer of another version may be anything; it must not end the whole round
            return _refusal(error)

    async def embed(self, model: str, texts: Sequence[str]) -> Answer:
        try:
            answer = await self._stub.Embed(pb.EmbedRequest(model=model, texts=texts), **self._options)
            return Answer(vectors=tuple(tuple(each.values) for each in answer.embeddings))
        except Exception as error:
            return _refusal(error)

    async def _whole(self, spec: pb.ChatSpec) -> Answer:
        answer = await self._stub.Chat(pb.ChatRequest(spec=spec), **self._options)
        choice = answer.choices[0]
        return _answer(choice.message.content, choice.finish_reason, answer.guard)

    async def _stream(self, spec: pb.ChatSpec) -> Answer:
        pieces, end = [], pb.ChatFinished()
        async for event in self._stub.ChatStream(pb.ChatStreamRequest(spec=spec), **self._options):
            pieces.append(event.delta.content)
            if event.HasField("finished"):
                end = event.finished
        return _answer("".join(pieces), end.finish_reason, end.guard)


def _answer(text: str, finish: int, guard: pb.GuardReport) -> Answer:
    return Answer(
        text=text,
        withheld=finish == finish_reason_pb2.FINISH_REASON_CONTENT_FILTER,
        decision_ids=tuple(guard.decision_ids),
        skipped_filters=tuple(guard.skipped_filters),
        redaction_policy=policy_named(guard.redaction_policy),
    )


def _refusal(error: Exception) -> Answer:
    try:
        if not isinstance(error, grpc.RpcError):
            raise error
        read = from_rpc_error(error)
    except Exception as unread:
        log.warning("probes.unreadable_answer", error=type(unread).__name__)
        return Answer(error=UNREADABLE)
    decision = read.metadata.get("decision_id", "")
    return Answer(
        error=read.reason, policy=read.metadata.get("policy", ""), decision_ids=(decision,) if decision else ()
    )
