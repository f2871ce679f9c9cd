"""What the mesh itself says about the demonstration: its events, its ledger, its live metrics."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.cost.v1 import cost_service_pb2, cost_service_pb2_grpc
from sluice.insight.v1 import insight_service_pb2, insight_service_pb2_grpc
from sluice.types.v1 import metric_pb2
from sluice_kit.settings import MeshSettings

from sluice_cli.events import SeenEvent, follow, topics_named
from sluice_cli.mesh.readiness import CHANNEL_OPTIONS

EVENTS = ("RequestCompleted", "TextRedacted", "ContentModerated", "CostRecorded", "FeedbackReceived")
SECONDS = 20.0
POLL_SECONDS = 0.5
# Longer than the processors take to publish a window they have changed.
QUIET_SECONDS = 4.0


@dataclass(frozen=True)
class Spend:
    """What one tenant spent, as the ledger has it."""

    tenant: str
    requests: int
    tokens_in: int
    tokens_out: int
    nano_units: int
    currency: str


class EventWitness:
    """Reads the event topics live, from now on. Use as an async context manager."""

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._seen: dict[str, SeenEvent] = {}
        self._reading: asyncio.Task[None] | None = None
        self._started = asyncio.Event()

    async def __aenter__(self) -> "EventWitness":
        self._reading = asyncio.create_task(self._read())
        started = asyncio.create_task(self._started.wait())
        # Whichever comes first: it reads, or it failed; and a failure must be told.
        await asyncio.wait({self._reading, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._reading.done():
            self._reading.result()
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._reading:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading

    async def _read(self) -> None:
        topics = topics_named(EVENTS)
        async with contextlib.aclosing(
            follow(self._settings, topics, from_beginning=False, on_start=self._started.set)
        ) as events:
            async for event in events:
                if event.message is not None:
                    metadata: Any = event.message.metadata  # type: ignore[attr-defined]
                    self._seen[metadata.event_id] = event

    def about(self, name: str, request_ids: Collection[str]) -> list[Any]:
        """The events of this name about these requests."""
        messages = (event.message for event in self._seen.values())
        named: list[Any] = [m for m in messages if m is not None and m.DESCRIPTOR.name == name]
        return [m for m in named if m.metadata.request_id in request_ids]

    async def wait_for(self, wanted: Mapping[str, int], request_ids: Collection[str], timeout_seconds: float) -> bool:
        """Waits until that many events of each name are there; False when they are not in time."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while any(len(self.about(name, request_ids)) < count for name, count in wanted.items()):
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True


class Books:
    """The cost service and the insight service, asked over gRPC. Use as an async context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._channels = {
            name: grpc.aio.insecure_channel(environment[f"SLUICE_{name}_TARGET"], options=CHANNEL_OPTIONS)
            for name in ("COST", "INSIGHT")
        }
        self._cost: Any = cost_service_pb2_grpc.CostServiceStub(self._channels["COST"])
        self._insight: Any = insight_service_pb2_grpc.InsightServiceStub(self._channels["INSIGHT"])

    async def __aenter__(self) -> "Books":
        return self

    async def __aexit__(self, *error: object) -> None:
        for channel in self._channels.values():
            await channel.close(None)

    async def spend(self, since: float) -> list[Spend]:
        """CostService.GetSpend by tenant, of requests since that moment (Unix seconds)."""
        request = cost_service_pb2.GetSpendRequest(group_by=[cost_service_pb2.SPEND_DIMENSION_TENANT])
        getattr(request, "from").CopyFrom(_timestamp(since))
        answer = await self._cost.GetSpend(request, timeout=SECONDS)
        return [
            Spend(
                tenant=group.values[0],
                requests=group.request_count,
                tokens_in=group.usage.uncached_input_tokens + group.usage.cached_input_tokens,
                tokens_out=group.usage.output_tokens,
                nano_units=group.amount.nano_units,
                currency=group.amount.currency_code,
            )
            for group in answer.groups
        ]

    async def metrics(
        self, names: Sequence[str], since: float, *, by: Sequence[int] = ()
    ) -> list[metric_pb2.MetricPoint]:
        """InsightService.QueryMetrics since that moment, in the windows in which they were measured."""
        query = insight_service_pb2.MetricQuery(metrics=names, group_by=by)  # type: ignore[arg-type]
        request = insight_service_pb2.QueryMetricsRequest(query=query, start_time=_timestamp(since))
        return list((await self._insight.QueryMetrics(request, timeout=SECONDS)).points)

    async def requests_measured(self, since: float) -> int:
        """Requests in the quality windows since that moment."""
        return int(sum(point.value for point in await self.metrics(["quality.requests"], since)))

    async def settled(self) -> tuple[float, int]:
        """A moment, and the requests measured in its window before it: when those have not changed for a while."""
        loop = asyncio.get_running_loop()
        begun = changed = loop.time()
        since = time.time()
        measured = await self.requests_measured(since)
        while loop.time() - changed < QUIET_SECONDS and loop.time() - begun < SECONDS:
            await asyncio.sleep(POLL_SECONDS)
            since, before = time.time(), measured
            measured = await self.requests_measured(since)
            changed = loop.time() if measured != before else changed
        return since, measured

    async def wait_for_requests(self, count: int, since: float, timeout_seconds: float) -> int:
        """Waits until the quality windows hold that many requests; what they hold in the end."""
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while (
            measured := await self.requests_measured(since)
        ) < count and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(POLL_SECONDS)
        return measured


def kinds(events: Sequence[Any], *fields: str) -> Counter[str]:
    """Sum of the KindCounts in these fields of the events."""
    found: Counter[str] = Counter()
    for counts in (getattr(event, name) for event in events for name in fields):
        found.update({each.kind: each.count for each in counts})
    return found


def _timestamp(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromMilliseconds(int(seconds * 1000))
    return moment
