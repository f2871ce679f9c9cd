"""What dies is started again, and nothing is lost or counted twice."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xmlrpc.client import ServerProxy

import grpc
import pytest
from sluice.cost.v1 import cost_service_pb2, cost_service_pb2_grpc
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.insight.v1 import insight_service_pb2, insight_service_pb2_grpc
from supervisor.xmlrpc import SupervisorTransport

from .conftest import Mesh, eventually
from .test_conversations import ABUSE, gateway, options, spec

LOCAL = [("grpc.enable_http_proxy", 0)]


def tell_supervisor(mesh: Mesh, method: str, *arguments: str) -> None:
    with ServerProxy(
        "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{mesh.home.socket}")
    ) as proxy:
        getattr(proxy.supervisor, method)(*arguments)


def completions(mesh: Mesh) -> dict[str, str]:
    """Event id to request id. An outbox may send an event again after a crash, under the same id; that is no second event."""
    return {event["id"]: event["subject"] for event in mesh.events("RequestCompleted") if "error" not in event}


def charges(mesh: Mesh) -> dict[str, str]:
    """Event id of CostRecorded to the request it is for."""
    return {event["id"]: event["subject"] for event in mesh.events("CostRecorded") if "error" not in event}


def missing_sequences(mesh: Mesh) -> dict[str, list[int]]:
    """Producer to the numbers that are missing between its first and last RequestCompleted: each would be a lost event."""
    told: dict[str, set[int]] = {}
    for event in mesh.events("RequestCompleted"):
        if "error" not in event:
            told.setdefault(event["source"], set()).add(int(event["sequence"]))
    return {source: missing for source, seen in told.items() if (missing := sorted({*range(1, max(seen) + 1)} - seen))}


def ledger_rows(mesh: Mesh) -> int:
    with grpc.insecure_channel(mesh.environment["SLUICE_COST_TARGET"], options=LOCAL) as channel:
        answer = cost_service_pb2_grpc.CostServiceStub(channel).GetSpend(cost_service_pb2.GetSpendRequest(), timeout=20)
    return sum(group.row_count for group in answer.groups)


def requests_measured(mesh: Mesh) -> int:
    """Requests in the quality windows of the last hour."""
    query = insight_service_pb2.MetricQuery(metrics=["quality.requests"])
    with grpc.insecure_channel(mesh.environment["SLUICE_INSIGHT_TARGET"], options=LOCAL) as channel:
        stub = insight_service_pb2_grpc.InsightServiceStub(channel)
        answer = stub.QueryMetrics(insight_service_pb2.QueryMetricsRequest(query=query), timeout=20)
    return int(sum(point.value for point in answer.points))


class Traffic:
    """Requests that need no model (they are blocked on the way in), sent one after another until told to stop."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh, self._stop = mesh, threading.Event()
        self.sent = 0
        self.ends: list[grpc.StatusCode] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        channel, stub = gateway(self._mesh)
        with channel:
            while not self._stop.is_set():
                try:
                    stub.Chat(pb.ChatRequest(spec=spec(ABUSE)), **options(self._mesh) | {"wait_for_ready": True})
                except grpc.RpcError as error:
                    self.ends.append(error.code())
                time.sleep(0.05)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(60)


@dataclass(frozen=True)
class Counts:
    """What the mesh knows of its requests, from four places."""

    completed: int
    charged: int
    ledger: int
    measured: int
    same_requests: bool

    @property
    def agree(self) -> bool:
        return self.same_requests and self.completed == self.charged == self.ledger == self.measured


def count(mesh: Mesh) -> Counts:
    completed, charged = completions(mesh), charges(mesh)
    try:
        ledger, measured = ledger_rows(mesh), requests_measured(mesh)
    except grpc.RpcError:  # restarting
        ledger = measured = -1
    return Counts(
        len(completed), len(charged), ledger, measured, sorted(completed.values()) == sorted(charged.values())
    )


@contextmanager
def counts_stay_right(mesh: Mesh) -> Iterator["Traffic"]:
    """Before: all agree. Then traffic while the body does harm. After: all agree again, with what came on top."""
    eventually(lambda: count(mesh).agree, 60)
    before = count(mesh)
    assert before.agree, before
    with Traffic(mesh) as traffic:
        yield traffic
    assert eventually(mesh.is_ready, 120), mesh.sluice("mesh", "status").stdout
    blocked = traffic.ends.count(grpc.StatusCode.FAILED_PRECONDITION)
    assert blocked > 0
    eventually(lambda: (now := count(mesh)).agree and now.completed >= before.completed + blocked, 90)
    after = count(mesh)
    assert after.agree, (before, after, blocked)
    assert after.completed >= before.completed + blocked, (before, after, blocked)
    assert missing_sequences(mesh) == {}


@pytest.mark.parametrize("service", ["gateway", "cost", "quality", "insight", "moderation", "redaction"])
def test_a_killed_service_is_started_again_and_the_counts_stay_right(mesh: Mesh, service: str) -> None:
    with counts_stay_right(mesh):
        killed = mesh.pid(service)
        time.sleep(1)
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: mesh.pid(service) not in (0, killed)), f"{service} was not started again"
        assert eventually(mesh.is_ready, 90), mesh.sluice("mesh", "status").stdout


def test_a_broker_that_goes_away_and_comes_back_costs_no_event(mesh: Mesh) -> None:
    with counts_stay_right(mesh) as traffic:
        tell_supervisor(mesh, "stopProcess", "kafka")
        answered = len(traffic.ends)
        assert eventually(lambda: len(traffic.ends) > answered + 10), "the request path must not notice"
        tell_supervisor(mesh, "startProcess", "kafka")


def test_a_killed_broker_is_started_again_and_costs_no_event(mesh: Mesh) -> None:
    with counts_stay_right(mesh):
        time.sleep(1)
        killed = mesh.pid("kafka")
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: mesh.pid("kafka") not in (0, killed))
