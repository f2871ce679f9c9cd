"""The self-tests on a real mesh: they count nowhere, their values are kept nowhere, and an unguarded answer is told of within a minute."""

import asyncio
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from sluice.cost.v1 import cost_service_pb2, cost_service_pb2_grpc
from sluice.feedback.v1 import feedback_service_pb2, feedback_service_pb2_grpc
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.insight.v1 import (
    comparison_service_pb2,
    comparison_service_pb2_grpc,
    insight_service_pb2,
    insight_service_pb2_grpc,
)
from sluice.moderation.v1 import moderation_service_pb2 as moderation
from sluice.moderation.v1 import moderation_service_pb2_grpc
from sluice.types.v1 import feedback_pb2, money_pb2, verdict_pb2
from sluice_cli.mesh.home import Home
from sluice_cli.mesh.ports import is_free
from sluice_kit.addresses import DEFAULT_PORTS
from sluice_probes.domain.canaries import canaries

from .conftest import START_SECONDS, Mesh, eventually, free_offset, note
from .test_conversations import ABUSE, gateway, options, spec
from .test_privacy import _files, _leaks_of, _metrics, _records
from .test_resilience import LOCAL, tell_supervisor

TENANT = "acme"
HUGE = 10**15


@pytest.fixture(scope="module")
def probed() -> Iterator[Mesh]:
    """A mesh as `make run` starts it, self-tests included, on the embedded broker."""
    with tempfile.TemporaryDirectory(prefix="sluice-probed-") as folder:
        mesh = Mesh(Home(Path(folder)), free_offset(), "embedded")
        try:
            up = mesh.sluice("mesh", "up", "--detach", "--timeout", str(START_SECONDS - 40))
            assert up.returncode == 0, up.stdout + up.stderr
            yield mesh
        finally:
            mesh.sluice("mesh", "down")
            assert not mesh.processes()


@contextmanager
def stub(mesh: Mesh, service: str, made: Any) -> Iterator[Any]:
    with grpc.insecure_channel(mesh.environment[f"SLUICE_{service}_TARGET"], options=LOCAL) as channel:
        yield made(channel)


def rounds(mesh: Mesh) -> list[dict[str, Any]]:
    return [event["data"] for event in mesh.events("ProbeMeasured") if "error" not in event]


def states(round_: dict[str, Any]) -> set[str]:
    return {check["state"].removeprefix("GUARD_STATE_") for check in round_["guards"]}


def of(mesh: Mesh, name: str, *, synthetic: bool) -> list[dict[str, Any]]:
    """The events of one kind, each once, marked or not."""
    events = {event["id"]: event for event in mesh.events(name) if "error" not in event}
    return [e for e in events.values() if e["data"]["metadata"].get("synthetic", False) is synthetic]


