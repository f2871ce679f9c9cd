"""What `sluice requests` asks and shows."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from sluice.events.v1 import gateway_pb2
from sluice.insight.v1 import request_service_pb2 as pb
from sluice.insight.v1 import request_service_pb2_grpc as rpc
from sluice.types.v1 import money_pb2, verdict_pb2
from sluice_cli.main import app
from sluice_cli.requests import commands, showing
from sluice_cli.requests.timeline import Step, steps
from typer.testing import CliRunner

from .played_insight import playing

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def story() -> pb.GetRequestResponse:
    told = pb.GetRequestResponse()

    def described(event: Any, seconds: float) -> None:
        event.metadata.request_id, event.metadata.tenant_id = "r1", "acme"
        event.metadata.occurred_at.FromDatetime(NOON + timedelta(seconds=seconds))

    told.completed.outcome = gateway_pb2.REQUEST_OUTCOME_BLOCKED_INPUT
    told.completed.model = "small\x1b[31m"  # a name is the caller's: it must not steer the terminal
    told.completed.latency.FromMilliseconds(100)
    described(told.completed, 0)
    decision = told.decisions.add(direction=verdict_pb2.DIRECTION_INPUT)
    decision.verdict.action = verdict_pb2.ACTION_BLOCK
    decision.verdict.scores.add(category="prompt_injection", score=0.97, threshold=0.9)
    decision.verdict.scores.add(category="toxicity", score=0.1, threshold=0.9)
    decision.latency.FromMilliseconds(20)
    described(decision, -0.05)
    row = told.costs.add(charge_kind="inference", amount=money_pb2.Money(currency_code="USD", nano_units=1_500))
    described(row, 2)
    return told


class Insight(rpc.RequestServiceServicer):
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.tenants: list[str] = []
        self.request_id = "r1"

    def ListRequests(self, request: Any, context: Any) -> pb.ListRequestsResponse:
        self.asked.append(request)
        self.tenants.append(dict(context.invocation_metadata()).get("x-sluice-tenant-id", ""))
        line = pb.RequestSummary(
            request_id=self.request_id,
            tenant_id="acme",
            outcome=gateway_pb2.REQUEST_OUTCOME_COMPLETED,
            verdicts=[verdict_pb2.ACTION_FLAG],
            categories=["toxicity"],
        )
        return pb.ListRequestsResponse(requests=[line], next_page_token="1|acme|r1")

    def GetRequest(self, request: Any, context: Any) -> pb.GetRequestResponse:
        if request.request_id != "r1":
            context.abort(grpc.StatusCode.NOT_FOUND, "nothing is known of this request")
        return story()


@pytest.fixture
def insight(monkeypatch: pytest.MonkeyPatch) -> Iterator[Insight]:
    with playing(monkeypatch, Insight(), rpc.add_RequestServiceServicer_to_server) as played:
        yield played


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["requests", *words])
    return result.exit_code, f"{result.output}{result.exception or ''}"


def test_the_conditions_are_asked_as_they_were_given(insight: Insight) -> None:
    code, told = run(
        "--outcome",
        "blocked",
        "--model",
        "small",
        "--from",
        "2026-11-24",
        "--min-seconds",
        "1.5",
        "--tenant",
        "acme",
        "--feedback",
    )
    assert code == 0, told
    (asked,) = insight.asked
    assert list(asked.outcomes) == [
        gateway_pb2.REQUEST_OUTCOME_BLOCKED_INPUT,
        gateway_pb2.REQUEST_OUTCOME_BLOCKED_OUTPUT,
    ]
    assert (asked.model, asked.with_feedback, asked.min_latency.ToMilliseconds()) == ("small", True, 1500)
    assert asked.start_time.ToDatetime(tzinfo=UTC) == datetime(2026, 11, 24, tzinfo=UTC)
    assert insight.tenants == ["acme"]
    assert "--page '1|acme|r1'" in told


def test_requests_are_asked_for_by_verdict_and_category_and_listed_with_them(
    insight: Insight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.console, "width", 200)
    code, told = run("--verdict", "flag", "--category", "toxicity")
    assert code == 0, told
    (asked,) = insight.asked
    assert (asked.verdict, asked.category, asked.blocked_category) == (verdict_pb2.ACTION_FLAG, "toxicity", "")
    assert re.search(r"completed\W+flag\W+toxicity", told)


def test_an_id_is_on_one_line_however_much_stands_beside_it(insight: Insight, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.console, "width", 100)
    insight.request_id = "chatcmpl-" + "0123456789abcdef" * 2
    assert insight.request_id in run()[1]


def test_a_story_tells_steps_evidence_and_cost_and_its_names_do_not_steer_the_terminal(insight: Insight) -> None:
    code, told = run("r1")
    assert code == 0, told
    for part in ("blocked_input", "prompt_injection 0.970 reached 0.900", "0.0000015 USD", "+30 ms"):
        assert part in told
    assert "toxicity" not in told
    assert "\x1b[31m" not in told


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("nobody",), "nothing is known of this request"),
        (("--outcome", "odd"), "--outcome 'odd' is not known"),
        (("--verdict", "odd"), "--verdict 'odd' is not known: there are allow, flag, "),
        (("--from", "yesterday"), "'yesterday' is no time"),
        (("r1", "--model", "small"), "leave out the other conditions"),
    ],
)
def test_what_cannot_be_asked_is_an_error_in_words(insight: Insight, words: tuple[str, ...], problem: str) -> None:
    code, told = run(*words)
    assert code != 0
    assert problem in told


def test_an_insight_that_is_away_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_INSIGHT_TARGET", "127.0.0.1:9")
    code, told = run()
    assert code != 0
    assert "does not answer" in told


def test_steps_are_in_the_order_of_their_beginnings_the_whole_first() -> None:
    assert [step.name for step in steps(story())] == ["request", "moderate input", "cost"]


@pytest.mark.parametrize(
    ("step", "drawn"),
    [
        (Step("a", 100, 100, ""), "█" * 24),
        (Step("a", 50, 50, ""), "█" * 12),
        (Step("a", 100, 1, ""), " " * 23 + "█"),
        (Step("a", 50, None, ""), " " * 12 + "·"),
        (Step("a", 150, None, "", is_afterwards=True), ""),
    ],
)
def test_bars_stand_where_the_step_was(step: Step, drawn: str) -> None:
    assert showing.bar(step, 0, 100).plain == drawn
