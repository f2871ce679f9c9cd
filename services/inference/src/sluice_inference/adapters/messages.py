"""The parts of messages that events and answers share, and the events themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from google.protobuf.duration_pb2 import Duration
from sluice.events.v1 import inference_pb2, metadata_pb2
from sluice.types.v1 import finish_reason_pb2, text_profile_pb2, usage_pb2
from sluice_kit.context import RequestContext

from sluice_inference.domain.backend import ModelFacts
from sluice_inference.domain.generation import FinishReason, Usage
from sluice_inference.domain.measurement import Measurement
from sluice_inference.domain.profiles import TextProfile

FINISH_REASONS = {
    FinishReason.STOP: finish_reason_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: finish_reason_pb2.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: finish_reason_pb2.FINISH_REASON_CANCELLED,
    FinishReason.TIMEOUT: finish_reason_pb2.FINISH_REASON_TIMEOUT,
    FinishReason.CONTENT_FILTER: finish_reason_pb2.FINISH_REASON_CONTENT_FILTER,
    FinishReason.TOOL_CALLS: finish_reason_pb2.FINISH_REASON_TOOL_CALLS,
    FinishReason.ERROR: finish_reason_pb2.FINISH_REASON_ERROR,
}

# Labels of a request that its measurement passes on: what a change of the texts may be explained by.
TOLD_LABELS = ("route", "prompt_version", "experiment_arm")
LONGEST_LABEL = 200
OTHER_TOOL = "(other)"


def mean_token_seconds(measurement: Measurement) -> float | None:
    times = measurement.token_seconds
    return sum(times) / len(times) if times else None


def duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def usage_message(usage: Usage) -> usage_pb2.TokenUsage:
    return usage_pb2.TokenUsage(
        uncached_input_tokens=usage.uncached_input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        estimated=usage.estimated,
    )


def profile_message(profile: TextProfile) -> text_profile_pb2.TextProfile:
    return text_profile_pb2.TextProfile(
        language=profile.language,
        characters=profile.characters,
        words=profile.words,
        embedding=profile.embedding,
        embedding_model_digest=profile.embedding_model_digest,
        profiled_words=profile.profiled_words,
        pieces=profile.pieces,
        distinct_words=profile.distinct_words,
    )


def loaded_event(model: ModelFacts, load_seconds: float) -> inference_pb2.ModelLoaded:
    return inference_pb2.ModelLoaded(
        model=model.model_id,
        backend=model.backend,
        digest=model.digest,
        quant_algo=model.quant_algo,
        load_time=duration(load_seconds),
        max_context_tokens=model.max_context_tokens,
    )


def called_tools(names: Iterable[str], told: Collection[str]) -> list[str]:
    """Each once. A tool's name is the caller's text, so only those that the operator listed are told."""
    return list(dict.fromkeys(name if name in told else OTHER_TOOL for name in names))


def measured_event(
    measurement: Measurement,
    model: ModelFacts,
    *,
    prompt: TextProfile,
    answer: TextProfile,
    context: RequestContext,
    told_tools: Collection[str] = (),
) -> inference_pb2.InferenceMeasured:
    """The event; carries numbers and profiles, never text."""
    timings, mean = measurement.timings, mean_token_seconds(measurement)
    labels = dict(measurement.generation.labels)
    first = timings.time_to_first_token_seconds
    return inference_pb2.InferenceMeasured(
        metadata=metadata_pb2.EventMetadata(
            request_id=context.request_id or measurement.generation.request_id,
            tenant_id=context.tenant_id,
            project_id=context.project_id,
            subject_id=context.subject_id,
            traceparent=context.traceparent,
            synthetic=context.synthetic,
        ),
        model=model.model_id,
        backend=model.backend,
        model_digest=model.digest,
        usage=usage_message(measurement.usage),
        finish_reason=FINISH_REASONS[measurement.reason],
        queue_time=duration(timings.queue_seconds),
        prefill_time=duration(timings.prefill_seconds),
        time_to_first_token=None if first is None else duration(first),
        time_per_output_token=None if mean is None else duration(mean),
        total_time=duration(timings.total_seconds),
        mean_batch_occupancy=measurement.share.mean_occupancy,
        cpu_seconds=measurement.share.cpu_seconds,
        accelerator_seconds=measurement.share.accelerator_seconds,
        prompt_profile=profile_message(prompt),
        answer_profile=profile_message(answer),
        aborted=measurement.reason is FinishReason.CANCELLED,
        called_tools=called_tools(measurement.called_tools, told_tools),
        **{name: labels.get(name, "")[:LONGEST_LABEL] for name in TOLD_LABELS},
    )
