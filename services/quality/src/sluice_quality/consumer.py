"""Completions in, judgements out: which answers are judged, and that nobody is judged who should not be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid5

from prometheus_client import Counter
from sluice.events.v1.gateway_pb2 import (
    CONTENT_CAPTURE_REDACTED,
    REQUEST_OPERATION_CHAT,
    REQUEST_OUTCOME_COMPLETED,
    RequestCompleted,
)
from sluice.events.v1.quality_pb2 import AnswerJudged
from sluice.types.v1.usage_pb2 import TokenUsage
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import ResourceExhausted, Unavailable
from sluice_kit.events import UndecodableEvent
from sluice_kit.sealing.keys import KeyStoreUnavailable
from sluice_kit.sealing.text import Place, TextErased, TextReader, TextUnreadable
from sluice_kit.streams.times import event_time

from sluice_quality.adapters.judge_budget import BudgetUnavailable, JudgeBudget
from sluice_quality.adapters.judge_model import Judgement
from sluice_quality.domain import judging

JUDGED = Counter("sluice_quality_judged_answers", "Answers that were judged, by what became of it.", ["result"])
SKIPPED = Counter("sluice_quality_unjudged_answers", "Sampled answers that were not judged, by reason.", ["reason"])
# Fixed for ever: it makes the id of a judgement from that of the completion, so that one that is made again counts once.
_NAMESPACE = UUID("3f0f4a2e-2f0c-5d0b-8f4e-0f6a4f6c9f51")
# More than an embedded broker's restart has read again: 1,000 records of each of four partitions.
MOST_REMEMBERED = 10_000
_Identity = tuple[str, str]


class Judge(Protocol):
    """A model that judges."""

    async def judge(self, question: str, *, tenant_id: str, project_id: str) -> Judgement:
        """Grades, or why there are none."""


class _Unjudged(Exception):
    """A sampled answer is not judged; `reason` is counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(kw_only=True)
