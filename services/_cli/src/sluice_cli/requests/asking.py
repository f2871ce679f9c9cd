"""Asks insight's RequestService."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1.gateway_pb2 import RequestOutcome
from sluice.insight.v1 import request_service_pb2 as pb
from sluice.insight.v1 import request_service_pb2_grpc as rpc
from sluice.types.v1.verdict_pb2 import Action

from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.service_channel import as_tenant, insight_channel

_SECONDS = 10.0
_PREFIX = "REQUEST_OUTCOME_"
BLOCKED = "blocked"
"""Stands for both: blocked before the model, and after it."""
OUTCOMES = {name.removeprefix(_PREFIX).lower(): value for name, value in RequestOutcome.items() if value}
VERDICTS = {name.removeprefix("ACTION_").lower(): value for name, value in Action.items() if value}


def outcome_name(value: int) -> str:
    """`blocked_input`; a number for one that this command is too old for."""
    return next((name for name, known in OUTCOMES.items() if known == value), str(value) if value else "-")


def outcomes(names: Sequence[str]) -> list[int]:
    """By name. MeshProblem for an unknown one."""
    found: list[int] = []
    for name in names:
        if name == BLOCKED:
            found += [value for known, value in OUTCOMES.items() if known.startswith(f"{BLOCKED}_")]
        elif name in OUTCOMES:
            found.append(OUTCOMES[name])
        else:
            raise MeshProblem(f"--outcome {name!r} is not known: there are {', '.join((BLOCKED, *OUTCOMES))}.")
    return found


def verdict(name: str) -> Action.ValueType:
    """By name; 0 for an empty one. MeshProblem for an unknown one."""
    if name and name not in VERDICTS:
        raise MeshProblem(f"--verdict {name!r} is not known: there are {', '.join(VERDICTS)}.")
    return VERDICTS.get(name, Action.ACTION_UNSPECIFIED)


def verdict_name(value: int) -> str:
    """`flag`; a number for one that this command is too old for."""
    return next((name for name, known in VERDICTS.items() if known == value), str(value))


def moment(text: str) -> Timestamp | None:
    """A time as a person writes it; None for an empty text. MeshProblem for what is none."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        stamp = Timestamp()
        stamp.FromDatetime((at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC))
    except (ValueError, OverflowError):
        raise MeshProblem(f"{text!r} is no time: write 2026-11-24 or 2026-11-24T13:00Z.") from None
    return stamp


def found(home: Home, tenant: str, query: pb.ListRequestsRequest, *, min_seconds: float) -> pb.ListRequestsResponse:
    """One page, newest first. MeshProblem where insight is away or refuses."""
    if min_seconds:
        query.min_latency.FromTimedelta(timedelta(seconds=min_seconds))
    with _channel(home) as channel:
        stub = rpc.RequestServiceStub(channel)
        return stub.ListRequests(query, metadata=as_tenant(tenant), timeout=_SECONDS)


def story(home: Home, tenant: str, request_id: str) -> pb.GetRequestResponse:
    """One story. MeshProblem when nothing is known of it, or it is another tenant's."""
    with _channel(home) as channel:
        request = pb.GetRequestRequest(request_id=request_id)
        return rpc.RequestServiceStub(channel).GetRequest(request, metadata=as_tenant(tenant), timeout=_SECONDS)


def _channel(home: Home) -> AbstractContextManager[grpc.Channel]:
    return insight_channel(home, whose_work="keeps the stories", unknown="stories of requests")
