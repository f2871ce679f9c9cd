"""Tells insight what a person does about alerts."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import grpc
from sluice.insight.v1 import alert_service_pb2 as pb
from sluice.insight.v1 import alert_service_pb2_grpc as rpc

from sluice_console.domain.answers import Away, Refused, Silence

_STATES = {pb.SILENCE_STATE_PENDING: "to come", pb.SILENCE_STATE_ACTIVE: "active", pb.SILENCE_STATE_EXPIRED: "over"}
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
T = TypeVar("T")


class AlertDesk:
    """Silences and acknowledgements. Every method raises Away when insight does not answer in time, Refused when it says no."""

    def __init__(self, channel: Any, *, seconds: float) -> None:
        self._stub = rpc.AlertServiceStub(channel)
        self._seconds = seconds

    async def silences(self) -> list[Silence]:
        """Those that hold or will, those that end last first."""
        request = pb.ListSilencesRequest(states=[pb.SILENCE_STATE_ACTIVE, pb.SILENCE_STATE_PENDING], page_size=1000)
        answer = await _asked(self._stub.ListSilences(request, timeout=self._seconds))
        return [_silence(one) for one in answer.silences]

    async def silence(
        self, *, rule: str, labels: Mapping[str, str], lasts: timedelta, who: str, reason: str, now: datetime
    ) -> Silence:
        """A silence from now on."""
        request = pb.CreateSilenceRequest(rule=rule, labels=labels, set_by=who, reason=reason)
        request.ends_at.FromDatetime(now + lasts)
        return _silence((await _asked(self._stub.CreateSilence(request, timeout=self._seconds))).silence)

    async def expire(self, silence_id: str, *, who: str) -> Silence:
        """The silence, ended now."""
        request = pb.ExpireSilenceRequest(silence_id=silence_id, expired_by=who)
        return _silence((await _asked(self._stub.ExpireSilence(request, timeout=self._seconds))).silence)

    async def acknowledge(self, alert_id: str, *, who: str, reason: str) -> None:
        """Takes an alert on."""
        request = pb.AcknowledgeAlertRequest(alert_id=alert_id, acknowledged_by=who, reason=reason)
        await _asked(self._stub.AcknowledgeAlert(request, timeout=self._seconds))


async def _asked(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.RpcError as error:
        if error.code() in _AWAY:  # type: ignore[attr-defined]
            raise Away("insight", "insight, which judges the rules, does not answer.") from None
        # What a service of the mesh says to a caller holds no text of anybody's.
        raise Refused(str(error.details() or "insight refused it")) from None  # type: ignore[attr-defined]


def _silence(silence: pb.Silence) -> Silence:
    return Silence(
        id=silence.silence_id, rule=silence.rule, labels=dict(sorted(silence.labels.items())), set_by=silence.set_by,
        reason=silence.reason, state=_STATES.get(silence.state, "unknown"),
        starts_at=silence.starts_at.ToDatetime(tzinfo=UTC), ends_at=silence.ends_at.ToDatetime(tzinfo=UTC),
    )  # fmt: skip
