"""Tells insight what a person does about alerts."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import grpc
from sluice.insight.v1 import alert_service_pb2 as pb
from sluice.insight.v1 import alert_service_pb2_grpc as rpc

from sluice_console.domain.answers import Away, Refused, Silence, TooLate

_STATES = {pb.SILENCE_STATE_PENDING: "to come", pb.SILENCE_STATE_ACTIVE: "active", pb.SILENCE_STATE_EXPIRED: "over"}
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED)
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
        self,
        *,
        silence_id: str,
        rule: str,
        labels: Mapping[str, str],
        lasts: timedelta,
        who: str,
        reason: str,
        now: datetime,
    ) -> Silence:
        """A silence from now on. Asked again with the same id (empty: one is made), the one that there is."""
        request = pb.CreateSilenceRequest(silence_id=silence_id, rule=rule, labels=labels, set_by=who, reason=reason)
        request.ends_at.FromDatetime(now + lasts)
        try:
            return _silence((await self._stub.CreateSilence(request, timeout=self._seconds)).silence)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise _told(error) from None
        for one in await self.silences():
            if one.id == silence_id and one.is_asked_for(rule=rule, labels=labels, lasts=lasts, who=who, reason=reason):
                return one
        raise Refused("This form has set another silence before, or one that is over: open the page again")

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
    except grpc.aio.AioRpcError as error:
        raise _told(error) from None


def _told(error: grpc.aio.AioRpcError) -> Exception:
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TooLate("insight", "insight, which judges the rules, did not answer in time.")
    if code in _AWAY:
        return Away("insight", "insight, which judges the rules, does not answer.")
    # What a service of the mesh says to a caller holds no text of anybody's.
    return Refused(str(error.details() or "insight refused it"))


def _silence(silence: pb.Silence) -> Silence:
    return Silence(
        id=silence.silence_id, rule=silence.rule, labels=dict(sorted(silence.labels.items())), set_by=silence.set_by,
        reason=silence.reason, state=_STATES.get(silence.state, "unknown"),
        starts_at=silence.starts_at.ToDatetime(tzinfo=UTC), ends_at=silence.ends_at.ToDatetime(tzinfo=UTC),
    )  # fmt: skip
