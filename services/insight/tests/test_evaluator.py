"""What the evaluator says of how far it has judged, and to whom."""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf.message import Message
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice_insight.adapters.alerting.evaluator import CaughtUp, Evaluator
from sluice_insight.adapters.alerting.log import AlertLog
from sluice_insight.adapters.sources import Sources
from sluice_insight.domain.alerting.rules import Rule, Threshold
from sluice_insight.domain.board import MINUTE, Board
from sluice_insight.domain.part import Part, Series, Totals

BEGIN = 1_760_000_040 * 1_000_000
RULE = Rule(
    name="r", metric="quality.failed_ratio", group_by=("tenant_id",), severity="warning", summary="$value", condition=Threshold(above=0.5)
)  # fmt: skip


@dataclass
class Mesh:
    """A board of ten minutes in which everything fails, and what is published about it."""

    board: Board = field(default_factory=lambda: Board(history=24 * 60 * MINUTE))
    published: list[AlertRaised] = field(default_factory=list)
    waiting: int = 0

    async def publish(self, *events: Message) -> None:
        for event in events:
            assert isinstance(event, AlertRaised)
            event.metadata.producer = "sluice-insight/0"
            self.published.append(event)

    async def ends(self) -> dict[tuple[str, int], int]:
        return {}

    def fail(self, minute: int) -> None:
        totals = Totals()
        totals.counts |= {"requests.requests": 10, "requests.failed": 9}
        start = BEGIN + minute * MINUTE
        part = Part(
            key=f"quality|{minute}", family="quality", series=Series(tenant_id="acme"), start=start, length=MINUTE, partition=0,
            revision=1, closed=True, complete_up_to=start + MINUTE, totals=totals,
        )  # fmt: skip
        self.board.put(part, now=start)

    def evaluator(self, log: AlertLog) -> Evaluator:
        return Evaluator(
            board=self.board, sources=Sources(), rules=lambda: [RULE], publish=self.publish, waiting=lambda: self.waiting,
            caught_up=CaughtUp(ends=self.ends, positions=dict), tell=log.take, now=lambda: (BEGIN + 10 * MINUTE) / 1e6,
        )  # fmt: skip


async def test_a_minute_counts_as_judged_when_those_who_ask_are_answered_with_what_was_found() -> None:
    mesh, log = Mesh(), AlertLog()
    judge, told = mesh.evaluator(log), AlertLog()
    mesh.fail(8)
    mesh.waiting = 1
    await judge.evaluate(told)
    assert judge.judged_up_to == 0, "what was said last is still on its way"
    mesh.waiting = 0
    await judge.evaluate(told)
    assert judge.judged_up_to == BEGIN + 9 * MINUTE
    assert [one.event.state for one in log.told()] == ["firing"]
    assert mesh.published == [one.event for one in log.told()]


async def test_who_takes_over_answers_with_what_was_said_before() -> None:
    mesh, told, log = Mesh(), AlertLog(), AlertLog()
    mesh.fail(8)
    await mesh.evaluator(AlertLog()).evaluate(AlertLog())
    for event in mesh.published:
        told.take(event)
    await mesh.evaluator(log).evaluate(told)
    assert [one.alert_id for one in log.told()] == [one.alert_id for one in told.told()] != []
