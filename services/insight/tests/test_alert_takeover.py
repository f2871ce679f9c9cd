"""Two instances on real brokers: the one that evaluates is killed, and receivers hear of each change, once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice.insight.v1 import alert_service_pb2, insight_service_pb2
from sluice.insight.v1.alert_service_pb2_grpc import AlertServiceStub
from sluice_insight.adapters.alerting.given_up import GivenUp
from sluice_insight.adapters.alerting.standing import StandingGroups
from sluice_kit import broker
from sluice_kit.events import topic_of
from sluice_kit.settings import MeshSettings

from .alert_mesh import NOIDA, Far, Mesh, broker_port, free_port, listed, process, state

TAKEOVER_SECONDS = 90
"""A session's time (10 s), a rebalance, and a machine that does other things."""
ROUNDS = 3


@contextlib.contextmanager
def embedded(folder: Path, port: int) -> Iterator[None]:
    if not NOIDA.exists():
        pytest.skip("the embedded broker (noida-db) is not installed")
    command = [str(NOIDA), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(folder)]
    with process(command, {}, folder.with_suffix(".log")):
        yield


@contextlib.contextmanager
def apache(folder: Path, port: int) -> Iterator[None]:
    pytest.importorskip("sluice_cli", reason="insight is installed without sluice-cli, which can start Apache Kafka")
    from sluice_cli.mesh import apache
    from sluice_cli.mesh.home import Home

    folder.mkdir()
    try:
        distribution = apache.resolve(print)
    except apache.CannotRun as reason:
        pytest.skip(f"Apache Kafka cannot run here: {reason}")
    with process(list(apache.program(Home(folder), port, distribution).command), {}, folder.with_suffix(".log")):
        yield


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
async def mesh(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Mesh]:
    is_embedded, port = request.param == "embedded", broker_port()
    with (embedded if is_embedded else apache)(tmp_path / "kafka", port):
        kafka = f"127.0.0.1:{port}"
        settings = MeshSettings(kafka_bootstrap=kafka, kafka_embedded=is_embedded)
        broker.install_empty_fetch_guard(settings)
        await broker.ensure_topics(settings, wait_seconds=60)
        yield Mesh(tmp_path, kafka, embedded=is_embedded)


@pytest.fixture()
def far() -> Iterator[Far]:
    with Far().serving() as made:
        yield made


async def heard(far: Far, count: int) -> list[tuple[str, str]]:
    """What the receiver was told, as soon as it is so much."""
    deadline = time.monotonic() + TAKEOVER_SECONDS
    while len(told := dict.fromkeys(far.told())) < count and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return list(told)


def instance_of(event: AlertRaised) -> str:
    """`1` of `sluice-insight/1#...`."""
    return event.metadata.producer.split("/")[1].split("#")[0]


async def test_a_killed_evaluator_loses_no_change_and_tells_none_twice_beside_another_instance(
    mesh: Mesh, far: Far
) -> None:
    """On Apache Kafka the other one takes over. The embedded broker has no failover (it says so at the start), and a second member
    that waits there may leave all without the partition: there one instance is killed and started again, as in the embedded mesh."""
    mesh.deliver_to(far)
    running = {}
    with contextlib.ExitStack() as stack:
        for name in ("0",) if mesh.embedded else ("0", "1"):
            running[name], _ = stack.enter_context(mesh.insight(name))
        states: list[str] = []
        for number in range(ROUNDS):
            # Fires and is resolved in turn; whoever said it is killed as soon as its word stands.
            await mesh.measure(number, failed=10 * (number % 2 == 0))
            states.append("resolved" if number % 2 else "firing")
            found = await mesh.alerts(lambda all_: len(all_) >= len(states), seconds=TAKEOVER_SECONDS)
            assert [event.state for event in found] == states
            assert await heard(far, len(states)) == [(one.metadata.event_id, f"alert.{one.state}") for one in found]
            if number + 1 < ROUNDS:
                killed = instance_of(found[-1])
                running[killed].kill()
                running[killed].wait(5)
                for name, one in running.items():
                    if one.poll() is not None and (mesh.embedded or name != killed):
                        running[name], _ = stack.enter_context(mesh.insight(name))
    if not mesh.embedded:
        speakers = [instance_of(event) for event in found]
        assert all(one != other for one, other in itertools.pairwise(speakers)), (
            "the other one has taken over each time"
        )