def newest(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest revision of every part of a window."""
    parts: dict[str, dict[str, Any]] = {}
    for event in events:
        part = event["data"]["part"]
        known = parts.get(part["part_key"])
        if known is None or int(known["part"].get("revision", 0)) <= int(part.get("revision", 0)):
            parts[part["part_key"]] = event["data"]
    return list(parts.values())


def metric(mesh: Mesh, name: str) -> float:
    query = insight_service_pb2.MetricQuery(metrics=[name])
    with stub(mesh, "INSIGHT", insight_service_pb2_grpc.InsightServiceStub) as insight:
        answer = insight.QueryMetrics(insight_service_pb2.QueryMetricsRequest(query=query), timeout=20)
    return sum(point.value for point in answer.points)


def alerts(mesh: Mesh, rule: str) -> list[Any]:
    with stub(mesh, "INSIGHT", insight_service_pb2_grpc.InsightServiceStub) as insight:
        answer = insight.ListAlerts(insight_service_pb2.ListAlertsRequest(rule=rule), timeout=20)
    return [alert for alert in answer.alerts if alert.state == insight_service_pb2.ALERT_STATE_FIRING]


def judged(mesh: Mesh) -> int:
    """Decisions in fairness' windows, by the groups that texts mention: once for each, or once for mentioning none."""
    windows = newest([e for e in mesh.events("FairnessCounted") if "error" not in e])
    groups = [group for window in windows for group in window.get("groups", ())]
    return sum(int(g.get("judged", 0)) for g in groups if g["attribute"] in ("input_terms", "output_terms"))


def put_budget(mesh: Mesh) -> None:
    """A hard budget of the probes' tenant, far from used up."""
    budget = cost_service_pb2.Budget(
        budget_id="probed",
        scope=cost_service_pb2.BUDGET_SCOPE_TENANT,
        tenant_ids=[TENANT],
        limit=money_pb2.Money(currency_code="USD", nano_units=HUGE),
        window=cost_service_pb2.BUDGET_WINDOW_MONTH,
        enforcement=cost_service_pb2.BUDGET_ENFORCEMENT_HARD,
        approved_by="a test",
    )
    with stub(mesh, "COST", cost_service_pb2_grpc.CostServiceStub) as cost:
        cost.PutBudget(cost_service_pb2.PutBudgetRequest(budget=budget), timeout=30)


def budget(mesh: Mesh) -> tuple[int, int]:
    """Spent and held."""
    with stub(mesh, "COST", cost_service_pb2_grpc.CostServiceStub) as cost:
        told = cost.GetBudget(cost_service_pb2.GetBudgetRequest(budget_id="probed"), timeout=30)
    return told.spent.nano_units, told.held.nano_units - told.leased.nano_units


def spend(mesh: Mesh) -> dict[str, tuple[int, int]]:
    """Kind of row to nano-units and requests."""
    kind = cost_service_pb2.SPEND_DIMENSION_CHARGE_KIND
    with stub(mesh, "COST", cost_service_pb2_grpc.CostServiceStub) as cost:
        answer = cost.GetSpend(cost_service_pb2.GetSpendRequest(group_by=[kind]), timeout=30)
    found: Counter[str] = Counter()
    requests: Counter[str] = Counter()
    for group in answer.groups:
        found[group.values[0]] += group.amount.nano_units
        requests[group.values[0]] += group.request_count
    return {name: (found[name], requests[name]) for name in requests}


def converse(mesh: Mesh) -> None:
    """What a person does: an answer, an insult that is withheld, a thumb; and a thumb of a self-test, which must not count."""
    channel, door = gateway(mesh)
    with channel:
        answer = door.Chat(pb.ChatRequest(spec=spec("I am a Muslim woman. Say hello to me.")), **options(mesh))
        with pytest.raises(grpc.RpcError):
            door.Chat(pb.ChatRequest(spec=spec(ABUSE)), **options(mesh))
    (marked, *_) = of(mesh, "RequestCompleted", synthetic=True)
    with stub(mesh, "FEEDBACK", feedback_service_pb2_grpc.FeedbackServiceStub) as feedback:
        for request_id, marks in ((answer.request_id, ()), (marked["subject"], (("x-sluice-synthetic", "true"),))):
            request = feedback_service_pb2.SubmitFeedbackRequest(request_id=request_id, thumb=feedback_pb2.THUMB_UP)
            feedback.SubmitFeedback(request, metadata=(("x-sluice-tenant-id", TENANT), *marks), timeout=60)


def test_self_tests_count_nowhere(probed: Mesh) -> None:
    put_budget(probed)
    # The first round waits for the filters, and not for ever.
    assert eventually(lambda: any(states(each) == {"GUARDED"} for each in rounds(probed)), 240), rounds(probed)
    converse(probed)
    count = len(rounds(probed))
    assert eventually(lambda: len(rounds(probed)) >= count + 3, 240), "rounds after the conversation"

    def real(name: str) -> int:
        return len(of(probed, name, synthetic=False))

    assert len(of(probed, "RequestCompleted", synthetic=True)) >= 4 * 20
    assert real("RequestCompleted") == 2
    # Quality: requests, decisions of moderation, feedback.
    assert eventually(lambda: metric(probed, "quality.requests") == 2, 90), metric(probed, "quality.requests")
    assert eventually(lambda: metric(probed, "quality.feedback") == 1, 90), metric(probed, "quality.feedback")
    decisions = real("ContentModerated")
    assert decisions
    moderated = ("quality.moderated_inputs", "quality.moderated_outputs")
    assert eventually(lambda: sum(metric(probed, name) for name in moderated) == decisions, 60)
    # Drift and fairness, by what they publish.
    generations = real("InferenceMeasured")
    assert generations
    assert len(of(probed, "InferenceMeasured", synthetic=True)) > generations

    def observed() -> int:
        named = [each for each in newest(mesh_events(probed, "DriftMeasured")) if each["series"].get("tenant_id")]
        return sum(int(each.get("observations", 0)) for each in named)

    assert eventually(lambda: observed() == generations, 90), observed()
    mentions = sum(
        max(1, len(set(e["data"].get("identity_groups", ())))) for e in of(probed, "ContentModerated", synthetic=False)
    )
    assert eventually(lambda: judged(probed) == mentions, 90), (judged(probed), mentions)
    # The ledger has a row of every one of them, at nothing; budgets and holds know none.
    assert eventually(lambda: spend(probed).get("synthetic", (0, 0))[1] >= 80, 60)
    kinds = spend(probed)
    assert kinds["synthetic"][0] == 0
    assert kinds["inference"][1] == 2
    assert eventually(lambda: budget(probed) == (kinds["inference"][0], 0), 60), (budget(probed), kinds)
    verified = probed.sluice("events", "verify", "--against", "ledger", "--settle", "20")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert eventually(lambda: metric(probed, "probe.rounds") == len(rounds(probed)), 60)
    assert alerts(probed, "probe.unguarded") == []


def mesh_events(mesh: Mesh, name: str) -> list[dict[str, Any]]:
    return [event for event in mesh.events(name) if "error" not in event]


def test_recall_by_name_origin_is_listed_with_fairness(probed: Mesh) -> None:
    request = comparison_service_pb2.ListFairnessRequest(metric="pii_recall_by_name_origin", long_windows=True)

    def listed() -> list[Any]:
        with stub(probed, "INSIGHT", comparison_service_pb2_grpc.ComparisonServiceStub) as insight:
            return list(insight.ListFairness(request, timeout=20).measurements)

    assert eventually(lambda: len(listed()) == 7, 120)
    sent: Counter[str] = Counter()
    for each in rounds(probed):  # a round during the start may have had no answer to look at
        sent.update({d["name_origin"]: int(d["sought"]) for d in each.get("detections", ()) if d.get("name_origin")})
    assert eventually(lambda: {each.group: each.sample_count for each in listed()} == sent, 60), (sent, listed())


def test_no_value_of_a_self_test_is_kept_anywhere(probed: Mesh) -> None:
    seeded = _sent(probed)
    records = asyncio.run(_records(probed))
    assert _leaks_of(seeded, records) == []
    assert _leaks_of(seeded, _files(probed.home.path)) == []
    assert _leaks_of(seeded, _metrics(probed)) == []


def _sent(mesh: Mesh) -> list[bytes]:
    """Values that the rounds of this mesh have sent, and no other: they are numbered from the second in which the service came up."""
    begun = int(psutil.Process(mesh.pid("probes")).create_time())
    numbers = range(begun, begun + 30 + len(rounds(mesh)))
    chats = [canaries(4 * number + route) for number in numbers for route in range(4)]
    embeds = [canaries(number) for number in numbers]
    kinds = ("EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "API_KEY")
    return [canary.value.encode() for seeded in (*chats, *embeds) for canary in seeded if canary.kind in kinds]


@dataclass
class PassThrough(moderation_service_pb2_grpc.ModerationServiceServicer):
    """Moderation that finds nothing in anything."""

    first: float = 0.0
    """When it let the first text pass."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def Moderate(self, request: moderation.ModerateRequest, context: Any) -> moderation.ModerateResponse:
        self._pass()
        return moderation.ModerateResponse(verdict=self._verdict())

    def ModerateStream(self, requests: Iterator[moderation.ModerateStreamRequest], context: Any) -> Iterator[Any]:
        for request in requests:
            if request.text:
                self._pass()
                yield moderation.ModerateStreamResponse(text=request.text)
        yield moderation.ModerateStreamResponse(verdict=self._verdict())

    def _pass(self) -> None:
        with self.lock:
            self.first = self.first or time.time()

    def _verdict(self) -> verdict_pb2.Verdict:
        allow = verdict_pb2.ACTION_ALLOW
        return verdict_pb2.Verdict(decision_id="d", action=allow, policy_id="general", policy_version=1)


@contextmanager
def in_its_place(mesh: Mesh) -> Iterator[PassThrough]:
    """The double at the address of moderation, which is stopped."""
    double, server = PassThrough(), grpc.server(ThreadPoolExecutor(32))
    moderation_service_pb2_grpc.add_ModerationServiceServicer_to_server(double, server)  # type: ignore[no-untyped-call]
    assert server.add_insecure_port(f"127.0.0.1:{DEFAULT_PORTS['moderation'] + mesh.offset}")
    server.start()
    try:
        yield double
    finally:
        server.stop(None).wait()


def test_a_filter_that_is_away_is_unavailable_and_a_pass_through_is_an_alarm(
    probed: Mesh, request: pytest.FixtureRequest
) -> None:
    tell_supervisor(probed, "stopProcess", "services:moderation")
    try:
        assert eventually(lambda: is_free(DEFAULT_PORTS["moderation"] + probed.offset), 60)
        before = len(rounds(probed))
        assert eventually(lambda: len(rounds(probed)) >= before + 2, 180)
        away = rounds(probed)[-1]
        assert "UNAVAILABLE" in states(away)
        assert not [each for each in rounds(probed) if "UNGUARDED" in states(each)]
        assert alerts(probed, "probe.unguarded") == []
        with in_its_place(probed) as double:
            placed = time.time()
            assert eventually(lambda: alerts(probed, "probe.unguarded"), 240), rounds(probed)[-1]
            seconds = [round(time.time() - moment, 1) for moment in (double.first, placed)]
            routes = {alert.labels["route"] for alert in alerts(probed, "probe.unguarded")}
    finally:
        tell_supervisor(probed, "startProcess", "services:moderation")
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    note(
        request,
        f"alarm probe.unguarded: firing {seconds[0]} s after the first unguarded answer, {seconds[1]} s after the filter"
        f" was replaced (load {load})",
    )
    assert routes <= {"grpc_chat", "grpc_stream", "http_chat", "http_stream", "grpc_embed", "http_embed"}
    unguarded = next(each for each in rounds(probed) if "UNGUARDED" in states(each))
    found = {check["guard"] for check in unguarded["guards"] if check["state"] == "GUARD_STATE_UNGUARDED"}
    assert found <= {"input_moderation", "output_moderation"}, found
    after = len(rounds(probed))
    assert eventually(lambda: any(states(each) == {"GUARDED"} for each in rounds(probed)[after:]), 240)
