"""Two instances on a real broker: the one that evaluates is killed, the other takes over, and receivers hear of each change once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from sluice.events.v1.alert_pb2 import AlertRaised
from sluice.insight.v1 import alert_service_pb2, insight_service_pb2
from sluice.insight.v1.alert_service_pb2_grpc import AlertServiceStub
from sluice_kit import broker
from sluice_kit.settings import MeshSettings

from .alert_mesh import NOIDA, Far, Mesh, free_port, listed, process, state

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
    is_embedded, port = request.param == "embedded", free_port()
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


# The embedded broker never gives a killed member's partition to another (docs/alerts.md); a restarted one has it again there.
@pytest.mark.parametrize("mesh", [pytest.param("apache", marks=pytest.mark.kafka)], indirect=True)
async def test_the_other_instance_takes_over_and_no_change_is_lost_or_told_twice(mesh: Mesh, far: Far) -> None:
    mesh.deliver_to(far)
    running = {}
    with contextlib.ExitStack() as stack:
        for name in ("0", "1"):
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
                name = instance_of(found[-1])
                running[name].kill()
                running[name].wait(5)
                other = "1" if name == "0" else "0"
                if running[other].poll() is not None:
                    running[other], _ = stack.enter_context(mesh.insight(other))
        speakers = [instance_of(event) for event in found]
        assert len(set(speakers)) == 2, "the other one has taken over"
    ids = [webhook_id for webhook_id, _ in dict.fromkeys(far.told())]
    assert ids == [event.metadata.event_id for event in found]


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
