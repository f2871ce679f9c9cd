"""Domain values to messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2
from sluice.inference.v1 import inference_service_pb2 as pb
from sluice.types.v1 import generation_pb2

from sluice_inference.adapters.messages import FINISH_REASONS, duration, usage_message
from sluice_inference.domain.backend import Capabilities, ModelFacts
from sluice_inference.domain.generation import (
    Delta,
    Failed,
    Finished,
    GenerationEvent,
    Sampling,
    Started,
    StopMatch,
    Timings,
    TokenLogprob,
)


def stream_event(
    event: GenerationEvent, *, request_id: str, model: ModelFacts, accepted_at: Timestamp, ids: bool, logprobs: bool
) -> pb.GenerateStreamResponse:
    """One message of a stream; token ids and log probabilities only where they were asked for."""
    match event:
        case Started():
            started = pb.GenerationStarted(model=model.model_id, backend=model.backend, accepted_at=accepted_at)
            return pb.GenerateStreamResponse(request_id=request_id, started=started)
        case Delta(text, count, token_ids, probabilities):
            token = pb.TokenDelta(
                text=text,
                token_count=count,
                token_ids=token_ids if ids else (),
                logprobs=[logprob_message(p) for p in probabilities] if logprobs else (),
            )
            return pb.GenerateStreamResponse(request_id=request_id, token=token)
        case Finished():
            return pb.GenerateStreamResponse(request_id=request_id, finished=finished_message(event))
        case Failed(message, retryable, usage, _):
            code = code_pb2.UNAVAILABLE if retryable else code_pb2.INTERNAL
            error = pb.GenerationError(code=code, message=message, retryable=retryable, usage=usage_message(usage))
            return pb.GenerateStreamResponse(request_id=request_id, error=error)


def finished_message(event: Finished) -> pb.GenerationFinished:
    output = pb.OutputFinished(finish_reason=FINISH_REASONS[event.reason], stop_match=match_message(event.match))
    return pb.GenerationFinished(
        outputs=[output], usage=usage_message(event.usage), timings=timings_message(event.timings)
    )


def whole_answer(
    deltas: list[Delta], end: Finished, *, request_id: str, model_id: str, ids: bool, logprobs: bool
) -> pb.GenerateResponse:
    output = pb.GenerationOutput(
        text="".join(delta.text for delta in deltas),
        token_ids=[i for delta in deltas for i in delta.token_ids] if ids else (),
        finish_reason=FINISH_REASONS[end.reason],
        stop_match=match_message(end.match),
        logprobs=[logprob_message(p) for delta in deltas for p in delta.logprobs] if logprobs else (),
    )
    return pb.GenerateResponse(
        request_id=request_id,
        model=model_id,
        outputs=[output],
        usage=usage_message(end.usage),
        timings=timings_message(end.timings),
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


def logprob_message(logprob: TokenLogprob) -> pb.TokenLogprob:
    return pb.TokenLogprob(
        token_id=logprob.token_id,
        text=logprob.text,
        logprob=logprob.logprob,
        alternatives=[logprob_message(other) for other in logprob.alternatives],
    )


def model_message(model: ModelFacts, *, ready: bool) -> pb.ModelInfo:
    return pb.ModelInfo(
        model_id=model.model_id,
        aliases=model.aliases,
        backend=model.backend,
        max_context_tokens=model.max_context_tokens,
        max_output_tokens=model.max_output_tokens,
        digest=model.digest,
        license=model.license,
        parameter_count=model.parameter_count,
        quantization=pb.Quantization(
            quant_algo=model.quant_algo,
            kv_cache_quant_algo=model.kv_cache_quant_algo,
            group_size=model.quant_group_size,
        ),
        capabilities=capabilities_message(model.capabilities),
        ready=ready,
        default_sampling=sampling_message(model.default_sampling),
    )


def capabilities_message(able: Capabilities) -> pb.ModelCapabilities:
    names = [field.name for field in pb.ModelCapabilities.DESCRIPTOR.fields]
    return pb.ModelCapabilities(**{name: getattr(able, name) for name in names if getattr(able, name) is not None})


def sampling_message(sampling: Sampling) -> generation_pb2.SamplingParameters:
    names = ("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
    given = {name: value for name in names if (value := getattr(sampling, name)) is not None}
    return generation_pb2.SamplingParameters(**given)
