"""The inference service, over gRPC."""

from collections.abc import Mapping

import grpc
from grpc.aio import AioRpcError, UnaryStreamCall
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.inference.v1 import inference_service_pb2_grpc as rpc
from sluice.types.v1 import chat_pb2, finish_reason_pb2, generation_pb2, usage_pb2
from sluice_kit.errors import Internal

from sluice_gateway.adapters import failures
from sluice_gateway.domain.chat import (
    ChatMessage,
    ChatRequest,
    EmbedRequest,
    FinishReason,
    Guide,
    Role,
    Sampling,
    Stopping,
    Usage,
    Vectors,
)
from sluice_gateway.domain.neighbours import ModelEnd, ModelStart, ModelText

_ROLES = {
    Role.SYSTEM: chat_pb2.ROLE_SYSTEM,
    Role.USER: chat_pb2.ROLE_USER,
    Role.ASSISTANT: chat_pb2.ROLE_ASSISTANT,
    Role.TOOL: chat_pb2.ROLE_TOOL,
}
_FINISH = {getattr(finish_reason_pb2, f"FINISH_REASON_{reason.name}"): reason for reason in FinishReason}
# Nobody watches a whole answer grow, so fewer and larger messages are asked for (a hint; a message costs 60 us).
WHOLE_ANSWER_INTERVAL = 16
LONGEST_LABEL = 200  # as inference tells them
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcModel:
    """Fits `Model`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = rpc.InferenceServiceStub(channel)

    def generate(
        self, request: ChatRequest, *, target: str, request_id: str, timeout: float, labels: Mapping[str, str]
    ) -> "GrpcModelStream":
        spec = pb.GenerationSpec(
            request_id=request_id,
            model=target,
            chat=pb.ChatInput(
                messages=[_message(message) for message in request.messages],
                tools=[
                    chat_pb2.ToolDefinition(
                        name=tool.name,
                        description=tool.description,
                        parameters_json_schema=tool.parameters_json_schema,
                    )
                    for tool in request.tools
                ],
            ),
            sampling=_sampling(request.sampling),
            stopping=_stopping(request.stopping),
            guided=_guided(request.guide) if request.guide else None,
            response=pb.ResponseOptions(stream_interval=1 if request.streamed else WHOLE_ANSWER_INTERVAL),
            labels={name: value[:LONGEST_LABEL] for name, value in labels.items()},
        )
        call = self._stub.GenerateStream(pb.GenerateStreamRequest(spec=spec), timeout=timeout)
        return GrpcModelStream(call)

    async def embed(self, request: EmbedRequest, *, target: str, timeout: float) -> Vectors:
        wire = pb.EmbedRequest(model=target, texts=request.texts, dimensions=request.dimensions)
        try:
            response = await self._stub.Embed(wire, timeout=timeout)
        except AioRpcError as error:
            raise failures.of_model(error) from None
        return Vectors(
            values=tuple(tuple(embedding.values) for embedding in response.embeddings),
            usage=_usage(response.usage),
            model=response.model,
        )


class GrpcModelStream:
    """Fits `ModelStream`."""

    def __init__(self, call: "UnaryStreamCall[pb.GenerateStreamRequest, pb.GenerateStreamResponse]") -> None:
        self._call = call

    async def receive(self) -> ModelStart | ModelText | ModelEnd:
        try:
            response = await self._call.read()
        except AioRpcError as error:
            raise failures.of_model(error) from None
        if response is grpc.aio.EOF:  # type: ignore[attr-defined]
            raise failures.of_model(EOFError())
        assert isinstance(response, pb.GenerateStreamResponse)
        match response.WhichOneof("event"):
            case "token":
                return ModelText(response.token.text, response.token.token_count)
            case "started":
                return ModelStart(response.started.model)
            case "finished":
                return _end(response.finished)
            case "error":
                code = _CODES.get(response.error.code, grpc.StatusCode.INTERNAL)
                raise failures.of_code(code, Internal(response.error.message, reason="MODEL_FAILED"))
        return ModelText("", 0)  # an event newer than this code: nothing to show

    def cancel(self) -> None:
        """Cancels the call, which the inference service takes as Abort."""
        self._call.cancel()


def _end(finished: pb.GenerationFinished) -> ModelEnd:
    reason = finished.outputs[0].finish_reason if finished.outputs else finish_reason_pb2.FINISH_REASON_UNSPECIFIED
    usage = _usage(finished.usage) if finished.HasField("usage") else None
    return ModelEnd(_FINISH.get(reason, FinishReason.UNSPECIFIED), usage)


def _message(message: ChatMessage) -> chat_pb2.ChatMessage:
    return chat_pb2.ChatMessage(
        role=_ROLES[message.role],
        content=message.content,
        name=message.name,
        tool_calls=[
            chat_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments) for call in message.tool_calls
        ],
        tool_call_id=message.tool_call_id,
    )


def _sampling(sampling: Sampling) -> generation_pb2.SamplingParameters:
    return generation_pb2.SamplingParameters(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        logit_bias=dict(sampling.logit_bias),
    )


def _stopping(stopping: Stopping) -> generation_pb2.StoppingParameters:
    return generation_pb2.StoppingParameters(
        max_tokens=stopping.max_tokens,
        min_tokens=stopping.min_tokens,
        stop=stopping.stop,
        stop_token_ids=stopping.stop_token_ids,
        ignore_eos=stopping.ignore_eos,
        include_stop_in_output=stopping.include_stop_in_output,
    )


def _guided(guide: Guide) -> generation_pb2.GuidedDecoding:
    if guide.kind == "json_object":
        return generation_pb2.GuidedDecoding(json_object=True)
    if guide.kind == "choice":
        return generation_pb2.GuidedDecoding(choice=generation_pb2.ChoiceGuide(choices=guide.texts))
    if guide.kind == "json_schema":
        return generation_pb2.GuidedDecoding(json_schema=guide.texts[0])
    if guide.kind == "regex":
        return generation_pb2.GuidedDecoding(regex=guide.texts[0])
    if guide.kind == "ebnf_grammar":
        return generation_pb2.GuidedDecoding(ebnf_grammar=guide.texts[0])
    return generation_pb2.GuidedDecoding(structural_tag=guide.texts[0])


def _usage(usage: usage_pb2.TokenUsage) -> Usage:
    return Usage(
        uncached_input_tokens=usage.uncached_input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
    )
