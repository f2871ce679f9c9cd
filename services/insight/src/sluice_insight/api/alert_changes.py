"""AlertService: alerts as they change, silences, acknowledgements."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1.alert_pb2 import AlertAcknowledged
from sluice.insight.v1 import alert_service_pb2 as pb
from sluice.insight.v1 import alert_service_pb2_grpc as pb_grpc
from sluice.insight.v1 import insight_service_pb2
from sluice_kit import context as contexts
from sluice_kit.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
)

from sluice_insight.adapters.alerting.events import Told, moment
from sluice_insight.adapters.alerting.interventions import MOST_SILENCES, ended, silenced
from sluice_insight.api.alerts import DEFAULT_PAGE, LARGEST_PAGE, AlertView, Matches, chosen, matching
from sluice_insight.api.paging import page
from sluice_insight.domain.alerting.silences import RULES_OF_OTHERS, BadSilence, Silence
from sluice_insight.domain.watch import Watcher, Watchers

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["AlertService"].full_name
ALERTS = frozenset({"alerts"})
"""What its watchers wait for."""
HEARTBEAT_SECONDS = 15.0
SETTLE_SECONDS = 0.2
A_MESSAGE = 500
MOST_LABELS = 20
_OPEN = ("pending", "firing")
_CODE = re.compile(r"[A-Za-z0-9_.:#/-]{1,64}", re.ASCII)
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9_.:#/@+-]{1,200}", re.ASCII)
_ADDRESS = re.compile(r"@[^@]*\.[A-Za-z]{2,}")
T = TypeVar("T")


class AlertService(pb_grpc.AlertServiceServicer):
    """Pushes alerts, and takes what people say of them."""

    def __init__(
        self,
        view: AlertView,
        *,
        watchers: Watchers,
        publish: Callable[..., Awaitable[None]],
        rules: Callable[[], Mapping[str, Collection[str]]],
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._view, self._watchers, self._publish, self._rules = view, watchers, publish, rules
        self._heartbeat_seconds = heartbeat_seconds

    async def WatchAlerts(
        self, request: pb.WatchAlertsRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.WatchAlertsResponse]:
        """What stands, then what changes. RESOURCE_EXHAUSTED when too many watch."""
        watcher = self._watchers.join(ALERTS)
        if watcher is None:
            raise ResourceExhausted("too many watchers; try again later", retry_after_seconds=30)
        matches = matching(rule=request.rule, severity=request.severity, tenant_id=request.tenant_id)
        watch = _Watch(self._view, matches, chosen(request.states))
        try:
            for standing in watch.standing():
                yield pb.WatchAlertsResponse(standing=standing)
            while True:
                for message in await self._next(watcher, watch):
                    yield message
        finally:
            self._watchers.leave(watcher)

    async def CreateSilence(
        self, request: pb.CreateSilenceRequest, context: grpc.aio.ServicerContext
    ) -> pb.CreateSilenceResponse:
        """A new silence, or the one there is by this id. INVALID_ARGUMENT, ALREADY_EXISTS for another one, RESOURCE_EXHAUSTED."""
        _operators_only("Silences are set")
        now = self._microseconds()
        asked = _asked(request, now)
        if (known := self._view.interventions.silence(asked.silence_id)) is not None:
            if not _is_same(known, request):
                raise AlreadyExists("there is another silence of this id: ask with a new one")
            return pb.CreateSilenceResponse(silence=_silence(known, now))
        try:
            asked.check(now=now, rules=self._known_rules())
        except BadSilence as bad:
            raise InvalidInput(f"{bad.field} {bad}", field=bad.field) from None
        if sum(not one.is_over(at=now) for one in self._view.interventions.silences()) >= MOST_SILENCES:
            raise ResourceExhausted(f"there are {MOST_SILENCES} silences: end some", retry_after_seconds=60)
        return pb.CreateSilenceResponse(silence=await self._tell(asked))

    async def ExpireSilence(
        self, request: pb.ExpireSilenceRequest, context: grpc.aio.ServicerContext
    ) -> pb.ExpireSilenceResponse:
        """Ends it now. NOT_FOUND where there is none."""
        _operators_only("Silences are ended")
        by = _code(request.expired_by, "expired_by")
        known = self._view.interventions.silence(request.silence_id)
        if known is None:
            raise NotFound(
                "there is no silence of this id (one that was just set on another instance comes in a moment)"
            )
        now = self._microseconds()
        if known.is_over(at=now):
            return pb.ExpireSilenceResponse(silence=_silence(known, now))
        return pb.ExpireSilenceResponse(silence=await self._tell(ended(known, by=by, now=now)))

    async def ListSilences(
        self, request: pb.ListSilencesRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListSilencesResponse:
        """One page. INVALID_ARGUMENT on a bad page token."""
        _operators_only("Silences are listed")
        now = self._microseconds()
        states = set(request.states) - {pb.SILENCE_STATE_UNSPECIFIED}
        found = [_silence(one, now) for one in self._view.interventions.silences()]
        found = [one for one in found if not states or one.state in states]
        shown = page(
            found, size=request.page_size, default=DEFAULT_PAGE, largest=LARGEST_PAGE, token=request.page_token
        )
        return pb.ListSilencesResponse(silences=shown.items, next_page_token=shown.next_token)

    async def AcknowledgeAlert(
        self, request: pb.AcknowledgeAlertRequest, context: grpc.aio.ServicerContext
    ) -> pb.AcknowledgeAlertResponse:
        """Says who has taken it on. NOT_FOUND, FAILED_PRECONDITION for one that is over."""
        _operators_only("Alerts are acknowledged")
        event = AlertAcknowledged(
            alert_id=request.alert_id,
            acknowledged_by=_code(request.acknowledged_by, "acknowledged_by"),
            reason=_code(request.reason, "reason") if request.reason else "",
        )
        told = self._view.log.get(request.alert_id)
        if told is None:
            raise NotFound("there is no alert of this id")
        if told.event.state not in _OPEN:
            raise PreconditionFailed("this alert is over: there is nothing left to take on")
        known = self._view.interventions.acknowledgement(request.alert_id)
        after = moment(known.metadata.occurred_at) + 1 if known else 0
        event.metadata.occurred_at.FromMicroseconds(max(self._microseconds(), after))
        await self._publish(event)
        self._view.interventions.take(event)
        return pb.AcknowledgeAlertResponse(alert=self._view.alert(told))

    def _known_rules(self) -> dict[str, set[str]]:
        """Those in force, and those that alerts tell of, with their labels: of other teams' producers, and of a rule that was taken out,
        or told other things apart, when it fired."""
        known = {rule: set(names) for rule, names in (*RULES_OF_OTHERS.items(), *self._rules().items())}
        for told in self._view.log.told():
            if _CODE.fullmatch(told.event.rule):
                known.setdefault(told.event.rule, set()).update(filter(_LABEL.fullmatch, told.event.labels))
        return known

    async def _tell(self, silence: Silence) -> pb.Silence:
        event = silenced(silence)
        await self._publish(event)  # durable now, whether or not the broker is there
        self._view.interventions.take(event)
        return _silence(silence, self._microseconds())

    async def _next(self, watcher: Watcher, watch: _Watch) -> list[pb.WatchAlertsResponse]:
        await watcher.changed(timeout=self._heartbeat_seconds, settle=SETTLE_SECONDS)
        # Also after silence: a silence begins and ends without an event.
        if changed := watch.changed():
            return [pb.WatchAlertsResponse(changed=pb.ChangedAlerts(alerts=part)) for part in _parts(changed)]
        return [pb.WatchAlertsResponse(heartbeat=pb.AlertHeartbeat(at=_stamp(self._microseconds())))]

    def _microseconds(self) -> int:
        return int(self._view.now() * 1_000_000)


class _Watch:
    """What one watcher knows: at most one entry for each alert of the log."""

    def __init__(self, view: AlertView, matches: Matches, states: frozenset[str]) -> None:
        self._view, self._matches, self._states = view, matches, states
        self._known: dict[str, tuple[object, ...]] = {}
        self._shown: set[str] = set()

    def standing(self) -> list[pb.StandingAlerts]:
        """What is open now; one empty message where nothing is."""
        found = self._view.log.find(self._matches)
        self._known = {told.alert_id: self._view.version(told) for told in found}
        stands = [told for told in found if told.event.state in _OPEN and self._wants(told)]
        self._shown = {told.alert_id for told in stands}
        parts = list(_parts([self._view.alert(told) for told in stands])) or [[]]
        left = len(stands)
        messages = []
        for part in parts:
            left -= len(part)
            messages.append(pb.StandingAlerts(alerts=part, left_count=left))
        return messages

    def changed(self) -> list[insight_service_pb2.Alert]:
        """What is not as it was told, newest first."""
        found = self._view.log.find(self._matches)
        versions = {told.alert_id: self._view.version(told) for told in found}
        new = [told for told in found if self._known.get(told.alert_id) != versions[told.alert_id]]
        self._known = versions
        # The change that leads out of the states that are watched is told, too.
        told_of = [told for told in new if self._wants(told) or told.alert_id in self._shown]
        self._shown = {alert_id for alert_id in self._shown if alert_id in versions}
        for told in told_of:
            (self._shown.add if self._wants(told) else self._shown.discard)(told.alert_id)
        return [self._view.alert(told) for told in told_of]

    def _wants(self, told: Told) -> bool:
        return not self._states or told.event.state in self._states


def _parts(found: Sequence[T]) -> Iterable[Sequence[T]]:
    return (found[first : first + A_MESSAGE] for first in range(0, len(found), A_MESSAGE))


def _operators_only(what: str) -> None:
    if contexts.current().tenant_id:
        raise PermissionDenied(f"{what} by operators, not on behalf of a tenant.")


def _asked(request: pb.CreateSilenceRequest, now: int) -> Silence:
    if not request.HasField("ends_at"):
        raise InvalidInput("ends_at is needed: a silence ends", field="ends_at")
    return Silence(
        silence_id=_code(request.silence_id, "silence_id") if request.silence_id else uuid.uuid4().hex,
        rule=_code(request.rule, "rule") if request.rule else "",
        labels=_labels(request.labels),
        starts_at=moment(request.starts_at) if request.HasField("starts_at") else now,
        ends_at=moment(request.ends_at),
        set_by=_code(request.set_by, "set_by"),
        reason=_code(request.reason, "reason"),
        told_at=now,
    )


def _is_same(known: Silence, request: pb.CreateSilenceRequest) -> bool:
    """Whether a silence is the one that is asked for again, ended or not."""
    is_same_start = not request.HasField("starts_at") or moment(request.starts_at) == known.starts_at
    is_same_end = known.expired_by or moment(request.ends_at) == known.ends_at
    told = known.rule, known.labels, known.set_by, known.reason
    asked = request.rule, dict(request.labels), request.set_by, request.reason
    return bool(is_same_start and is_same_end and told == asked)


def _code(told: str, field: str) -> str:
    """A code, an id or a ticket's number: it is published, so no prose, in which a name would stand."""
    if not _CODE.fullmatch(told):
        raise InvalidInput(
            f"{field} must be a code, an id or the number of a ticket (1 to 64 of A-Z a-z 0-9 _ . : # / -): it is published, so no names"
            " and no e-mail addresses",
            field=field,
        )
    return told


