"""Domain values to messages."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.types.v1 import chat_pb2, generation_pb2

from sluice_inference.adapters.messages import FINISH_REASONS, duration, usage_message
from sluice_inference.domain.backend import Capabilities, ModelFacts
from sluice_inference.domain.generation import (
    Delta,
    Failed,
    Finished,
    GenerationEvent,
    OutputEnd,
    Sampling,
    Started,
    StopMatch,
    Timings,
    TokenLogprob,
)
from sluice_inference.domain.roster import Load, ModelState
from sluice_inference.domain.tools import join_pieces


def stream_event(
    event: GenerationEvent,
    *,
    request_id: str,
    model: ModelFacts,
    accepted_at: Timestamp,
    ids: bool,
    logprobs: int | None,
) -> pb.GenerateStreamResponse:
    """One message of a stream; token ids and log probabilities only where they were asked for."""
    match event:
        case Started():
            started = pb.GenerationStarted(model=model.model_id, backend=model.backend, accepted_at=accepted_at)
            return pb.GenerateStreamResponse(request_id=request_id, started=started)
        case Delta(text, count, token_ids, probabilities, index, calls):
            token = pb.TokenDelta(
                output_index=index,
                text=text,
                token_count=count,
                token_ids=token_ids if ids else (),
                logprobs=logprob_messages(probabilities, alternatives=logprobs),
                tool_calls=[
                    pb.ToolCallDelta(call_index=call.index, id=call.id, name=call.name, arguments=call.arguments)
                    for call in calls
                ],
            )
            return pb.GenerateStreamResponse(request_id=request_id, token=token)
        case Finished():
            return pb.GenerateStreamResponse(request_id=request_id, finished=finished_message(event))
        case Failed(message, retryable, usage, _):
            code = code_pb2.UNAVAILABLE if retryable else code_pb2.INTERNAL
            error = pb.GenerationError(code=code, message=message, retryable=retryable, usage=usage_message(usage))
            return pb.GenerateStreamResponse(request_id=request_id, error=error)


def finished_message(event: Finished) -> pb.GenerationFinished:
    return pb.GenerationFinished(
        outputs=[
            pb.OutputFinished(
                output_index=output.index,
                finish_reason=FINISH_REASONS[output.reason],
                stop_match=match_message(output.match),
            )
            for output in event.outputs
        ],
        usage=usage_message(event.usage),
        timings=timings_message(event.timings),
    )


def whole_answer(
    deltas: list[Delta], end: Finished, *, request_id: str, model_id: str, ids: bool, logprobs: int | None
) -> pb.GenerateResponse:
    return pb.GenerateResponse(
        request_id=request_id,
        model=model_id,
        outputs=[_whole_output(deltas, output, ids=ids, logprobs=logprobs) for output in end.outputs],
        usage=usage_message(end.usage),
        timings=timings_message(end.timings),
    )


def _whole_output(deltas: list[Delta], end: OutputEnd, *, ids: bool, logprobs: int | None) -> pb.GenerationOutput:
    own = [delta for delta in deltas if delta.output_index == end.index]
    return pb.GenerationOutput(
        output_index=end.index,
        text="".join(delta.text for delta in own),
        token_ids=[i for delta in own for i in delta.token_ids] if ids else (),
        finish_reason=FINISH_REASONS[end.reason],
        stop_match=match_message(end.match),
        logprobs=logprob_messages([p for delta in own for p in delta.logprobs], alternatives=logprobs),
        tool_calls=[
            chat_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments)
            for call in join_pieces(piece for delta in own for piece in delta.tool_calls)
        ],
    )


def match_message(match: StopMatch) -> generation_pb2.StopMatch | None:
    if match.stop_text is not None:
        return generation_pb2.StopMatch(stop_text=match.stop_text)
    if match.stop_token_id is not None:
        return generation_pb2.StopMatch(stop_token_id=match.stop_token_id)
    if match.eos_token_id is not None:
        return generation_pb2.StopMatch(eos_token_id=match.eos_token_id)
    return None


def timings_message(timings: Timings) -> pb.GenerationTimings:
    first = timings.time_to_first_token_seconds
    return pb.GenerationTimings(
        queue=duration(timings.queue_seconds),
        prefill=duration(timings.prefill_seconds),
        time_to_first_token=None if first is None else duration(first),
        total=duration(timings.total_seconds),
    )


def logprob_messages(logprobs: Sequence[TokenLogprob], *, alternatives: int | None) -> list[pb.TokenLogprob]:
    """None where none were asked for; engines may give more alternatives than that."""
    return [] if alternatives is None else [_logprob_message(logprob, alternatives) for logprob in logprobs]


def _logprob_message(logprob: TokenLogprob, alternatives: int) -> pb.TokenLogprob:
    return pb.TokenLogprob(
        token_id=logprob.token_id,
        text=logprob.text,
        logprob=logprob.logprob,
        alternatives=[_logprob_message(other, 0) for other in logprob.alternatives[:alternatives]],
    )


_STATES = {state: getattr(pb, f"MODEL_STATE_{state.name}") for state in ModelState}


def model_message(model: ModelFacts, *, state: ModelState) -> pb.ModelInfo:
    return pb.ModelInfo(
        model_id=model.model_id,
        aliases=model.aliases,
        backend=model.backend,
        max_context_tokens=model.max_context_tokens,
        max_output_tokens=model.max_output_tokens,
        digest=model.digest,
        digest_covers=model.digest_covers,
        architecture=model.architecture,
        license=model.license,
        parameter_count=model.parameter_count,
        quantization=pb.Quantization(
            quant_algo=model.quant_algo,
            kv_cache_quant_algo=model.kv_cache_quant_algo,
            group_size=model.quant_group_size,
        ),
        capabilities=capabilities_message(model.capabilities),
        ready=state is ModelState.READY,
        state=_STATES[state],
        version=model.version,
        lora_names=model.loras,
        default_sampling=sampling_message(model.default_sampling),
    )


def load_message(load: Load) -> pb.ModelLoad:
    return pb.ModelLoad(
        model=load.model_id,
        ready=load.ready,
        running_requests=load.running,
        queued_requests=load.queued,
        slots=load.slots,
        queue_limit=load.queue_limit,
        used_kv_tokens=load.used_kv_tokens,
        total_kv_tokens=load.total_kv_tokens,
        expected_wait=duration(load.expected_wait_seconds),
    )


def capabilities_message(able: Capabilities) -> pb.ModelCapabilities:
    names = [field.name for field in pb.ModelCapabilities.DESCRIPTOR.fields]
    return pb.ModelCapabilities(**{name: getattr(able, name) for name in names if getattr(able, name) is not None})


def sampling_message(sampling: Sampling) -> generation_pb2.SamplingParameters:
    names = ("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
    given = {name: value for name in names if (value := getattr(sampling, name)) is not None}
    return generation_pb2.SamplingParameters(**given)