async def test_a_silenced_alert_is_told_of_when_its_silence_ends_also_over_a_kill(mesh: Mesh, far: Far) -> None:
    mesh.deliver_to(far)
    with mesh.insight() as (running, target):
        async with grpc.aio.insecure_channel(target) as channel:
            request = alert_service_pb2.CreateSilenceRequest(rule="test.failing", set_by="op", reason="OPS-1")
            request.ends_at.FromSeconds(int(time.time()) + 3600)
            made = await AlertServiceStub(channel).CreateSilence(request, wait_for_ready=True)
        await mesh.measure(0, failed=9)
        [event] = await mesh.alerts(state("firing"))
        assert list(event.silenced_by) == [made.silence.silence_id]
        running.kill()
        running.wait(5)
    with mesh.insight() as (_, target):
        [alert] = await listed(target, 1)
        # A second one, so that the receiver has had the time to hear of the first.
        await mesh.measure(1, failed=0)
        found = await mesh.alerts(state("resolved"))
        await mesh.measure(2, failed=9)
        found = await mesh.alerts(lambda all_: len(all_) >= 3)
        assert [(one.state, bool(one.silenced_by)) for one in found] == [
            ("firing", True),
            ("resolved", True),
            ("firing", True),
        ]
        assert far.told() == []
        async with grpc.aio.insecure_channel(target) as channel:
            stub = AlertServiceStub(channel)
            ended = alert_service_pb2.ExpireSilenceRequest(silence_id=made.silence.silence_id, expired_by="op")
            await stub.ExpireSilence(ended)
        found = await mesh.alerts(lambda all_: len(all_) >= 4)
        assert await heard(far, 1) == [(found[-1].metadata.event_id, "alert.firing")]
        assert found[-1].alert_id == found[-2].alert_id
    assert alert.state == insight_service_pb2.ALERT_STATE_FIRING


async def test_what_is_given_up_fires_with_its_topic(mesh: Mesh) -> None:
    """The shipped rule, over real dead letters: insight itself cannot read a record, and gives it up."""
    topic = topic_of(QualityMeasured).name
    with mesh.insight():
        # It judges now: a record that cannot be read, as the last that stood at the start, would be waited for.
        await mesh.measure(0, failed=9)
        await mesh.alerts(state("firing"))
        producer = AIOKafkaProducer(bootstrap_servers=mesh.kafka, acks="all", enable_idempotence=False)
        await producer.start()
        try:
            await producer.send_and_wait(topic, key=b"k", value=b"\xff no event", headers=[])
        finally:
            await producer.stop()
        [alert] = await mesh.alerts(state("firing"), rule="mesh.dead_letters", seconds=TAKEOVER_SECONDS)
    assert (alert.labels["topic"], alert.severity) == (f"{topic}.dlq", "critical")
    assert alert.summary.startswith(f"1 events were given up onto {topic}.dlq")
    settings = MeshSettings(kafka_bootstrap=mesh.kafka, kafka_embedded=mesh.embedded)
    counts = await GivenUp(settings).counts([15 * 60_000_000])
    assert counts == {15 * 60_000_000: {f"{topic}.dlq": 1}}
    # Seen from an hour ahead it is old.
    later = GivenUp(settings, now=lambda: time.time() + 3600)
    assert await later.counts([15 * 60_000_000]) == {15 * 60_000_000: {}}


