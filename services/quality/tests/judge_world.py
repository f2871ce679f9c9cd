"""A judging worker over a file of its own, with a judge that answers what it is told to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sluice.events.v1.gateway_pb2 import (
    CONTENT_CAPTURE_REDACTED,
    REQUEST_OPERATION_CHAT,
    REQUEST_OUTCOME_COMPLETED,
    RequestCompleted,
)
from sluice.events.v1.quality_pb2 import AnswerJudged
from sluice.types.v1.usage_pb2 import TokenUsage
from sluice_kit.consumer import ConsumedEvent
from sluice_quality.adapters.judge_budget import JudgeBudget
from sluice_quality.adapters.judge_model import Judgement
from sluice_quality.consumer import Judging

NOW = 1_760_000_000.0
QUESTION, ANSWER = "How do I wash a wool coat?", "By hand, in cold water. Use a mild soap."
GOOD = Judgement({"relevance": 5, "completeness": 4, "clarity": 4}, model="judge-1", usage=TokenUsage(output_tokens=30))


@dataclass
class ScriptedJudge:
    """Answers what it is told to, and keeps what it was asked."""

    found: Judgement = GOOD
    asked: list[str] = field(default_factory=list)

    async def judge(self, question: str, *, tenant_id: str, project_id: str) -> Judgement:
        self.asked.append(question)
        return self.found


class World:
    """A judging worker over a file of its own."""

    def __init__(self, folder: Path, *, tokens_per_hour: int = 1_000_000, **changes: Any) -> None:
        self.now, self.judge, self.events = NOW, ScriptedJudge(), list[AnswerJudged]()
        self.has_room, self.refusals = True, list[Exception]()
        self.budget = JudgeBudget(folder / "judge.db", tokens_per_hour=tokens_per_hour)
        settings: dict[str, Any] = {"rate": 1.0, "reader": None, "longest_age_seconds": 1200} | changes
        self.judging = Judging(
            judge=self.judge, budget=self.budget, publish=self.publish, has_room=lambda: self.has_room,
            now=lambda: self.now, **settings,
        )  # fmt: skip

    async def publish(self, *events: Any) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.events.extend(events)

    async def read(self, *messages: RequestCompleted) -> None:
        for offset, message in enumerate(messages):
            await self.judging.handle(
                ConsumedEvent(
                    message=message, topic="t", partition=0, offset=offset, key=b"", headers={}, event_id="",
                    timestamp_ms=int(self.now * 1000),
                )
            )  # fmt: skip


def completed(number: int = 1, *, answer: str | None = ANSWER, **changes: Any) -> RequestCompleted:
    event = RequestCompleted(
        operation=REQUEST_OPERATION_CHAT, outcome=REQUEST_OUTCOME_COMPLETED, model="small", route="small/one",
        content_capture=CONTENT_CAPTURE_REDACTED,
    )  # fmt: skip
    event.metadata.event_id, event.metadata.request_id = f"e{number}", f"r{number}"
    event.metadata.tenant_id, event.metadata.project_id, event.metadata.subject_id = "acme", "lab", "person-1"
    event.metadata.occurred_at.FromMicroseconds(int((NOW - 10) * 1e6))
    if answer is not None:
        event.redacted_prompt, event.redacted_answer = QUESTION, answer
    for name, value in changes.items():
        setattr(event.metadata if hasattr(event.metadata, name) else event, name, value)
    return event
