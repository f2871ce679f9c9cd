"""The gRPC door: `GatewayService`, thin over `Gateway`."""

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.types.v1 import chat_pb2, finish_reason_pb2, generation_pb2, personal_data_pb2, usage_pb2
from sluice_kit import context, errors, telemetry
from sluice_kit.process import describe

from sluice_gateway.api.entry import Entry, enter
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
    Usage,
)
from sluice_gateway.domain.cohorts import cohort_labels
from sluice_gateway.domain.completion import Completion, KindCount
from sluice_gateway.domain.completion import Protocol as Door
from sluice_gateway.domain.gateway import Gateway
from sluice_gateway.domain.rejection import Kind, Rejection, invalid
from sluice_gateway.domain.variants import variant_of

log = telemetry.logger(__name__)
SERVICE_NAME = pb.DESCRIPTOR.services_by_name["GatewayService"].full_name
Wire = TypeVar("Wire", bound=Message)
ServicerContext = grpc.aio.ServicerContext
# A request of this many parts takes some 20 ms to take apart, on the event loop.
MOST_PARTS = 20_000


def add_to_server(gateway: Gateway, server: grpc.aio.Server, *, request_seconds: float) -> None:
    """Serve GatewayService. Requests are parsed in the handlers and not by gRPC, so that a message that cannot be
    parsed (text that is not UTF-8) gets INVALID_ARGUMENT and an event, and not a bare INTERNAL."""
    servicer = GatewayServicer(gateway, request_seconds)
    handlers: dict[str, grpc.RpcMethodHandler] = {
        "Chat": grpc.unary_unary_rpc_method_handler(servicer.chat, None, _serialize),
        "ChatStream": grpc.unary_stream_rpc_method_handler(servicer.chat_stream, None, _serialize),
        "Embed": grpc.unary_unary_rpc_method_handler(servicer.embed, None, _serialize),
        "ListModels": grpc.unary_unary_rpc_method_handler(servicer.list_models, None, _serialize),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


class GatewayServicer:
    """The four RPCs, on raw bytes."""

    def __init__(self, gateway: Gateway, request_seconds: float) -> None:
        self._gateway, self._request_seconds = gateway, request_seconds

    async def chat(self, body: bytes, servicer_context: ServicerContext) -> pb.ChatResponse:
        audience = UnaryAudience()
        with _told():
            await self._converse(pb.ChatRequest, body, servicer_context, audience, streamed=False)
        return audience.response

    async def chat_stream(self, body: bytes, servicer_context: ServicerContext) -> AsyncIterator[pb.ChatStreamResponse]:
        """Writes by itself and yields nothing: text is pushed as it comes, without a queue and a task in between."""
        audience = StreamAudience(servicer_context)
        with _told():
            await self._converse(pb.ChatStreamRequest, body, servicer_context, audience, streamed=True)
        return
        yield  # makes it the async generator the server expects

    async def embed(self, body: bytes, servicer_context: ServicerContext) -> pb.EmbedResponse:
        with _told():
            entry = self._enter(servicer_context)

            async def read() -> EmbedRequest:
                wire = _parsed(pb.EmbedRequest, body)
                entry.is_for(wire.user)
                dimensions = wire.dimensions if wire.HasField("dimensions") else None
                return EmbedRequest(wire.model, tuple(wire.texts), dimensions, wire.user)

            vectors, completion = await self._gateway.embed(entry.arrival, entry.identity, read)
        return pb.EmbedResponse(
            request_id=entry.arrival.request_id,
            model=completion.model,
            embeddings=[pb.Embedding(values=values) for values in vectors.values],
            usage=_usage(vectors.usage),
        )

    async def list_models(self, body: bytes, servicer_context: ServicerContext) -> pb.ListModelsResponse:
        with _told():
            entry = self._enter(servicer_context)
            _parsed(pb.ListModelsRequest, body)
        created_at = Timestamp(seconds=int(self._gateway.models_created_at))
        most = entry.identity.tenant.limits.max_tokens
        return pb.ListModelsResponse(
            models=[
                pb.Model(
                    model=deployment.alias,
                    owned_by=deployment.owned_by,
                    created_at=created_at,
                    max_output_tokens=most,
                )
                for deployment in self._gateway.deployments(entry.identity)
            ]
        )

    async def _converse(
        self,
        wire_class: type[pb.ChatRequest] | type[pb.ChatStreamRequest],
        body: bytes,
        servicer_context: ServicerContext,
        audience: "UnaryAudience | StreamAudience",
        *,
        streamed: bool,
    ) -> None:
        entry = self._enter(servicer_context, streamed=streamed)

        async def read() -> ChatRequest:
            request = _chat_request(_parsed(wire_class, body).spec, streamed=streamed)
            entry.is_for(request.user)
            return request

        await self._gateway.chat(entry.arrival, entry.identity, read, audience)

    def _enter(self, servicer_context: ServicerContext, *, streamed: bool = False) -> Entry:
        metadata = dict(servicer_context.invocation_metadata() or ())
        remaining = servicer_context.time_remaining()
        seconds = self._request_seconds if remaining is None else min(remaining, self._request_seconds)
        return enter(
            self._gateway,
            door=Door.GRPC,
            request_id=context.new_request_id(),
            traceparent=context.current().traceparent,
            header=metadata.get,
            seconds=seconds,
            streamed=streamed,
        )


class UnaryAudience:
    """Fits `ChatAudience`: collects a whole answer."""

    def __init__(self) -> None:
        self._created_at = Timestamp()
        self._created_at.GetCurrentTime()
        self._pieces: list[str] = []
        self.response = pb.ChatResponse()

    def begin(self, request: ChatRequest, completion: Completion) -> None:
        """Nothing to send yet."""

    async def text(self, text: str) -> None:
        self._pieces.append(text)

    async def end(self, completion: Completion) -> None:
        message = chat_pb2.ChatMessage(role=chat_pb2.ROLE_ASSISTANT, content="".join(self._pieces))
        self.response = pb.ChatResponse(
            request_id=context.current().request_id,
            model=completion.model,
            created_at=self._created_at,
            choices=[pb.ChatChoice(index=0, message=message, finish_reason=_finish(completion))],
            usage=_usage(completion.usage),
            guard=_guard(completion),
        )


class StreamAudience:
    """Fits `ChatAudience`: one message for each piece of text."""

    def __init__(self, servicer_context: ServicerContext) -> None:
        self._write = servicer_context.write
        self._request_id = ""
        self._model = ""
        self._started = False

    def begin(self, request: ChatRequest, completion: Completion) -> None:
        self._request_id, self._model = context.current().request_id, completion.model

    async def text(self, text: str) -> None:
        if not self._started:
            await self._start()
        await self._write(pb.ChatStreamResponse(request_id=self._request_id, delta=pb.ChatDelta(content=text)))

    async def end(self, completion: Completion) -> None:
        if not self._started:
            await self._start()
        finished = pb.ChatFinished(
            finish_reason=_finish(completion), usage=_usage(completion.usage), guard=_guard(completion)
        )
        await self._write(pb.ChatStreamResponse(request_id=self._request_id, finished=finished))

    async def _start(self) -> None:
        self._started = True
        started = pb.ChatStarted(model=self._model)
        started.created_at.GetCurrentTime()
        await self._write(pb.ChatStreamResponse(request_id=self._request_id, started=started))


class _told:
    """Raises the kit's error for a Rejection; the kit makes the status of it."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, _class: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Rejection):
            if error.kind is Kind.INTERNAL:
                log.error("request.failed", **describe(error.__cause__ or error))
            raise _ERRORS[error.kind](
                error.message,
                reason=error.reason,
                metadata=error.metadata,
                field=error.field,
                retry_after_seconds=error.retry_after_seconds,
            ) from None


_ERRORS: dict[Kind, type[errors.SluiceError]] = {
    Kind.INVALID: errors.InvalidInput,
    Kind.TOO_LARGE: errors.InvalidInput,
    Kind.UNSUPPORTED: errors.InvalidInput,
    Kind.UNAUTHENTICATED: errors.Unauthenticated,
    Kind.NOT_FOUND: errors.NotFound,
    Kind.EXHAUSTED: errors.ResourceExhausted,
    Kind.BLOCKED: errors.ContentBlocked,
    Kind.UNAVAILABLE: errors.Unavailable,
    Kind.DEADLINE: errors.DeadlineExceeded,
    Kind.CANCELLED: errors.Cancelled,
    Kind.INTERNAL: errors.Internal,
}


def _parsed(wire_class: type[Wire], body: bytes) -> Wire:
    try:
        return wire_class.FromString(body)
    except DecodeError:
        message = f"This is not a {wire_class.DESCRIPTOR.name}; every string must be UTF-8."
        raise Rejection(Kind.INVALID, message, reason="MALFORMED_MESSAGE") from None


_ROLES = {
    chat_pb2.ROLE_SYSTEM: Role.SYSTEM,
    chat_pb2.ROLE_USER: Role.USER,
    chat_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    chat_pb2.ROLE_TOOL: Role.TOOL,
}


def _chat_request(spec: pb.ChatSpec, *, streamed: bool) -> ChatRequest:
    if spec.HasField("prompt"):
        message = "Prompts of the registry cannot be used yet; send the messages themselves."
        raise Rejection(Kind.UNSUPPORTED, message, reason="UNSUPPORTED_PARAMETER", field="prompt")
    if len(spec.labels) > 16:
        raise invalid("labels", f"{len(spec.labels)} labels are too many; at most 16 are allowed.")
    _check_parts(spec)
    return ChatRequest(
        model=spec.model,
        messages=tuple(_message(message, i) for i, message in enumerate(spec.messages)),
        tools=tuple(ToolDefinition(t.name, t.description, t.parameters_json_schema) for t in spec.tools),
        sampling=_sampling(spec.sampling),
        stopping=_stopping(spec.stopping),
        guide=_guide(spec.guided) if spec.HasField("guided") else None,
        user=spec.user,
        streamed=streamed,
        capture_declined=spec.capture_declined,
        cohorts=cohort_labels(spec.labels),
        variant=variant_of(spec.labels),
    )


def _check_parts(spec: pb.ChatSpec) -> None:
    """Refuse what would take long to take apart; the exact limits come later. An empty part costs two bytes on the wire."""
    lists = (spec.messages, spec.tools, spec.stopping.stop, spec.stopping.stop_token_ids, spec.sampling.logit_bias)
    parts = sum(len(each) for each in (*lists, spec.guided.choice.choices))
    if parts <= MOST_PARTS:
        parts += sum(len(message.tool_calls) for message in spec.messages)
    if parts > MOST_PARTS:
        message = (
            f"The request has {parts} messages, tools, tool calls and stop strings; at most {MOST_PARTS} are allowed."
        )
        raise Rejection(Kind.TOO_LARGE, message, reason="REQUEST_TOO_LARGE", field="messages")


def _message(wire: chat_pb2.ChatMessage, i: int) -> ChatMessage:
    role = _ROLES.get(wire.role)
    if role is None:
        raise invalid(f"messages[{i}].role", f"messages[{i}].role is not set to system, user, assistant or tool.")
    return ChatMessage(
        role=role,
        content=wire.content,
        name=wire.name,
        tool_calls=tuple(ToolCall(call.id, call.name, call.arguments) for call in wire.tool_calls),
        tool_call_id=wire.tool_call_id,
    )


def _sampling(wire: generation_pb2.SamplingParameters) -> Sampling:
    value = _optional(wire)
    return Sampling(
        temperature=value("temperature"),
        top_p=value("top_p"),
        top_k=value("top_k"),
        min_p=value("min_p"),
        frequency_penalty=value("frequency_penalty"),
        presence_penalty=value("presence_penalty"),
        repetition_penalty=value("repetition_penalty"),
        seed=value("seed"),
        num_sequences=value("num_sequences"),
        logit_bias=tuple(wire.logit_bias.items()),
    )


def _stopping(wire: generation_pb2.StoppingParameters) -> Stopping:
    value = _optional(wire)
    return Stopping(
        max_tokens=value("max_tokens"),
        min_tokens=value("min_tokens"),
        stop=tuple(wire.stop),
        stop_token_ids=tuple(wire.stop_token_ids),
        ignore_eos=value("ignore_eos"),
        include_stop_in_output=value("include_stop_in_output"),
    )


def _optional(wire: Message) -> Callable[[str], Any]:
    return lambda name: getattr(wire, name) if wire.HasField(name) else None


def _guide(wire: generation_pb2.GuidedDecoding) -> Guide:
    kind = wire.WhichOneof("guide")
    if kind is None:
        raise invalid("guided", "guided is given without a guide.")
    if kind == "json_object":
        return Guide(kind)
    if kind == "choice":
        return Guide(kind, tuple(wire.choice.choices))
    return Guide(kind, (getattr(wire, kind),))


def _finish(completion: Completion) -> Any:
    return getattr(finish_reason_pb2, f"FINISH_REASON_{completion.finish_reason.name}")


def _guard(completion: Completion) -> pb.GuardReport:
    return pb.GuardReport(
        decision_ids=completion.decision_ids,
        withheld_reason=completion.withheld_reason,
        redacted_input=_counts(completion.redacted_input),
        redacted_output=_counts(completion.redacted_output),
        skipped_filters=completion.skipped_filters,
        budget_limited=completion.budget_limited,
        budget_unchecked=completion.budget_unchecked,
        redaction_policy=completion.redaction_policy,
    )


def _counts(counts: tuple[KindCount, ...]) -> list[personal_data_pb2.KindCount]:
    return [personal_data_pb2.KindCount(kind=found.kind, count=found.count) for found in counts]


def _usage(usage: Usage | None) -> usage_pb2.TokenUsage | None:
    if usage is None:
        return None
    return usage_pb2.TokenUsage(
        uncached_input_tokens=usage.uncached_input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
    )
