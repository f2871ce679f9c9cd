"""The judge: a model of the inference service that answers in a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from grpc.aio import AioRpcError
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as pb_grpc
from sluice.types.v1 import chat_pb2, finish_reason_pb2, generation_pb2, usage_pb2
from sluice_kit import context

from sluice_quality.domain import judging


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one judged answer. Without scores `failure` says why."""

    scores: Mapping[str, int]
    failure: str = ""
    model: str = ""
    usage: usage_pb2.TokenUsage | None = None


class GrpcJudge:
    """Asks InferenceService. The call is marked synthetic: it is nobody's conversation, and drift leaves it out."""

    def __init__(self, channel: grpc.aio.Channel, *, model: str, timeout_seconds: float) -> None:
        self._stub = pb_grpc.InferenceServiceStub(channel)
        self._model, self._timeout = model, timeout_seconds

    async def judge(self, question: str, *, tenant_id: str, project_id: str) -> Judgement:
        """Never raises for a judge that is away, slow or wrong: that is a failure to be counted."""
        # An id of its own: the judged request's would put the judge's measurement into its story.
        asking = context.RequestContext(
            request_id=context.new_request_id(), tenant_id=tenant_id, project_id=project_id, synthetic=True
        )
        try:
            with context.use(asking):
                response = await self._stub.Generate(self._request(question, asking.request_id), timeout=self._timeout)
        except AioRpcError as error:
            return Judgement({}, failure=error.code().name.lower())
        return _judgement(response)

    def _request(self, question: str, request_id: str) -> pb.GenerateRequest:
        messages = [
            chat_pb2.ChatMessage(role=chat_pb2.ROLE_SYSTEM, content=judging.RULES),
            chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, content=question),
        ]
        return pb.GenerateRequest(
            spec=pb.GenerationSpec(
                request_id=request_id,
                model=self._model,
                chat=pb.ChatInput(messages=messages),
                sampling=generation_pb2.SamplingParameters(temperature=0.0, seed=1),
                stopping=generation_pb2.StoppingParameters(max_tokens=judging.MOST_TOKENS),
                guided=generation_pb2.GuidedDecoding(json_schema=judging.SCHEMA),
                priority=-1,
            )
        )


def _judgement(response: pb.GenerateResponse) -> Judgement:
    output = response.outputs[0] if response.outputs else pb.GenerationOutput()
    try:
        if output.finish_reason == finish_reason_pb2.FINISH_REASON_LENGTH:
            raise judging.Unusable("cut")
        return Judgement(judging.scores_of(output.text), model=response.model, usage=response.usage)
    except judging.Unusable as error:
        return Judgement({}, failure=error.reason, model=response.model, usage=response.usage)
