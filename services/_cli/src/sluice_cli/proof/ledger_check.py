"""Requests answered = RequestCompleted = CostRecorded = groups of the ledger: the same requests on every side."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import grpc
from aiokafka import TopicPartition
from sluice.cost.v1 import cost_service_pb2, cost_service_pb2_grpc
from sluice.events.v1.cost_pb2 import CostRecorded
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice_kit.events import UndecodableEvent, decode, topic_of
from sluice_kit.ordered import OrderedReader, Span

from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.mesh.readiness import CHANNEL_OPTIONS
from sluice_cli.proof.differences import TwoSets
from sluice_cli.proof.findings import CrossCheck

COMPLETED = topic_of(RequestCompleted).name
RECORDED = topic_of(CostRecorded).name
SECONDS = 20.0
REQUEST_KINDS = ("inference", "synthetic")
"""Kinds of row that stand for a request itself: a judge's, a correction or idle time has its own event as its source."""


async def check(
    reader: OrderedReader, target: str, *, answered: Iterable[str], settle_seconds: float
) -> tuple[CrossCheck, ...]:
    """The checks. Waits `settle_seconds` at most until the ledger has told of every completed request."""
    completed = await reader.spans([COMPLETED])
    request_ids = set(answered)
    with TwoSets() as events, TwoSets() as callers:
        for id_ in request_ids:
            callers.left(id_)

        def take_completed(message: Any) -> None:
            events.left(message.metadata.event_id)
            if message.metadata.request_id in request_ids:
                callers.right(message.metadata.request_id)

        await _each(reader, completed, take_completed)
        await _until_recorded(reader, events, settle_seconds)
        recorded = _recorded_check(events, completed)
        checks = [recorded, await _ledger_check(reader, target)]
        if request_ids:
            checks.insert(0, _answered_check(callers))
    return tuple(checks)


def _answered_check(callers: TwoSets) -> CrossCheck:
    told = callers.difference()
    return CrossCheck(name="answered", left="requests answered", right="RequestCompleted", **asdict(told))


def _recorded_check(events: TwoSets, completed: Mapping[TopicPartition, Span]) -> CrossCheck:
    told = asdict(events.difference())
    cut = any(span.start for span in completed.values())
    note = (
        "retention has deleted the head of RequestCompleted: what is only in CostRecorded may be older" if cut else ""
    )
    if cut:
        told |= {"only_right": 0, "examples_right": (), "right_count": told["left_count"] - told["only_left"]}
    return CrossCheck(name="recorded", left="RequestCompleted", right="CostRecorded", note=note, **told)


async def _until_recorded(reader: OrderedReader, events: TwoSets, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    reached: dict[TopicPartition, int] = {}

    def take_recorded(message: Any) -> None:
        if message.charge_kind in REQUEST_KINDS:
            events.right(message.source_event_id)

    while True:
        spans = await reader.spans([RECORDED])
        fresh = {p: Span(reached.get(p, span.start), span.end) for p, span in spans.items()}
        await _each(reader, fresh, take_recorded)
        reached = {p: span.end for p, span in spans.items()}
        if not events.difference().only_left or time.monotonic() > deadline:
            return
        await asyncio.sleep(0.5)


async def _ledger_check(reader: OrderedReader, target: str) -> CrossCheck:
    """The ledger says up to which offsets it has read: exactly so far the events are counted."""
    answer = await _spend(target)
    rows = sum(group.request_count for group in answer.groups)
    spans = await reader.spans([COMPLETED])
    read = {
        TopicPartition(position.topic, position.partition): position.next_offset
        for position in answer.complete_up_to
        if position.topic == COMPLETED
    }
    bounded = {p: Span(span.start, min(span.end, read.get(p, span.start))) for p, span in spans.items()}
    with TwoSets() as counted:
        await _each(reader, bounded, lambda message: counted.left(message.metadata.event_id))
        events = counted.difference().left_count
    cut = any(span.start for span in spans.values())
    return CrossCheck(
        name="ledger",
        left="RequestCompleted (as far as the ledger has read)",
        left_count=events,
        right="requests in the ledger",
        right_count=events if cut and rows >= events else rows,
        note=f"retention has deleted the head of RequestCompleted: the ledger has {rows} requests" if cut else "",
    )


async def _spend(target: str) -> Any:
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        stub: Any = cost_service_pb2_grpc.CostServiceStub(channel)
        try:
            # By kind, because self-tests have rows too, and are in no sum of those who do not ask for kinds.
            request = cost_service_pb2.GetSpendRequest(group_by=[cost_service_pb2.SPEND_DIMENSION_CHARGE_KIND])
            return await stub.GetSpend(request, timeout=SECONDS)
        except grpc.RpcError as error:
            raise MeshProblem(f"The cost service at {target} does not tell its ledger: {error.details()}") from None  # type: ignore[attr-defined]


async def _each(reader: OrderedReader, spans: Mapping[TopicPartition, Span], take: Callable[[Any], None]) -> None:
    async for record in reader.records(spans):
        try:
            message = decode(record.topic, record.value, dict(record.headers))
        except UndecodableEvent:
            continue  # `verify` tells of it
        take(message)
