"""What everybody knows of the requests in the end: topics, ledger, metrics and budget, each asked by itself."""

import asyncio
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.cost.v1 import cost_service_pb2 as cost
from sluice.cost.v1 import cost_service_pb2_grpc as cost_rpc
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.gateway_pb2 import (
    REQUEST_OUTCOME_DEADLINE_EXCEEDED,
    REQUEST_OUTCOME_FAILED,
    RequestCompleted,
)
from sluice.events.v1.inference_pb2 import InferenceMeasured
from sluice.events.v1.moderation_pb2 import ContentModerated
from sluice.insight.v1 import insight_service_pb2 as insight
from sluice.insight.v1 import insight_service_pb2_grpc as insight_rpc
from sluice_insight.adapters.alerting.rule_files import SHIPPED, read_rules
from sluice_insight.adapters.alerting.standing import StandingGroups
from sluice_insight.domain.alerting.rules import Standstill
from sluice_kit.configuration import source_files
from sluice_kit.events import decode, topic_of
from sluice_kit.ordered import OrderedReader
from sluice_kit.settings import MeshSettings

from ..mesh.conftest import Mesh
from .stage import BUDGETED

LOCAL = [("grpc.enable_http_proxy", 0)]
SECONDS = 20.0
COMPLETED = topic_of(RequestCompleted).name
FAILURES = (REQUEST_OUTCOME_FAILED, REQUEST_OUTCOME_DEADLINE_EXCEEDED)
"""What quality counts as failed."""


@dataclass(frozen=True)
class Events:
    """The topics. An outbox may send an event again under its id after a crash: that is no second event."""

    completed: dict[str, tuple[str, str]]
    """Event id of RequestCompleted to (request id, tenant)."""
    ends: dict[str, str]
    """Request id to how it ended: `OK`, or the reason that its caller was told."""
    failed: Counter[str]
    """Requests that failed, by tenant."""
    recorded: Counter[str]
    """Completed event ids that a CostRecorded of the request itself names: how many different ones do."""
    records: Counter[str]
    """CostRecorded by tenant."""
    measured: dict[str, str]
    """Event id of InferenceMeasured to tenant."""
    generated: set[str]
    """Request ids of InferenceMeasured."""
    decisions: Counter[str]
    """ContentModerated of callers by tenant."""
    drift: Counter[str]
    """Observations by tenant, of the newest revision of each window of drift."""
    copies: int
    """Records on the topics beyond the first of their event."""


def _settings(mesh: Mesh) -> MeshSettings:
    return MeshSettings(
        kafka_bootstrap=mesh.environment["SLUICE_KAFKA_BOOTSTRAP"], kafka_embedded=mesh.broker == "embedded"
    )


async def behind(mesh: Mesh) -> dict[str, int]:
    """Events that wait, by their topic and the group that has not read them, as the alarm of groups that stand still sees it."""
    [rule] = [one for one in read_rules(source_files(SHIPPED)) if isinstance(one.condition, Standstill)]
    found: Counter[str] = Counter()
    for one in await StandingGroups(_settings(mesh)).standing(rule.condition.groups):
        if one.waiting:
            found[f"{one.group} on {one.topic}"] += one.waiting
    return dict(found)


async def read_events(mesh: Mesh) -> Events:
    """All of them, up to now."""
    settings = _settings(mesh)
    seen: dict[type, dict[str, Any]] = {
        t: {} for t in (RequestCompleted, ContentModerated, CostRecorded, InferenceMeasured, DriftMeasured)
    }
    copies = 0
    async with OrderedReader.opened(settings) as reader:
        spans = await reader.spans([topic_of(message).name for message in seen])
        async for record in reader.records(spans):
            message: Any = decode(record.topic, record.value, dict(record.headers))
            known = seen[type(message)]
            copies += message.metadata.event_id in known
            known[message.metadata.event_id] = message
    return Events(
        completed={id_: (m.metadata.request_id, m.metadata.tenant_id) for id_, m in seen[RequestCompleted].items()},
        ends={m.metadata.request_id: m.reason or "OK" for m in seen[RequestCompleted].values()},
        failed=Counter(m.metadata.tenant_id for m in seen[RequestCompleted].values() if m.outcome in FAILURES),
        recorded=Counter(m.source_event_id for m in seen[CostRecorded].values()),
        records=Counter(m.metadata.tenant_id for m in seen[CostRecorded].values()),
        measured={id_: m.metadata.tenant_id for id_, m in seen[InferenceMeasured].items()},
        generated={m.metadata.request_id for m in seen[InferenceMeasured].values()},
        decisions=Counter(m.metadata.tenant_id for m in seen[ContentModerated].values() if not m.metadata.synthetic),
        drift=_observations(seen[DriftMeasured].values()),
        copies=copies,
    )


