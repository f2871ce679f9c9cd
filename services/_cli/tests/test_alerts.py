"""What `sluice alerts` asks, tells and shows."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from sluice.insight.v1 import alert_service_pb2 as pb
from sluice.insight.v1 import alert_service_pb2_grpc as rpc
from sluice.insight.v1 import insight_service_pb2 as insight_pb
from sluice.insight.v1 import insight_service_pb2_grpc as insight_rpc
from sluice_cli.main import app
from typer.testing import CliRunner

from .played_insight import playing

FIRING, RESOLVED = insight_pb.ALERT_STATE_FIRING, insight_pb.ALERT_STATE_RESOLVED


def alert(state: Any = FIRING, **more: Any) -> insight_pb.Alert:
    found = insight_pb.Alert(
        alert_id="quality.failing|tenant_id=acme|2026-11-26T12:00:00Z",
        rule="quality.failing",
        state=state,
        severity="critical",
        summary="It fails\x1b[31m.",  # must not steer the terminal
        causes={"prompt_version=greeting@3": 0.8},
        **more,
    )
    found.since.FromDatetime(datetime(2026, 11, 26, 12, tzinfo=UTC))
    return found


class Insight(rpc.AlertServiceServicer, insight_rpc.InsightServiceServicer):
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.tenants: list[str] = []

    def _note(self, request: Any, context: Any) -> None:
        self.asked.append(request)
        self.tenants.append(dict(context.invocation_metadata()).get("x-sluice-tenant-id", ""))

    def ListAlerts(self, request: Any, context: Any) -> insight_pb.ListAlertsResponse:
        self._note(request, context)
        silenced = alert(silenced_by=["s-1"], acknowledgement=insight_pb.Acknowledgement(by="op-1", reason="INC-3"))
        return insight_pb.ListAlertsResponse(alerts=[silenced], next_page_token="50")

    def WatchAlerts(self, request: Any, context: Any) -> Iterator[pb.WatchAlertsResponse]:
        self._note(request, context)
        yield pb.WatchAlertsResponse(standing=pb.StandingAlerts(alerts=[alert()]))
        yield pb.WatchAlertsResponse(heartbeat=pb.AlertHeartbeat())
        yield pb.WatchAlertsResponse(changed=pb.ChangedAlerts(alerts=[alert(RESOLVED)]))

    def CreateSilence(self, request: Any, context: Any) -> pb.CreateSilenceResponse:
        self._note(request, context)
        if request.rule == "refused":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "ends_at must be at most seven days after starts_at")
        made = pb.Silence(silence_id="s-1", rule=request.rule, state=pb.SILENCE_STATE_ACTIVE, ends_at=request.ends_at)
        return pb.CreateSilenceResponse(silence=made)

    def ExpireSilence(self, request: Any, context: Any) -> pb.ExpireSilenceResponse:
        self._note(request, context)
        return pb.ExpireSilenceResponse(silence=pb.Silence(silence_id="s-1", state=pb.SILENCE_STATE_EXPIRED))

    def ListSilences(self, request: Any, context: Any) -> pb.ListSilencesResponse:
        self._note(request, context)
        held = pb.Silence(silence_id="s-1", labels={"tenant_id": "acme"}, state=pb.SILENCE_STATE_ACTIVE, reason="OPS-7")
        return pb.ListSilencesResponse(silences=[held])

    def AcknowledgeAlert(self, request: Any, context: Any) -> pb.AcknowledgeAlertResponse:
        self._note(request, context)
        taken = insight_pb.Acknowledgement(by=request.acknowledged_by)
        return pb.AcknowledgeAlertResponse(alert=alert(acknowledgement=taken))


@pytest.fixture
def insight(monkeypatch: pytest.MonkeyPatch) -> Iterator[Insight]:
    with playing(
        monkeypatch, Insight(), rpc.add_AlertServiceServicer_to_server, insight_rpc.add_InsightServiceServicer_to_server
    ) as played:
        yield played


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["alerts", *words])
    return result.exit_code, f"{result.output}{result.exception or ''}"


def test_alerts_are_listed_with_what_was_done_about_them_and_the_id_that_ack_takes(insight: Insight) -> None:
    code, told = run("--state", "firing", "--rule", "quality.failing", "--tenant", "acme", "--limit", "7")
    assert code == 0
    for part in (
        "firing critical quality.failing since 2026-11-26 12:00:00Z",
        "greeting@3: 80%",
        "silenced by s-1",
        "--page 50",
    ):
        assert part in told
    assert "taken on by op-1 (INC-3)" in told
    assert "quality.failing|tenant_id=acme|2026-11-26T12:00:00Z" in told
    assert "\x1b" not in told
    [asked] = insight.asked
    assert (list(asked.states), asked.rule, asked.page_size, insight.tenants) == (
        [FIRING],
        "quality.failing",
        7,
        ["acme"],
    )


def test_a_watch_shows_what_stands_and_what_changes(insight: Insight) -> None:
    code, told = run("--watch")
    assert code == 0
    assert told.index("firing critical") < told.index("Watching") < told.index("resolved critical")
    code, told = run("--watch", "--json")
    assert [json.loads(line)["state"] for line in told.splitlines()] == ["ALERT_STATE_FIRING", "ALERT_STATE_RESOLVED"]


def test_a_silence_ends_after_what_was_said_and_carries_who_and_why(insight: Insight) -> None:
    before = datetime.now(UTC)
    code, told = run(
        "silence",
        "quality.failing",
        "--for",
        "90m",
        "--label",
        "tenant_id=acme",
        "--label",
        "model=",
        "--reason",
        "OPS-7",
        "--by",
        "op-1",
    )
    assert (code, told.startswith("s-1: holds, until ")) == (0, True)
    [asked] = insight.asked
    assert (asked.rule, dict(asked.labels), asked.set_by, asked.reason) == (
        "quality.failing",
        {"tenant_id": "acme", "model": ""},
        "op-1",
        "OPS-7",
    )
    ends = asked.ends_at.ToDatetime(tzinfo=UTC)
    assert before + timedelta(minutes=90) <= ends <= datetime.now(UTC) + timedelta(minutes=90)


def test_silences_are_listed_and_ended_and_an_alert_is_taken_on_by_the_number_of_the_user(insight: Insight) -> None:
    code, told = run("silences")
    assert code == 0
    for part in ("s-1", "holds", "every", "tenant_id=acme", "OPS-7"):
        assert part in told
    assert run("expire", "s-1", "--by", "op-2")[0] == 0
    code, told = run("ack", "a1")
    assert code == 0
    assert "taken on by operator:" in told
    _, ended, taken = insight.asked
    assert (ended.silence_id, ended.expired_by) == ("s-1", "op-2")
    assert (taken.alert_id, taken.acknowledged_by.partition(":")[0]) == ("a1", "operator")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("silence", "r", "--for", "soon", "--reason", "x"), "--for 'soon' is no time"),
        (("silence", "r", "--for", "0h", "--reason", "x"), "--for '0h' is no time"),
        (("silence", "r"), "Say why"),
        (("silence", "r", "--label", "tenant_id", "--reason", "x"), "must be name=value"),
        (("silence", "refused", "--for", "9d", "--reason", "x"), "at most seven days"),
        (("--state", "odd"), "there are pending, firing, resolved"),
    ],
)
def test_mistakes_say_what_to_write(insight: Insight, words: tuple[str, ...], said: str) -> None:
    code, told = run(*words)
    assert code != 0
    assert said in told


def test_nobody_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_INSIGHT_TARGET", "127.0.0.1:9")
    code, told = run()
    assert code != 0
    assert "insight, which judges the rules, does not answer" in told