class Judging:
    """Fits EventConsumer's `handle_each`. Waits for the key store, and for the outbox once a judgement is made; otherwise an answer
    that cannot be judged now is not judged. What was judged is remembered: only its publishing is tried again."""

    judge: Judge
    budget: JudgeBudget
    publish: Callable[..., Awaitable[None]]
    has_room: Callable[[], bool]
    """Whether the publisher has a place for what is found: without one nothing is spent on it."""
    reader: TextReader | None
    """None where the installation has switched encryption off: then texts stand in clear."""
    rate: float
    rates: Mapping[str, float] = field(default_factory=dict)
    """By tenant; the others have `rate`."""
    longest_age_seconds: float
    """Older answers are not judged: their windows close for good."""
    now: Callable[[], float] = time.time
    _found: dict[_Identity, AnswerJudged | None] = field(default_factory=dict, init=False)
    """What was judged, oldest first: the judgement until it is told, then None."""

    async def handle(self, event: ConsumedEvent) -> None:
        """Judge an answer, if it is one that is judged. Raises Unavailable while the key store or the outbox is away."""
        message: Any = event.message
        if not isinstance(message, RequestCompleted) or not self._is_chosen(message):
            return
        identity = (message.metadata.event_id, message.metadata.request_id)
        if identity not in self._found:
            try:
                self._found[identity] = await self._judged(message, record_time=event.timestamp_ms * 1000)
            except _Unjudged as why:
                SKIPPED.labels(why.reason).inc()
                return
            while len(self._found) > MOST_REMEMBERED:
                del self._found[next(iter(self._found))]
        await self._tell(identity)

    async def _judged(self, message: RequestCompleted, *, record_time: int) -> AnswerJudged:
        self._refuse_what_is_not_judged(message)
        answered_at = self._answered_at(message, record_time)
        texts = await self._texts(message)
        if texts is None:
            raise _Unjudged("erased")
        found = await self._graded(message, *texts)
        found.answered_at.FromMicroseconds(answered_at)
        return found

    def _is_chosen(self, message: RequestCompleted) -> bool:
        metadata = message.metadata
        is_an_answer = (
            message.operation == REQUEST_OPERATION_CHAT
            and message.outcome == REQUEST_OUTCOME_COMPLETED
            and not metadata.synthetic
            and not message.empty_answer
        )
        rate = self.rates.get(metadata.tenant_id, self.rate)
        return is_an_answer and bool(metadata.request_id) and judging.is_sampled(metadata.request_id, rate)

    def _refuse_what_is_not_judged(self, message: RequestCompleted) -> None:
        has_text = message.HasField("redacted_answer") or message.HasField("encrypted_answer")
        if message.content_capture != CONTENT_CAPTURE_REDACTED or message.text_left_out or not has_text:
            raise _Unjudged("no_capture")
        if not self.has_room():
            raise _Unjudged("outbox_full")

    def _answered_at(self, message: RequestCompleted, record_time: int) -> int:
        """In microseconds, as the processor dates the answer."""
        try:
            answered_at = event_time(message.metadata, record_time)
        except UndecodableEvent as error:
            raise _Unjudged(error.reason) from None
        if self.now() - answered_at / 1e6 > self.longest_age_seconds:
            raise _Unjudged("stale")
        return answered_at

    async def _texts(self, message: RequestCompleted) -> tuple[str, str] | None:
        """Question and answer; None where a key is destroyed, or opens nothing here."""
        if message.HasField("redacted_answer"):
            return message.redacted_prompt, message.redacted_answer
        if self.reader is None:
            return None
        try:
            question = await self._open(message, "encrypted_prompt")
            return question, await self._open(message, "encrypted_answer")
        except (TextErased, TextUnreadable):
            return None
        except KeyStoreUnavailable as error:
            raise Unavailable(f"answers cannot be read for judging: {error}") from None

    async def _open(self, message: RequestCompleted, name: str) -> str:
        assert self.reader is not None
        return await asyncio.to_thread(self.reader.open, getattr(message, name), Place.in_event(message, name))

    async def _graded(self, message: RequestCompleted, question: str, answer: str) -> AnswerJudged:
        told, clean = judging.screened(question), judging.screened(answer)
        is_screened = told.left_out + clean.left_out > 0
        if not clean.text or not told.text:
            return answer_judged(message, Judgement({}, failure="nothing_left"), screened=is_screened)
        if judging.is_too_long(told.text, clean.text):
            raise _Unjudged("too_long")
        asked = judging.question_of(told.text, clean.text)
        most = judging.most_tokens(asked)
        try:
            hour = self.budget.reserve(most, now=self.now())
        except BudgetUnavailable:
            raise _Unjudged("budget_unavailable") from None
        if hour is None:
            raise _Unjudged("budget")
        metadata = message.metadata
        found = await self.judge.judge(asked, tenant_id=metadata.tenant_id, project_id=metadata.project_id)
        if found.usage is not None:
            self.budget.settle(hour, reserved=most, used=_tokens(found.usage))
        return answer_judged(message, found, screened=is_screened)

    async def _tell(self, identity: _Identity) -> None:
        """Publish a judgement that is not told yet. Raises Unavailable while it cannot be stored: never a dead letter for that."""
        judgement = self._found[identity]
        if judgement is None:
            return
        try:
            await self.publish(judgement)
        except ResourceExhausted as error:
            raise Unavailable(f"a judgement cannot be told: {error}", reason=error.reason) from None
        self._found[identity] = None
        JUDGED.labels(judgement.failure or "scored").inc()


def _tokens(usage: TokenUsage) -> int:
    used = usage.uncached_input_tokens + usage.cached_input_tokens + usage.cache_write_tokens
    return used + usage.output_tokens + usage.reasoning_tokens


def answer_judged(message: RequestCompleted, found: Judgement, *, screened: bool) -> AnswerJudged:
    """The event, but for when it was answered: numbers and names, never a word of either text."""
    metadata = message.metadata
    event = AnswerJudged(
        source_event_id=metadata.event_id,
        rubric_version=judging.RUBRIC_VERSION,
        judge_model=found.model,
        failure=found.failure,
        screened=screened,
    )
    event.metadata.event_id = str(uuid5(_NAMESPACE, f"{metadata.event_id}/{judging.RUBRIC_VERSION}"))
    event.metadata.request_id = metadata.request_id
    event.metadata.tenant_id, event.metadata.project_id = metadata.tenant_id, metadata.project_id
    event.metadata.traceparent = metadata.traceparent
    event.series.tenant_id, event.series.project_id = metadata.tenant_id, metadata.project_id
    for name in ("model", "route", "prompt_version", "experiment_arm"):
        setattr(event.series, name, getattr(message, name))
    if found.usage is not None:
        event.usage.CopyFrom(found.usage)
    for criterion, score in found.scores.items():
        event.scores.add(criterion=criterion, score=score)
    if found.scores:
        event.score_milli = judging.mean_milli(found.scores)
    return event