def _observations(windows: Any) -> Counter[str]:
    newest: dict[str, Any] = {}
    for window in windows:
        known = newest.get(window.part.part_key)
        if known is None or known.part.revision <= window.part.revision:
            newest[window.part.part_key] = window
    found: Counter[str] = Counter()
    for window in newest.values():
        found[window.series.tenant_id] += window.observations
    return found


def read_ledger(mesh: Mesh) -> Counter[tuple[str, str, str]]:
    """(event id, request id, tenant) of every row that stands for a request itself, and how many rows have it."""
    rows = _ask_ledger(
        mesh, "SELECT event_id, request_id, tenant_id FROM cost_ledger WHERE source_topic = ?", COMPLETED
    )
    return Counter((str(e), str(r), str(t)) for e, r, t in rows)


def spent_in_ledger(mesh: Mesh) -> int:
    """Nano-units of the tenant on a budget: the sum of its rows."""
    ((spent,),) = _ask_ledger(
        mesh, "SELECT COALESCE(SUM(amount_nano), 0) FROM cost_ledger WHERE tenant_id = ?", BUDGETED
    )
    return int(spent)


def _ask_ledger(mesh: Mesh, question: str, value: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(f"file:{mesh.home.path / 'cost.db'}?mode=ro", uri=True)
    try:
        return database.execute(question, (value,)).fetchall()
    finally:
        database.close()


async def requests_in_ledger(mesh: Mesh) -> Counter[str]:
    """By tenant, as the cost service tells."""
    request = cost.GetSpendRequest(group_by=[cost.SPEND_DIMENSION_TENANT])
    async with grpc.aio.insecure_channel(mesh.environment["SLUICE_COST_TARGET"], options=LOCAL) as channel:
        stub: Any = cost_rpc.CostServiceStub(channel)
        answer = await stub.GetSpend(request, timeout=SECONDS)
    return Counter({group.values[0]: group.request_count for group in answer.groups})


async def measured(mesh: Mesh, metric: str, since: float) -> Counter[str]:
    """By tenant, as the insight service tells."""
    query = insight.MetricQuery(metrics=[metric], group_by=[insight.DIMENSION_TENANT])
    start = Timestamp()
    # The windows of drift are five minutes long: the first one began before the run did.
    start.FromMilliseconds(int((since - 600) * 1000))
    request = insight.QueryMetricsRequest(query=query, start_time=start)
    async with grpc.aio.insecure_channel(mesh.environment["SLUICE_INSIGHT_TARGET"], options=LOCAL) as channel:
        stub: Any = insight_rpc.InsightServiceStub(channel)
        answer = await stub.QueryMetrics(request, timeout=SECONDS)
    assert not answer.next_page_token
    found: Counter[str] = Counter()
    for point in answer.points:
        found[point.series.tenant_id] += int(point.value)
    return found


@dataclass
class BudgetWatch:
    """Looks at the budget all the time; what is spent and held together may never be more than the limit."""

    mesh: Mesh
    samples: int = 0
    away: int = 0
    most: int = 0
    limit: int = 0
    last: tuple[int, int] = (0, 0)
    broken: list[tuple[int, int]] = field(default_factory=list)
    stopped: bool = False

    async def run(self) -> None:
        """Until stopped."""
        options = [*LOCAL, ("grpc.max_reconnect_backoff_ms", 1000)]
        async with grpc.aio.insecure_channel(self.mesh.environment["SLUICE_COST_TARGET"], options=options) as channel:
            stub: Any = cost_rpc.CostServiceStub(channel)
            while not self.stopped:
                await self._look(stub)
                await asyncio.sleep(0.1)

    async def _look(self, stub: Any) -> None:
        try:
            told = await stub.GetBudget(cost.GetBudgetRequest(budget_id=BUDGETED), timeout=SECONDS)
        except grpc.aio.AioRpcError:
            self.away += 1
            return
        spent, held, self.limit = told.spent.nano_units, told.held.nano_units, told.limit.nano_units
        self.samples += 1
        self.most = max(self.most, spent + held)
        self.last = spent, held
        if spent + held > self.limit:
            self.broken.append((spent, held))

    async def until_free(self, seconds: float) -> bool:
        """Waits until nothing is held."""
        deadline = time.monotonic() + seconds
        while (self.last[1] or not self.samples) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        return not self.last[1]
