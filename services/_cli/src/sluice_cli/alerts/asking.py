"""Asks insight about alerts, and tells it what people do about them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import grpc
from sluice.insight.v1 import alert_service_pb2 as pb
from sluice.insight.v1 import alert_service_pb2_grpc as rpc
from sluice.insight.v1 import insight_service_pb2 as insight
from sluice.insight.v1 import insight_service_pb2_grpc as insight_rpc

from sluice_cli.mesh.home import Home
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.service_channel import as_tenant, insight_channel

_SECONDS = 10.0
_PREFIX = "ALERT_STATE_"
STATES = {name.removeprefix(_PREFIX).lower(): value for name, value in insight.AlertState.items() if value}
_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def state_name(value: int) -> str:
    """`firing`; a number for one that this command is too old for."""
    return next((name for name, known in STATES.items() if known == value), str(value))


def states(names: Sequence[str]) -> list[Any]:
    """By name. MeshProblem for an unknown one."""
    if unknown := [name for name in names if name not in STATES]:
        raise MeshProblem(f"--state {unknown[0]!r} is not known: there are {', '.join(STATES)}.")
    return [STATES[name] for name in names]


def span(text: str) -> timedelta:
    """`90s`, `30m`, `2h`, `1d`. MeshProblem for what is none."""
    if not (found := _SPAN.fullmatch(text)) or not int(found[1]):
        raise MeshProblem(f"--for {text!r} is no time: write 30m, 2h or 1d (a silence lasts seven days at most).")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def labels(told: Sequence[str]) -> dict[str, str]:
    """`tenant_id=acme` and such; `model=` for alerts that have none. MeshProblem for what is no label."""
    found: dict[str, str] = {}
    for one in told:
        name, is_there, value = one.partition("=")
        if not name or not is_there or name in found:
            raise MeshProblem(
                f"--label {one!r} must be name=value, each name once, such as tenant_id=acme (or model= for alerts of no one model)."
            )
        found[name] = value
    return found


def listed(home: Home, tenant: str, request: insight.ListAlertsRequest) -> insight.ListAlertsResponse:
    """One page, newest first. MeshProblem where insight is away or refuses."""
    with _channel(home) as channel:
        stub = insight_rpc.InsightServiceStub(channel)
        return stub.ListAlerts(request, metadata=as_tenant(tenant), timeout=_SECONDS)


def watched(home: Home, tenant: str, request: pb.WatchAlertsRequest) -> Iterator[pb.WatchAlertsResponse]:
    """Until it is interrupted. MeshProblem where insight goes away or refuses."""
    with _channel(home) as channel:
        yield from rpc.AlertServiceStub(channel).WatchAlerts(request, metadata=as_tenant(tenant))


def silenced(
    home: Home, *, rule: str, about: Mapping[str, str], lasts: timedelta, who: str, reason: str, now: datetime
) -> pb.Silence:
    """A new silence from now on. MeshProblem where insight is away or refuses."""
    request = pb.CreateSilenceRequest(rule=rule, labels=about, set_by=who, reason=reason)
    request.ends_at.FromDatetime(now + lasts)
    with _channel(home) as channel:
        return rpc.AlertServiceStub(channel).CreateSilence(request, timeout=_SECONDS).silence


def expired(home: Home, silence_id: str, *, who: str) -> pb.Silence:
    """The silence, ended. MeshProblem where there is none."""
    with _channel(home) as channel:
        request = pb.ExpireSilenceRequest(silence_id=silence_id, expired_by=who)
        return rpc.AlertServiceStub(channel).ExpireSilence(request, timeout=_SECONDS).silence


def silences(home: Home, *, is_all: bool) -> pb.ListSilencesResponse:
    """Those that hold or will; with is_all those that are over, too."""
    wanted = [] if is_all else [pb.SILENCE_STATE_ACTIVE, pb.SILENCE_STATE_PENDING]
    with _channel(home) as channel:
        request = pb.ListSilencesRequest(states=wanted, page_size=1000)
        return rpc.AlertServiceStub(channel).ListSilences(request, timeout=_SECONDS)


def acknowledged(home: Home, alert_id: str, *, who: str, reason: str) -> insight.Alert:
    """The alert, taken on. MeshProblem where there is none, or it is over."""
    with _channel(home) as channel:
        request = pb.AcknowledgeAlertRequest(alert_id=alert_id, acknowledged_by=who, reason=reason)
        return rpc.AlertServiceStub(channel).AcknowledgeAlert(request, timeout=_SECONDS).alert


def _channel(home: Home) -> AbstractContextManager[grpc.Channel]:
    return insight_channel(home, whose_work="judges the rules", unknown="silences")
