"""What dies is started again, and nothing is lost or counted twice."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any
from xmlrpc.client import ServerProxy

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.cost.v1 import cost_service_pb2, cost_service_pb2_grpc
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice.insight.v1 import insight_service_pb2, insight_service_pb2_grpc
from supervisor.xmlrpc import SupervisorTransport

from .conftest import Mesh, eventually
from .test_conversations import ABUSE, gateway, options, spec

LOCAL = [("grpc.enable_http_proxy", 0)]


def supervisor(mesh: Mesh) -> Any:
    return ServerProxy(
        "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{mesh.home.socket}")
    ).supervisor


def request_ids_of(mesh: Mesh, name: str) -> list[str]:
    return [event["subject"] for event in mesh.events(name) if "error" not in event]


def ledger_rows(mesh: Mesh, since: float) -> int:
    moment = Timestamp()
    moment.FromMilliseconds(int(since * 1000))
    with grpc.insecure_channel(mesh.environment["SLUICE_COST_TARGET"], options=LOCAL) as channel:
        answer = cost_service_pb2_grpc.CostServiceStub(channel).GetSpend(
            cost_service_pb2.GetSpendRequest(**{"from": moment}), timeout=20
        )
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


def agree(mesh: Mesh, since: float, measured_before: int) -> Callable[[], bool]:
    """True when every completed request has exactly one ledger row and is in the quality windows exactly once."""

    def check() -> bool:
        completed, priced = request_ids_of(mesh, "RequestCompleted"), request_ids_of(mesh, "CostRecorded")
        check.told = (len(completed), len(priced), requests_measured(mesh))  # type: ignore[attr-defined]
        return sorted(set(completed)) == sorted(priced) and requests_measured(mesh) == len(set(completed))

    return check


@contextmanager
def counts_stay_right(mesh: Mesh) -> Any:
    """Before: all agree. Then traffic while the body does harm. After: all agree again, with what came on top."""
    check = agree(mesh, 0, 0)
    assert eventually(check, 60), check.told  # type: ignore[attr-defined]
    before = len(set(request_ids_of(mesh, "RequestCompleted")))
    with Traffic(mesh) as traffic:
        yield traffic
    assert eventually(mesh.is_ready, 90), mesh.sluice("mesh", "status").stdout
    blocked = traffic.ends.count(grpc.StatusCode.FAILED_PRECONDITION)
    assert blocked > 0
    assert eventually(lambda: len(set(request_ids_of(mesh, "RequestCompleted"))) >= before + blocked, 60)
    assert eventually(check, 90), check.told  # type: ignore[attr-defined]


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
        supervisor(mesh).stopProcess("kafka")
        answered = len(traffic.ends)
        assert eventually(lambda: len(traffic.ends) > answered + 10), "the request path must not notice"
        supervisor(mesh).startProcess("kafka")


def test_a_killed_broker_is_started_again_and_costs_no_event(mesh: Mesh) -> None:
    with counts_stay_right(mesh):
        time.sleep(1)
        killed = mesh.pid("kafka")
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: mesh.pid("kafka") not in (0, killed))
