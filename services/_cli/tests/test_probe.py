"""`sluice probe`: the table, why a guard is not on, the recall, and the exit code."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from sluice.probe.v1 import probe_service_pb2 as pb
from sluice.probe.v1 import probe_service_pb2_grpc as rpc
from sluice.types.v1 import probe_pb2
from sluice_cli.main import app
from typer.testing import CliRunner

ON, OFF = probe_pb2.GUARD_STATE_GUARDED, probe_pb2.GUARD_STATE_UNGUARDED
AWAY = probe_pb2.GUARD_STATE_UNAVAILABLE


def check(route: str, guard: str, state: Any = ON, reason: str = "", model: str = "m") -> probe_pb2.GuardCheck:
    ids = ["decision-7"] if state == OFF else []
    return probe_pb2.GuardCheck(route=route, guard=guard, model=model, state=state, reason=reason, decision_ids=ids)


def report(*guards: probe_pb2.GuardCheck) -> pb.ProbeReport:
    recall = pb.Recall(kind="PERSON", name_origin="hispanic", sought=40, found=36, recall=0.9, lower=0.77, upper=0.96)
    told = pb.ProbeReport(key_id="self-test", guards=guards, recalls=[recall], moderation_policy="general@4")
    told.ended_at.FromSeconds(1_760_000_040)
    return told


class Probes(rpc.ProbeServiceServicer):
    """Tells what it is given; a round that is asked for is another one."""

    def __init__(self) -> None:
        self.newest: pb.ProbeReport | None = None
        self.run = report(check("grpc_chat", "input_redaction"))

    def GetProbeReport(self, request: pb.GetProbeReportRequest, context: grpc.ServicerContext) -> Any:
        if self.newest is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "No round of self-tests has ended yet; ask RunProbes for one.")
        return pb.GetProbeReportResponse(report=self.newest)

    def RunProbes(self, request: pb.RunProbesRequest, context: grpc.ServicerContext) -> pb.RunProbesResponse:
        return pb.RunProbesResponse(report=self.run)


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Probes]:
    played = Probes()
    server = grpc.server(ThreadPoolExecutor(1))
    rpc.add_ProbeServiceServicer_to_server(played, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("SLUICE_PROBES_TARGET", f"127.0.0.1:{port}")
    yield played
    server.stop(None).wait()


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["probe", *words])
    return result.exit_code, f"{result.output}{result.exception or ''}"


def row(told: str, route: str) -> list[str]:
    return next(line.split() for line in told.splitlines() if line.split()[:1] == [route])


def test_a_round_in_which_every_guard_was_on_is_a_table_and_exit_code_0(probes: Probes) -> None:
    probes.newest = report(*(check(r, g) for r in ("grpc_chat", "http_embed") for g in ("input_redaction",)))
    code, told = run()
    assert code == 0, told
    assert row(told, "http_embed") == ["http_embed", "on"]
    assert row(told, "PERSON") == ["PERSON", "hispanic", "36", "40", "0.90", "0.77", "-", "0.96"]
    assert "key self-test, moderation policy general@4" in told


def test_recall_names_the_redaction_policy_that_it_is_of(probes: Probes) -> None:
    probes.newest = report(check("grpc_chat", "input_redaction"))
    probes.newest.recalls[0].redaction_policy = "default@1"
    assert row(run()[1], "PERSON")[-1] == "default@1"


def test_the_worst_of_a_guards_models_is_shown_with_its_reason_and_evidence(probes: Probes) -> None:
    probes.newest = report(
        check("grpc_chat", "input_moderation"),
        check("grpc_chat", "input_moderation", OFF, "FORBIDDEN_INPUT_PASSED", model="large"),
        check("http_chat", "input_moderation", AWAY, "FILTER_UNAVAILABLE"),
        check("http_chat", "input_redaction"),
    )
    code, told = run()
    assert code == 1
    assert row(told, "grpc_chat")[1:] == ["UNGUARDED", "-"]
    assert row(told, "http_chat")[1:] == ["unavailable", "on"]
    assert "grpc_chat input_moderation large: FORBIDDEN_INPUT_PASSED (decision-7)" in told
    assert "http_chat input_moderation m: FILTER_UNAVAILABLE" in told


def test_models_that_wait_for_their_turn_are_one_line_of_a_route(probes: Probes) -> None:
    later = [check("grpc_chat", "input_moderation", AWAY, "NOT_TRIED_YET", model=f"m{number}") for number in range(30)]
    probes.newest = report(check("grpc_chat", "input_moderation"), *later)
    told = run()[1]
    assert "grpc_chat input_moderation 30 models: NOT_TRIED_YET" in told
    assert told.count("NOT_TRIED_YET") == 1


def test_a_round_can_be_asked_for_before_any_has_ended(probes: Probes) -> None:
    code, told = run()
    assert code != 0
    assert "No round of self-tests has ended yet" in told
    code, told = run("--once")
    assert code == 0, told
    assert row(told, "grpc_chat") == ["grpc_chat", "on"]


def test_a_round_that_tried_nothing_is_no_proof(probes: Probes) -> None:
    probes.newest = pb.ProbeReport()
    assert run()[0] == 1


def test_probes_that_are_away_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_PROBES_TARGET", "127.0.0.1:9")
    code, told = run()
    assert code != 0
    assert "probes, which sends the self-tests, does not answer: see `sluice mesh status`." in told
