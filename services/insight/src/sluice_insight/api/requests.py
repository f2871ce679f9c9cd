"""RequestService over the stories."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1.gateway_pb2 import RequestOutcome
from sluice.insight.v1 import request_service_pb2 as pb
from sluice.insight.v1 import request_service_pb2_grpc as pb_grpc
from sluice.types.v1.verdict_pb2 import Action
from sluice_kit import context
from sluice_kit.errors import InvalidInput, NotFound, Unavailable

from sluice_insight.adapters.stories.store import Stories, cursor_of
from sluice_insight.adapters.stories.summary import summary
from sluice_insight.domain.request_query import BadCursor, RequestQuery, cursor_from, token_of

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["RequestService"].full_name
DEFAULT_PAGE, LARGEST_PAGE = 50, 500
LONGEST_TEXT = 256
FURTHEST_US = 10_000 * 366 * 86_400_000_000
_FIELDS = {
    "RequestCompleted": "completed",
    "TextRedacted": "redactions",
    "ContentModerated": "decisions",
    "InferenceMeasured": "generations",
    "CostRecorded": "costs",
    "FeedbackReceived": "feedback",
    "ReviewRequested": "reviews_requested",
    "ReviewResolved": "reviews_resolved",
}


class RequestService(pb_grpc.RequestServiceServicer):
    """Finds requests and tells their stories."""

    def __init__(self, stories: Stories) -> None:
        self._stories = stories

    async def ListRequests(
        self, request: pb.ListRequestsRequest, _: grpc.aio.ServicerContext
    ) -> pb.ListRequestsResponse:
        """One page, newest first. INVALID_ARGUMENT on a bad page token, range, outcome or verdict; UNAVAILABLE without the file."""
        size = min(request.page_size or DEFAULT_PAGE, LARGEST_PAGE)
        query = _query(request, limit=size + 1)
        try:
            found, newest = await self._stories.find(query), await self._stories.newest_us()
        except sqlite3.Error as error:
            raise Unavailable("the stories cannot be read") from error
        more = len(found) > size
        return pb.ListRequestsResponse(
            requests=found[:size],
            next_page_token=token_of(cursor_of(found[size - 1])) if more else "",
            newest_at=_timestamp(newest),
        )

    async def GetRequest(self, request: pb.GetRequestRequest, _: grpc.aio.ServicerContext) -> pb.GetRequestResponse:
        """One story. NOT_FOUND when nothing is known of it, or it is another tenant's."""
        if not request.request_id or len(request.request_id) > LONGEST_TEXT:
            raise InvalidInput("name a request", field="request_id")
        try:
            events = await self._stories.story(request.request_id, context.current().tenant_id)
        except sqlite3.Error as error:
            raise Unavailable("the stories cannot be read") from error
        if not events:
            raise NotFound("nothing is known of this request: it is too old, too new, or not yours")
        return _story(_of_one_tenant(events))


def _of_one_tenant(events: Sequence[Any]) -> Sequence[Message]:
    """Two tenants may have used one id; an operator who names none gets the newest."""
    tenant = events[-1].metadata.tenant_id
    return [event for event in events if event.metadata.tenant_id == tenant]


def _story(events: Sequence[Message]) -> pb.GetRequestResponse:
    answer = pb.GetRequestResponse()
    found = summary(events)
    if found is not None:
        answer.summary.CopyFrom(found.line)
    for event in events:
        name = _FIELDS[event.DESCRIPTOR.name]
        if name == "completed":
            if not answer.HasField("completed"):
                answer.completed.CopyFrom(event)  # type: ignore[arg-type]
        else:
            getattr(answer, name).append(event)
    return answer


def _query(request: pb.ListRequestsRequest, *, limit: int) -> RequestQuery:
    for name in ("tenant_id", "project_id", "model", "route", "prompt_version", "kind", "blocked_category", "category"):
        if len(getattr(request, name)) > LONGEST_TEXT:
            raise InvalidInput(f"at most {LONGEST_TEXT} characters", field=name)
    known = set(RequestOutcome.values()) - {0}
    if any(outcome not in known for outcome in request.outcomes):
        names = ", ".join(sorted(RequestOutcome.Name(one) for one in known))
        raise InvalidInput(f"unknown outcome; there are {names}", field="outcomes")
    if request.verdict not in Action.values():
        names = ", ".join(name for name, number in Action.items() if number)
        raise InvalidInput(f"unknown verdict; there are {names}", field="verdict")
    start, end = _microseconds(request, "start_time"), _microseconds(request, "end_time")
    if start and end and start >= end:
        raise InvalidInput("start_time must be before end_time", field="start_time")
    try:
        after = cursor_from(request.page_token) if request.page_token else None
    except BadCursor:
        raise InvalidInput("page_token must come from an earlier answer", field="page_token") from None
    return RequestQuery(
        limit=limit,
        tenant_id=context.current().tenant_id or request.tenant_id,
        project_id=request.project_id,
        model=request.model,
        route=request.route,
        prompt_version=request.prompt_version,
        outcomes=tuple(request.outcomes),
        marks=tuple(_marks(request)),
        min_latency_us=max(0, _microseconds(request, "min_latency")),
        with_feedback=request.with_feedback,
        awaiting_review=request.awaiting_review,
        include_synthetic=request.include_synthetic,
        start_us=start,
        end_us=end,
        after=after,
    )


def _marks(request: pb.ListRequestsRequest) -> Iterator[str]:
    if request.kind:
        yield f"kind:{request.kind}"
    if request.blocked_category:
        yield f"blocked:{request.blocked_category}"
    if request.verdict:
        yield f"verdict:{request.verdict}" + (f":{request.category}" if request.category else "")
    elif request.category:
        yield f"category:{request.category}"


def _microseconds(request: pb.ListRequestsRequest, name: str) -> int:
    if not request.HasField(name):  # type: ignore[arg-type]
        return 0
    try:
        found: int = getattr(request, name).ToMicroseconds()
    except ValueError:  # beyond what protobuf calls a time
        found = FURTHEST_US + 1
    if abs(found) > FURTHEST_US:  # more than the file's integers hold, too
        raise InvalidInput("must lie within ten thousand years", field=name)
    return found


def _timestamp(microseconds: int) -> Timestamp | None:
    if not microseconds:
        return None
    stamp = Timestamp()
    stamp.FromMicroseconds(microseconds)
    return stamp
