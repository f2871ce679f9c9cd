"""InferenceMeasured and RequestCompleted to observations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b

from google.protobuf.message import Message
from sluice.events.v1.gateway_pb2 import RequestCompleted, RequestOutcome
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice.types.v1.finish_reason_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_TOOL_CALLS,
    FinishReason,
)
from sluice.types.v1.text_profile_pb2 import TextProfile
from sluice_kit.streams.times import event_time

from sluice_drift.domain import vocabulary
from sluice_drift.domain.observation import Observation, Profile, Series, pack_embedding

REQUESTS_FROM = 1_000
"""Source partitions of RequestCompleted are counted from here, so that the offsets of the two topics stay apart."""
NONE = "(none)"
"""The slice of what has no value."""
SEVERAL_TOOLS = "(several)"
LONGEST_SLICE = 200
"""Bytes of UTF-8: a reference keeps hundreds of them in one record."""
_OUTCOMES = {
    RequestOutcome.REQUEST_OUTCOME_BLOCKED_INPUT: "blocked_input",
    RequestOutcome.REQUEST_OUTCOME_BLOCKED_OUTPUT: "blocked_output",
    RequestOutcome.REQUEST_OUTCOME_FAILED: "failed",
    RequestOutcome.REQUEST_OUTCOME_DEADLINE_EXCEEDED: "failed",
}


def observations_of(event: Message, *, partition: int, offset: int, record_time: int) -> list[Observation]:
    """What is observed: once in its tenant's series, once in that of all tenants; nothing of self-test probes.

    record_time in microseconds. Raises UndecodableEvent for a time that cannot be.
    """
    found: Observation | None
    if event.metadata.synthetic:  # type: ignore[attr-defined]  # every event has metadata
        return []
    if isinstance(event, InferenceMeasured):
        found = _generation(event, partition, offset, record_time)
    elif isinstance(event, RequestCompleted):
        found = _request(event, partition, offset, record_time)
    else:
        return []
    if found is None:
        return []
    everybody = Series("", found.series.model)
    if found.series == everybody:
        return [found]
    tenant = (("tenant", event.metadata.tenant_id),)
    return [found, replace(found, series=everybody, slices=(*tenant, *found.slices))]


def _generation(event: InferenceMeasured, partition: int, offset: int, record_time: int) -> Observation:
    metadata = event.metadata
    prompt = event.prompt_profile if event.HasField("prompt_profile") else None
    answer = event.answer_profile if event.HasField("answer_profile") else None
    told = _profile(answer)
    return Observation(
        source_partition=partition,
        offset=offset,
        at=event_time(metadata, record_time),
        series=Series(metadata.tenant_id, event.model),
        prompt=_profile(prompt),
        answer=told and told.told("tools", _tools(event)),
        embedding_model=next((p.embedding_model_digest for p in (prompt, answer) if p is not None), ""),
        mark=_mark(metadata.event_id),
        slices=_slices(event, event.model_digest),
    )


def _request(event: RequestCompleted, partition: int, offset: int, record_time: int) -> Observation | None:
    """How it ended; None for what says nothing of model and filters. Under the alias where no model was reached."""
    outcome = _outcome(event)
    if not outcome:
        return None
    return Observation(
        source_partition=REQUESTS_FROM + partition,
        offset=offset,
        at=event_time(event.metadata, record_time),
        series=Series(event.metadata.tenant_id, event.served_model or event.model),
        request=Profile("", 0).told("outcome", outcome),
        mark=_mark(event.metadata.event_id),
        slices=_slices(event, ""),
    )


def _outcome(event: RequestCompleted) -> str:
    if event.outcome != RequestOutcome.REQUEST_OUTCOME_COMPLETED:
        return _OUTCOMES.get(event.outcome, "")
    if not event.HasField("refusal"):
        return ""  # not judged: an embedding, or an older gateway
    if event.empty_answer:
        return "empty"
    return "refused" if event.refusal else "answered"


def _tools(event: InferenceMeasured) -> str:
    """Whether the answer called tools, and which, where the operator lets it be told."""
    if event.finish_reason == FINISH_REASON_TOOL_CALLS or event.called_tools:
        names = list(event.called_tools) or ["(other)"]
        return names[0] if len(names) == 1 else SEVERAL_TOOLS
    return NONE if event.finish_reason in (FINISH_REASON_STOP, FINISH_REASON_LENGTH) else ""


def _slices(event: InferenceMeasured | RequestCompleted, model_digest: str) -> tuple[tuple[str, str], ...]:
    finish = FinishReason.Name(event.finish_reason) if event.finish_reason in FinishReason.values() else ""
    values = (
        ("project", event.metadata.project_id),
        ("model_digest", model_digest),
        ("prompt_version", event.prompt_version),
        ("route", event.route),
        ("experiment_arm", event.experiment_arm),
        ("finish_reason", finish.removeprefix("FINISH_REASON_").lower()),
    )
    return tuple((name, _shortened(value) or NONE) for name, value in values)


def _shortened(value: str) -> str:
    """The beginning, in whole characters."""
    return value.encode()[:LONGEST_SLICE].decode(errors="ignore")


def _mark(event_id: str) -> int:
    """63 bits that stand for an event id (MessagePack and the changelog hold them as a number)."""
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "big") >> 1


def _profile(profile: TextProfile | None) -> Profile | None:
    if profile is None:
        return None
    return Profile(
        profile.language, profile.words, pack_embedding(list(profile.embedding)), tuple(_vocabulary(profile))
    )


def _vocabulary(profile: TextProfile) -> Iterable[tuple[str, str]]:
    words = profile.profiled_words
    if words:
        yield "vocabulary", vocabulary.rarity_bin(profile.pieces, words)
    if words >= vocabulary.FEWEST_WORDS:
        yield "variety", vocabulary.variety_bin(profile.distinct_words, words)