def _labels(told: Mapping[str, str]) -> dict[str, str]:
    labels = dict(told)
    if len(labels) > MOST_LABELS:
        raise InvalidInput(f"give at most {MOST_LABELS} labels", field="labels")
    for name, value in labels.items():
        if not _LABEL.fullmatch(name) or not _VALUE.fullmatch(value or "-") or _ADDRESS.search(value):
            raise InvalidInput(
                "labels must be those of alerts, such as tenant_id=acme, each with its whole value (at most 200 of A-Z a-z 0-9 _ . : # / @ + -),"
                " or empty for alerts that have none",
                field="labels",
            )
    return labels


def _silence(silence: Silence, now: int) -> pb.Silence:
    state = pb.SILENCE_STATE_EXPIRED if silence.is_over(at=now) else (
        pb.SILENCE_STATE_PENDING if now < silence.starts_at else pb.SILENCE_STATE_ACTIVE
    )  # fmt: skip
    return pb.Silence(
        silence_id=silence.silence_id, rule=silence.rule, labels=silence.labels, starts_at=_stamp(silence.starts_at),
        ends_at=_stamp(silence.ends_at), set_by=silence.set_by, reason=silence.reason, expired_by=silence.expired_by,
        state=state,
    )  # fmt: skip


def _stamp(microseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(microseconds)
    return stamp