async def test_a_group_stands_still_from_when_its_position_was_first_seen_while_events_wait(mesh: Mesh) -> None:
    topic, clock = TopicPartition(topic_of(QualityMeasured).name, 0), [1_000.0]
    settings = MeshSettings(kafka_bootstrap=mesh.kafka, kafka_embedded=mesh.embedded)
    groups = StandingGroups(settings, now=lambda: clock[0])

    moves: list[bool] = []

    async def seen(after: float) -> list[tuple[int, float]]:
        """What waits, and for how many seconds the position has not moved, so many seconds later."""
        clock[0] += after
        found = await groups.standing(["reader", "one that never was"])
        assert {(one.group, one.topic, one.partition) for one in found} <= {("reader", topic.topic, 0)}
        moves[:] = [one.has_moved for one in found]
        return [(one.waiting, one.still / 1_000_000) for one in found if one.waiting]

    async with (
        AIOKafkaProducer(bootstrap_servers=mesh.kafka) as producer,
        AIOKafkaConsumer(bootstrap_servers=mesh.kafka, group_id="reader", enable_auto_commit=False) as reader,
    ):
        reader.assign([topic])
        assert await seen(0) == [], "it has committed nothing"
        await reader.commit({topic: 0})
        assert await seen(20) == [], "nothing waits"
        await producer.send_and_wait(topic.topic, b"1", key=b"1", partition=0)
        assert await seen(20) == [(1, 0.0)]
        await producer.send_and_wait(topic.topic, b"2", key=b"2", partition=0)
        assert await seen(19) == [(1, 0.0)], "the broker is not asked all the time"
        assert await seen(20) == [(2, 39.0)]
        assert moves == [False], "it may have stood there for longer"
        await reader.commit({topic: 1})
        assert await seen(20) == [(1, 0.0)], "it has moved"
        assert moves == [True]
        assert await seen(60) == [(1, 60.0)]
        groups.settings = MeshSettings(kafka_bootstrap=f"127.0.0.1:{free_port()}")
        assert await seen(30) == [(1, 60.0)], "a broker that is away changes nothing"
        groups.settings = settings
        assert await seen(20) == [(1, 0.0)], "while it was away nobody could move"
        assert moves == [False]
        await reader.commit({topic: 2})
        assert await seen(20) == []


@pytest.mark.parametrize("mesh", ["embedded"], indirect=True)
async def test_a_group_that_stands_still_is_an_alert_until_it_moves(mesh: Mesh) -> None:
    """In a process of its own, by the shortest window that there is: a minute, and the pause between two looks."""
    (mesh.folder / "rules" / "still.yaml").write_text(
        "rules:\n  - {rule: test.still, severity: info, window: 1m, keeps: 9m, summary: $count, standstill: {groups: [reader]}}\n"
    )
    topic = topic_of(QualityMeasured).name
    with mesh.insight():
        await mesh.measure(0, failed=9)
        async with AIOKafkaConsumer(
            topic, bootstrap_servers=mesh.kafka, group_id="reader", enable_auto_commit=False
        ) as reader:
            places = [TopicPartition(topic, number) for number in reader.partitions_for_topic(topic) or ()]
            await reader.commit(dict.fromkeys(places, 0))
            [alert] = await mesh.alerts(state("firing"), rule="test.still", seconds=180)
            assert (dict(alert.labels), alert.summary) == ({"group": "reader", "topic": topic}, "1")
            await reader.commit(await reader.end_offsets(places))
            [_, resolved] = await mesh.alerts(state("resolved"), rule="test.still", seconds=120)
    assert resolved.alert_id == alert.alert_id


async def test_an_alert_that_another_service_raised_is_silenced_too_also_right_after_a_start(
    mesh: Mesh, far: Far
) -> None:
    mesh.deliver_to(far)
    with mesh.insight() as (_, target):
        async with grpc.aio.insecure_channel(target) as channel:
            request = alert_service_pb2.CreateSilenceRequest(rule="test.failing", set_by="op", reason="OPS-1")
            request.labels["tenant_id"] = "acme"
            request.ends_at.FromSeconds(int(time.time()) + 3600)
            await AlertServiceStub(channel).CreateSilence(request, wait_for_ready=True)
    for tenant in ("acme", "globex"):
        event = AlertRaised(alert_id=f"their-{tenant}", rule="test.failing", state="firing", severity="critical")
        event.labels["tenant_id"], event.metadata.event_id = tenant, f"their-{tenant}"
        event.metadata.producer = "sluice-cost/0#x"
        event.metadata.occurred_at.GetCurrentTime()
        await mesh.publish(event)
    with mesh.insight():
        assert await heard(far, 1) == [("their-globex", "alert.firing")]
