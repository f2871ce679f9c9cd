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
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import Unavailable
from sluice_kit.sealing.keys import KeyStoreUnavailable
from sluice_kit.sealing.text import Place, TextErased, TextReader, TextUnreadable

from sluice_quality.adapters.judge_budget import JudgeBudget
from sluice_quality.adapters.judge_model import Judgement
from sluice_quality.domain import judging

JUDGED = Counter("sluice_quality_judged_answers", "Answers that were judged, by what became of it.", ["result"])
SKIPPED = Counter("sluice_quality_unjudged_answers", "Sampled answers that were not judged, by reason.", ["reason"])
# Fixed for ever: it makes the id of a judgement from that of the completion, so that one that is made again counts once.
_NAMESPACE = UUID("3f0f4a2e-2f0c-5d0b-8f4e-0f6a4f6c9f51")


class Judge(Protocol):
    """A model that judges."""

    async def judge(self, question: str, *, tenant_id: str, project_id: str) -> Judgement:
        """Grades, or why there are none."""


@dataclass(kw_only=True)
class Judging:
    """Fits EventConsumer's `handle_each`. Waits for nothing but the key store: an answer that cannot be judged now is not judged."""

    judge: Judge
    budget: JudgeBudget
    publish: Callable[..., Awaitable[None]]
    reader: TextReader | None
    """None where the installation has switched encryption off: then texts stand in clear."""
    rate: float
    rates: Mapping[str, float] = field(default_factory=dict)
    """By tenant; the others have `rate`."""
    longest_age_seconds: float = 1200.0
    """Older answers are not judged: their windows close for good."""
    now: Callable[[], float] = time.time

    async def handle(self, event: ConsumedEvent) -> None:
        """Judge an answer, if it is one that is judged. Raises Unavailable while the key store is away."""
        message: Any = event.message
        if not isinstance(message, RequestCompleted) or not self._is_chosen(message):
            return
        reason = self._hindrance(message)
        texts = None if reason else await self._texts(message)
        if texts is None:
            SKIPPED.labels(reason or "erased").inc()
            return
        await self._judge(message, *texts)

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

    def _hindrance(self, message: RequestCompleted) -> str:
        if message.content_capture != CONTENT_CAPTURE_REDACTED or message.text_left_out:
            return "no_capture"
        has_text = message.HasField("redacted_answer") or message.HasField("encrypted_answer")
        if not has_text:
            return "no_capture"
        age = self.now() - message.metadata.occurred_at.ToMicroseconds() / 1e6
        return "stale" if age > self.longest_age_seconds else ""

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

    async def _judge(self, message: RequestCompleted, question: str, answer: str) -> None:
        clean = judging.screened(answer)
        if not clean.text:
            await self._tell(message, Judgement({}, failure="nothing_left"), clean)
            return
        asked = judging.question_of(question, clean.text)
        most = judging.most_tokens(asked)
        hour = self.budget.reserve(most, now=self.now())
        if hour is None:
            SKIPPED.labels("budget").inc()
            return
        metadata = message.metadata
        found = await self.judge.judge(asked, tenant_id=metadata.tenant_id, project_id=metadata.project_id)
        if found.usage is not None:
            usage = found.usage
            used = usage.uncached_input_tokens + usage.cached_input_tokens + usage.cache_write_tokens
            used += usage.output_tokens + usage.reasoning_tokens
            self.budget.settle(hour, reserved=most, used=used)
        await self._tell(message, found, clean)

    async def _tell(self, message: RequestCompleted, found: Judgement, clean: judging.Screened) -> None:
        await self.publish(answer_judged(message, found, screened=clean.left_out > 0))
        JUDGED.labels(found.failure or "scored").inc()


def answer_judged(message: RequestCompleted, found: Judgement, *, screened: bool) -> AnswerJudged:
    """The event: numbers and names, never a word of either text."""
    metadata = message.metadata
    event = AnswerJudged(
        source_event_id=metadata.event_id,
        answered_at=metadata.occurred_at,
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
