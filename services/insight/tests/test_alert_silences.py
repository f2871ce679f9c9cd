"""Silences and acknowledgements over real gRPC, what they do to alerts, and the watch of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st
from sluice.events.v1.alert_pb2 import AlertRaised, AlertSilenced
from sluice.insight.v1 import alert_service_pb2 as pb
from sluice.insight.v1 import insight_service_pb2
from sluice.insight.v1.alert_service_pb2_grpc import AlertServiceStub, add_AlertServiceServicer_to_server
from sluice_insight.adapters.alerting.events import event_of
from sluice_insight.adapters.alerting.interventions import Interventions
from sluice_insight.adapters.alerting.log import AlertLog
from sluice_insight.api.alert_changes import SERVICE_NAME, AlertService
from sluice_insight.api.alerts import AlertView, listed
from sluice_insight.domain.alerting.conditions import labels_of
from sluice_insight.domain.alerting.rules import (
    DeadLetters,
    Disparity,
    MissingEvents,
    Rule,
    Standstill,
    Threshold,
)
from sluice_insight.domain.alerting.states import FIRING, PENDING, RESOLVED, Alert, Alerts, Signal
from sluice_insight.domain.board import MINUTE, Point
from sluice_insight.domain.catalogue import Value
from sluice_insight.domain.part import DIMENSIONS, Series
from sluice_insight.domain.watch import Watchers
from sluice_insight.settings import InsightSettings
from sluice_kit.server import GrpcServer

BEGIN = 1_760_000_040 * 1_000_000
HOUR = 60 * MINUTE
DEADLINE = 20
ITS = Rule(name="r", condition=Threshold(above=0.5), severity="warning", summary="$tenant_id", lasts=0)
ACME = Signal(labels=(("tenant_id", "acme"),))


# --- what a silence does to an alert ---


def hushed(alerts: Alerts, changed: list[Alert], *silences: str, at: int = BEGIN) -> list[tuple[str, tuple[str, ...]]]:
    return [(alert.state, alert.silenced_by) for alert in alerts.hush(changed, lambda _: silences, at=at)]


def test_what_begins_to_fire_silenced_is_told_when_the_silence_ends_and_its_end_is_told_then() -> None:
    alerts = Alerts()
    assert hushed(alerts, alerts.step(ITS, [ACME], at=BEGIN), "s") == [(FIRING, ("s",))]
    assert hushed(alerts, alerts.step(ITS, [ACME], at=BEGIN + MINUTE), "s") == []
    assert hushed(alerts, alerts.step(ITS, [ACME], at=BEGIN + 2 * MINUTE)) == [(FIRING, ())]
    assert hushed(alerts, alerts.step(ITS, [ACME], at=BEGIN + 3 * MINUTE)) == []
    assert hushed(alerts, alerts.step(ITS, [], at=BEGIN + 4 * MINUTE), "later") == [(RESOLVED, ())]


def test_the_end_of_what_nobody_was_told_of_is_told_to_nobody() -> None:
    alerts = Alerts()
    hushed(alerts, alerts.step(ITS, [ACME], at=BEGIN), "s")
    assert hushed(alerts, alerts.step(ITS, [], at=BEGIN + MINUTE)) == [(RESOLVED, ("s",))]


def test_what_was_told_before_the_silence_stays_told() -> None:
    alerts = Alerts()
    assert hushed(alerts, alerts.step(ITS, [ACME], at=BEGIN)) == [(FIRING, ())]
    assert hushed(alerts, alerts.step(ITS, [ACME], at=BEGIN + MINUTE), "s") == []


def test_fires_and_resolves_in_one_round_without_being_told() -> None:
    alerts = Alerts()
    changed = alerts.step(ITS, [ACME], at=BEGIN) + alerts.step(ITS, [], at=BEGIN + MINUTE)
    assert hushed(alerts, changed, "s") == [(FIRING, ("s",)), (RESOLVED, ("s",))]
    assert alerts.open() == []


def test_hushing_forgets_nothing_that_later_minutes_of_the_round_said() -> None:
    its, alerts = replace(ITS, keeps=2 * MINUTE), Alerts()
    changed = alerts.step(its, [ACME], at=BEGIN) + alerts.step(its, [ACME], at=BEGIN + MINUTE)
    hushed(alerts, changed)
    assert alerts.step(its, [], at=BEGIN + 2 * MINUTE) == [], "it held a minute ago and is kept for two"


@given(
    held=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40),
    lasts=st.integers(0, 3),
    restart=st.integers(0, 40),
)
def test_receivers_hear_of_a_beginning_and_an_end_or_of_neither_also_over_a_restart(
    held: list[tuple[bool, bool]], lasts: int, restart: int
) -> None:
    its = Rule(name="r", condition=Threshold(above=0.5), severity="info", summary="", lasts=lasts * MINUTE)
    alerts, log = Alerts(), AlertLog()
    heard: dict[str, list[str]] = {}
    ids: set[str] = set()
    for number, (holds, silent) in enumerate(held):
        if number == restart:
            alerts = Alerts(alert for told in log.told() if (alert := told.restored()))
        at = BEGIN + number * MINUTE
        changed = alerts.step(its, [ACME] if holds else [], at=at)
        for alert in alerts.hush(changed, lambda _, silent=silent: ("s",) if silent else (), at=at):
            event = event_of(alert)
            event.metadata.producer = "sluice-insight/0"
            assert event.metadata.event_id not in ids
            ids.add(event.metadata.event_id)
            assert log.take(event), "the log must know every change that is published"
            if not event.silenced_by and not event.never_fired and event.state != PENDING:
                heard.setdefault(event.alert_id, []).append(event.state)
        for alert in alerts.open():
            if alert.state == FIRING and not silent:
                assert heard[alert.alert_id] == [FIRING], "who is not silenced now was told"
    assert all(states in ([FIRING], [FIRING, RESOLVED]) for states in heard.values())


# --- the service ---


@dataclass
class Clock:
    now: float = BEGIN / 1e6

    def __call__(self) -> float:
        return self.now


@dataclass
class Desk:
    """The service, the topic that it writes to, and a way to raise alerts."""

    clock: Clock
    view: AlertView
    rules: dict[str, set[str]] = field(
        default_factory=lambda: {
            "r": {"tenant_id", "model"},
            "quality.failing": {"tenant_id", "model"},
            "quality.slow": {"tenant_id", "model"},
            "mesh.standstill": {"group", "topic"},
        }
    )
    published: list[Message] = field(default_factory=list)
    stub: AlertServiceStub = field(init=False)
    alerts: Alerts = field(default_factory=Alerts)

    async def publish(self, *events: Message) -> None:
        # As it is on the topic: readers take bytes, not the object.
        self.published += [type(event).FromString(event.SerializeToString()) for event in events]

    def raise_alert(self, *signals: Signal, minute: int = 0, rule: Rule = ITS) -> list[AlertRaised]:
        found = [event_of(alert) for alert in self.alerts.step(rule, signals, at=BEGIN + minute * MINUTE)]
        for event in found:
            event.metadata.producer = "sluice-insight/0"
            self.view.log.take(event)
        return found

    async def silence(self, **more: object) -> pb.Silence:
        asked = {"rule": "r", "set_by": "op-1", "reason": "OPS-7"} | more
        request = pb.CreateSilenceRequest(**asked)  # type: ignore[arg-type]
        if not request.HasField("ends_at"):
            request.ends_at.FromMicroseconds(int(self.clock.now * 1e6) + 2 * HOUR)
        return (await self.stub.CreateSilence(request)).silence


@pytest.fixture()
async def desk() -> AsyncIterator[Desk]:
    clock, watchers = Clock(), Watchers(limit=2)
    log, interventions = (each(changed=lambda: watchers.notice("alerts", 0)) for each in (AlertLog, Interventions))
    made = Desk(clock, AlertView(log, interventions, now=clock))  # type: ignore[arg-type]
    settings = InsightSettings(grpc_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", drain_seconds=0.1)
    server = GrpcServer(service="insight", settings=settings)
    service = AlertService(
        made.view, watchers=watchers, publish=made.publish, rules=lambda: made.rules, heartbeat_seconds=0.3
    )
    add_AlertServiceServicer_to_server(service, server.grpc)
    await server.start(service_names=[SERVICE_NAME])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        made.stub = AlertServiceStub(channel)
        yield made
    await server.stop()


def field_of(error: grpc.RpcError) -> str:
    for detail in rpc_status.from_call(error).details:  # type: ignore[union-attr]
        told = error_details_pb2.BadRequest()
        if detail.Unpack(told):
            return str(told.field_violations[0].field)
    return ""


async def test_a_silence_stands_on_the_topic_and_is_read_back_by_another_instance(desk: Desk) -> None:
    made = await desk.silence(labels={"tenant_id": "acme"})
    assert made.state == pb.SILENCE_STATE_ACTIVE
    ended = (
        await desk.stub.ExpireSilence(pb.ExpireSilenceRequest(silence_id=made.silence_id, expired_by="op-2"))
    ).silence
    assert (ended.state, ended.expired_by, ended.ends_at.ToMicroseconds()) == (pb.SILENCE_STATE_EXPIRED, "op-2", BEGIN)
    other = Interventions()
    # Copies come again in any order: the newest stands.
    for event in [*desk.published, *desk.published, *reversed(desk.published)]:
        other.take(event)
    assert other.silences() == desk.view.interventions.silences()
    [told] = other.silences()
    assert (told.set_by, told.reason, told.expired_by, told.labels) == ("op-1", "OPS-7", "op-2", {"tenant_id": "acme"})


async def test_an_end_counts_even_where_the_clock_of_who_tells_it_is_behind(desk: Desk) -> None:
    made = await desk.silence()
    desk.clock.now -= 1
    ended = (
        await desk.stub.ExpireSilence(pb.ExpireSilenceRequest(silence_id=made.silence_id, expired_by="op"))
    ).silence
    assert (ended.state, ended.expired_by) == (pb.SILENCE_STATE_EXPIRED, "op")


async def test_a_silence_begins_and_ends_by_itself(desk: Desk) -> None:
    start, end = BEGIN + HOUR, BEGIN + 2 * HOUR
    request = pb.CreateSilenceRequest(rule="r", set_by="op", reason="x")
    request.starts_at.FromMicroseconds(start)
    request.ends_at.FromMicroseconds(end)
    made = (await desk.stub.CreateSilence(request)).silence
    assert made.state == pb.SILENCE_STATE_PENDING
    silencing = desk.view.interventions.silencing
    assert [bool(silencing("r", {}, at=at)) for at in (start - 1, start, end - 1, end)] == [False, True, True, False]
    desk.clock.now = end / 1e6
    listed_ = (await desk.stub.ListSilences(pb.ListSilencesRequest())).silences
    assert [one.state for one in listed_] == [pb.SILENCE_STATE_EXPIRED]
    only = pb.ListSilencesRequest(states=[pb.SILENCE_STATE_ACTIVE])
    assert not (await desk.stub.ListSilences(only)).silences


def test_silences_that_are_over_cost_nothing_when_alerts_are_looked_at() -> None:
    class Counted(dict[str, str]):
        looked_at = 0

        def get(self, *args: str) -> str:  # type: ignore[override]
            self.looked_at += 1
            return super().get(*args)  # type: ignore[return-value]

    kept = Interventions()
    for number in range(3_000):
        end = BEGIN + (number - 2_990) * MINUTE
        silence = AlertSilenced(silence_id=f"s{number}", labels={"tenant_id": "acme"}, set_by="op", reason="x")
        silence.ends_at.FromMicroseconds(end)
        silence.starts_at.FromMicroseconds(end - HOUR)
        silence.metadata.occurred_at.FromMicroseconds(1)
        kept.take(silence)
        if number == 2_995:
            assert kept.silencing("r", {"tenant_id": "acme"}, at=BEGIN) == tuple(f"s{n}" for n in range(2_991, 2_996))
    labels = Counted(tenant_id="acme")
    assert kept.silencing("r", labels, at=BEGIN) == tuple(f"s{n}" for n in range(2_991, 3_000))
    assert labels.looked_at == 9
    ended = AlertSilenced(silence_id="s2999", labels={"tenant_id": "acme"})
    ended.ends_at.FromMicroseconds(BEGIN)
    ended.metadata.occurred_at.FromMicroseconds(2)
    kept.take(ended)
    assert kept.silencing("r", labels, at=BEGIN) == tuple(f"s{n}" for n in range(2_991, 2_999))


async def test_an_empty_label_leaves_out_the_alerts_that_have_one(desk: Desk) -> None:
    made = await desk.silence(labels={"tenant_id": "", "model": "small"})
    assert dict(made.labels) == {"tenant_id": "", "model": "small"}
    read_back = Interventions()
    for event in desk.published:
        read_back.take(event)
    for each in (desk.view.interventions, read_back):
        silenced = [
            bool(each.silencing("r", labels, at=BEGIN))
            for labels in (
                {"model": "small"},
                {"model": "small", "route": "chat"},
                {"model": "small", "tenant_id": "acme"},
                {},
            )
        ]
        assert silenced == [True, True, False, False]


@pytest.mark.parametrize(
    ("more", "field_"),
    [
        ({"rule": ""}, "rule"),
        ({"rule": "", "labels": {"tenant_id": ""}}, "rule"),
        ({"reason": ""}, "reason"),
        ({"reason": "Maria said so"}, "reason"),
        ({"set_by": "maria@example.com"}, "set_by"),
        ({"set_by": ""}, "set_by"),
        ({"labels": {"user": "maria@example.com"}}, "labels"),
        ({"labels": {"tenant_id": "two words"}}, "labels"),
        ({"labels": {f"l{i}": "x" for i in range(21)}}, "labels"),
    ],
)
async def test_a_silence_is_bounded_and_holds_no_prose(desk: Desk, more: dict[str, object], field_: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await desk.silence(**more)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field_of(caught.value) == field_
    assert "maria" not in str(caught.value.details()).lower()
    assert desk.published == []


@pytest.mark.parametrize(
    ("start", "end", "field_"),
    [
        (0, 0, "ends_at"),
        (0, -1, "ends_at"),
        (0, 7 * 24 * HOUR + 1, "ends_at"),
        (7 * 24 * HOUR + 1, 8 * 24 * HOUR, "starts_at"),
    ],
)
async def test_a_silence_ends_after_now_within_seven_days(desk: Desk, start: int, end: int, field_: str) -> None:
    request = pb.CreateSilenceRequest(rule="r", set_by="op", reason="x")
    request.starts_at.FromMicroseconds(BEGIN + start)
    request.ends_at.FromMicroseconds(BEGIN + end)
    with pytest.raises(grpc.RpcError) as caught:
        await desk.stub.CreateSilence(request)
    assert field_of(caught.value) == field_
    request.ClearField("ends_at")
    with pytest.raises(grpc.RpcError) as caught:
        await desk.stub.CreateSilence(request)
    assert field_of(caught.value) == "ends_at"


async def test_asking_again_makes_no_second_silence_and_another_one_is_refused(desk: Desk) -> None:
    first, again = await desk.silence(silence_id="s-1"), await desk.silence(silence_id="s-1")
    assert first == again
    assert len(desk.published) == 1
    with pytest.raises(grpc.RpcError) as caught:
        await desk.silence(silence_id="s-1", rule="another")
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("quality.failin", "rule quality.failin does not exist: did you mean quality.failing or quality.slow?"),
        ("cost.unprised", "rule cost.unprised does not exist: did you mean cost.unpriced?"),
        (
            "x",
            "rule x does not exist: there are cost.unpriced, mesh.standstill, quality.failing, quality.slow, r",
        ),
    ],
)
async def test_a_silence_of_a_rule_that_does_not_exist_is_refused_with_those_like_it(
    desk: Desk, rule: str, told: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await desk.silence(rule=rule, labels={"tenant_id": "acme"})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field_of(caught.value) == "rule"
    assert caught.value.details() == told
    assert desk.published == []


@pytest.mark.parametrize(
    ("rule", "labels", "told"),
    [
        ("r", {"tenant": "acme"}, "labels named tenant do not exist on alerts of r: did you mean tenant_id?"),
        ("r", {"colour": "red"}, "labels named colour do not exist on alerts of r: there are model, tenant_id"),
        ("r", {"topic": "t"}, "labels named topic do not exist on alerts of r: there are model, tenant_id"),
        ("cost.unpriced", {"tenant_id": "acme"}, "labels named tenant_id do not exist on alerts of cost.unpriced: there is model"),
        ("", {"tenant": "acme"}, "labels named tenant do not exist on any alert: did you mean tenant_id?"),
        ("", {"colour": "red"}, "labels named colour do not exist on any alert: there are experiment_arm, group, model,"),
        ("r", {"modle": ""}, "labels named modle do not exist on alerts of r: did you mean model?"),
        ("", {"model": "m", "topic": "t"}, "labels model, topic never stand on one alert together"),
    ],
)  # fmt: skip
async def test_a_silence_by_labels_that_no_alert_can_have_is_refused_with_those_like_them(
    desk: Desk, rule: str, labels: dict[str, str], told: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        await desk.silence(rule=rule, labels=labels)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field_of(caught.value) == "labels"
    assert (caught.value.details() or "").startswith(told)
    assert desk.published == []


async def test_labels_of_alerts_that_are_known_may_be_silenced_and_a_dimension_that_a_rule_never_has_left_out(
    desk: Desk,
) -> None:
    with pytest.raises(grpc.RpcError, match="shard do not exist"):
        await desk.silence(labels={"shard": "1"})
    desk.raise_alert(Signal(labels=(("shard", "1"),)))
    assert dict((await desk.silence(labels={"shard": "1"})).labels) == {"shard": "1"}
    # As the console silences one alert: of its labels, and of no other dimension.
    whole = {"topic": "t", "group": "g", "route": "", "experiment_arm": ""}
    assert dict((await desk.silence(rule="mesh.standstill", labels=whole)).labels) == whole


@pytest.mark.parametrize(
    ("its", "labels"),
    [
        (replace(ITS, metric="quality.failed", group_by=("model",), filters={"tenant_id": frozenset({"a"})}), {"model"}),
        (replace(ITS, metric="quality.failed"), set()),
        (replace(ITS, metric="drift.drifted"), set(DIMENSIONS)),
        (replace(ITS, condition=MissingEvents(above=0)), {"producer", "topic"}),
        (replace(ITS, condition=DeadLetters(above=0)), {"topic"}),
        (replace(ITS, condition=Standstill(groups=("g",))), {"group", "topic"}),
        (replace(ITS, condition=Disparity(rate="selection_rate", ratio_below=0.8)), {*DIMENSIONS, "attribute", "group", "policy"}),
    ],
)  # fmt: skip
def test_which_labels_the_alerts_of_a_rule_can_have(its: Rule, labels: set[str]) -> None:
    assert labels_of(its) == labels


async def test_rules_of_other_services_and_of_alerts_may_be_silenced_and_labels_without_a_rule(desk: Desk) -> None:
    assert (await desk.silence(rule="cost.unpriced")).rule == "cost.unpriced"
    with pytest.raises(grpc.RpcError, match=r"team\.own does not exist"):
        await desk.silence(rule="team.own")
    desk.raise_alert(ACME, rule=replace(ITS, name="team.own"))
    assert (await desk.silence(rule="team.own")).rule == "team.own"
    assert (await desk.silence(rule="", labels={"tenant_id": "acme"})).rule == ""


async def test_a_silence_that_stands_is_told_again_when_its_rule_is_gone(desk: Desk) -> None:
    made = await desk.silence(silence_id="s-1", rule="quality.slow")
    desk.rules = {"r": set()}
    assert await desk.silence(silence_id="s-1", rule="quality.slow") == made


async def test_of_many_rules_only_some_are_listed(desk: Desk) -> None:
    desk.rules = {f"quality.rule-{number:03}": set() for number in range(100)}
    with pytest.raises(grpc.RpcError, match=r"there are cost\.unpriced, .*quality\.rule-018 and 81 more"):
        await desk.silence(rule="x")


async def test_nobody_acts_on_behalf_of_a_tenant(desk: Desk) -> None:
    [event] = desk.raise_alert(ACME)
    made = await desk.silence()
    as_tenant = (("x-sluice-tenant-id", "acme"),)
    asked = [
        (desk.stub.CreateSilence, pb.CreateSilenceRequest(rule="r", set_by="x", reason="x")),
        (desk.stub.ExpireSilence, pb.ExpireSilenceRequest(silence_id=made.silence_id, expired_by="x")),
        (desk.stub.ListSilences, pb.ListSilencesRequest()),
        (desk.stub.AcknowledgeAlert, pb.AcknowledgeAlertRequest(alert_id=event.alert_id, acknowledged_by="x")),
    ]
    for method, request in asked:
        with pytest.raises(grpc.RpcError) as caught:
            await method(request, metadata=as_tenant)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert len(desk.published) == 1


async def test_an_acknowledgement_stands_with_its_alert_until_another_takes_it_on(desk: Desk) -> None:
    [event] = desk.raise_alert(ACME)
    for who in ("op-1", "op-2"):
        request = pb.AcknowledgeAlertRequest(alert_id=event.alert_id, acknowledged_by=who, reason="INC-3")
        taken = (await desk.stub.AcknowledgeAlert(request)).alert.acknowledgement
        assert (taken.by, taken.reason) == (who, "INC-3")
    [alert] = listed(desk.view, insight_service_pb2.ListAlertsRequest()).alerts
    assert alert.acknowledgement.by == "op-2"
    desk.raise_alert(minute=1)
    for alert_id, code in ((event.alert_id, "FAILED_PRECONDITION"), ("none", "NOT_FOUND")):
        with pytest.raises(grpc.RpcError) as caught:
            await desk.stub.AcknowledgeAlert(pb.AcknowledgeAlertRequest(alert_id=alert_id, acknowledged_by="op"))
        assert caught.value.code().name == code
    with pytest.raises(grpc.RpcError) as caught:
        await desk.stub.ExpireSilence(pb.ExpireSilenceRequest(silence_id="none", expired_by="op"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# --- the watch ---


async def read(stream: grpc.aio.UnaryStreamCall, kind: str) -> object:
    """The next message of a kind; heartbeats between are passed over."""
    async with asyncio.timeout(DEADLINE):
        while True:
            message = await stream.read()
            if message.WhichOneof("event") == kind:
                return getattr(message, kind)


async def test_a_watch_tells_what_stands_then_every_change_then_that_it_lives(desk: Desk) -> None:
    desk.raise_alert(ACME)
    stream = desk.stub.WatchAlerts(pb.WatchAlertsRequest())
    standing = await read(stream, "standing")
    assert [(one.rule, one.state) for one in standing.alerts] == [("r", insight_service_pb2.ALERT_STATE_FIRING)]
    assert standing.left_count == 0
    await desk.silence(labels={"tenant_id": "acme"})
    [changed] = (await read(stream, "changed")).alerts
    assert len(changed.silenced_by) == 1
    desk.clock.now += 3 * 3600
    [changed] = (await read(stream, "changed")).alerts
    assert not changed.silenced_by, "a silence ends without an event, and the watch tells it"
    request = pb.AcknowledgeAlertRequest(alert_id=changed.alert_id, acknowledged_by="op-1")
    await desk.stub.AcknowledgeAlert(request)
    [changed] = (await read(stream, "changed")).alerts
    assert changed.acknowledgement.by == "op-1"
    desk.raise_alert(minute=1)
    [changed] = (await read(stream, "changed")).alerts
    assert changed.state == insight_service_pb2.ALERT_STATE_RESOLVED
    assert (await read(stream, "heartbeat")).HasField("at")
    stream.cancel()


async def test_a_watch_of_firing_ones_tells_when_one_no_longer_fires_and_nothing_of_others(desk: Desk) -> None:
    firing = insight_service_pb2.ALERT_STATE_FIRING
    stream = desk.stub.WatchAlerts(pb.WatchAlertsRequest(states=[firing], tenant_id="acme"))
    assert not (await read(stream, "standing")).alerts
    desk.raise_alert(ACME, Signal(labels=(("tenant_id", "other"),)))
    changed = (await read(stream, "changed")).alerts
    assert [(one.labels["tenant_id"], one.state) for one in changed] == [("acme", firing)]
    desk.raise_alert(minute=1)
    changed = (await read(stream, "changed")).alerts
    assert [one.state for one in changed] == [insight_service_pb2.ALERT_STATE_RESOLVED]
    stream.cancel()


async def test_many_that_stand_come_in_parts_and_too_many_watchers_are_refused(desk: Desk) -> None:
    desk.raise_alert(*[Signal(labels=(("tenant_id", f"t{i}"),)) for i in range(1201)])
    streams = [desk.stub.WatchAlerts(pb.WatchAlertsRequest()) for _ in range(2)]
    parts = [await read(streams[0], "standing") for _ in range(3)]
    assert [(len(part.alerts), part.left_count) for part in parts] == [(500, 701), (500, 201), (201, 0)]
    await read(streams[1], "standing")
    third = desk.stub.WatchAlerts(pb.WatchAlertsRequest())
    with pytest.raises(grpc.RpcError) as caught:
        await third.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for stream in streams:
        stream.cancel()


def test_the_silences_that_are_kept_are_bounded_and_old_ones_go_first() -> None:
    kept = Interventions(most=2)
    for number in range(3):
        event = AlertSilenced(silence_id=f"s{number}", rule="r")
        event.starts_at.FromMicroseconds(BEGIN)
        event.ends_at.FromMicroseconds(BEGIN + (9 - number) * HOUR)
        event.metadata.occurred_at.FromMicroseconds(BEGIN + number)
        kept.take(event)
    assert [one.silence_id for one in kept.silences()] == ["s0", "s1"]


# --- what an alert carries ---


def test_an_alert_without_a_measurement_has_no_evidence_and_one_with_it_has(desk: Desk) -> None:
    point = Point(
        metric="quality.failed_ratio", unit="ratio", series=Series(tenant_id="globex"), start=BEGIN, length=MINUTE,
        value=Value(0.7, 10), revision=1, closed=True,
    )  # fmt: skip
    missing = Signal(labels=(("producer", "sluice-cost/0#1"), ("topic", "t")), causes={"missing=3": 1.0})
    desk.raise_alert(missing, Signal(labels=(("tenant_id", "globex"),), point=point))
    told = {len(one.labels): one for one in listed(desk.view, insight_service_pb2.ListAlertsRequest()).alerts}
    assert not told[2].HasField("evidence")
    assert (told[1].evidence.metric, told[1].evidence.value) == ("quality.failed_ratio", 0.7)
