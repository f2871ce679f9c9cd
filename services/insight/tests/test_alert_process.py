"""A real insight on a real broker: an alert is raised and resolved once, however often the process is killed; Prometheus sees unfairness."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from sluice.events.v1.fairness_pb2 import FAIRNESS_VERDICT_DISPARATE, FairnessMeasured
from sluice.insight.v1 import insight_service_pb2 as pb
from sluice_kit import broker
from sluice_kit.settings import MeshSettings

from .alert_mesh import DEADLINE, MINUTE, NOIDA, Mesh, free_port, judged, listed, process, state

pytestmark = pytest.mark.skipif(not NOIDA.exists(), reason="the embedded broker (noida-db) is not installed")


@pytest.fixture()
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    port = free_port()
    command = [str(NOIDA), "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(tmp_path / "kafka")]
    with process(command, {}, tmp_path / "kafka.log"):
        kafka = f"127.0.0.1:{port}"
        broker.install_empty_fetch_guard(MeshSettings(kafka_bootstrap=kafka, kafka_embedded=True))
        await broker.ensure_topics(MeshSettings(kafka_bootstrap=kafka, kafka_embedded=True))
        yield Mesh(tmp_path, kafka)


async def test_an_alert_fires_once_and_is_resolved_once_over_kills(mesh: Mesh) -> None:
    await mesh.measure(0, failed=9)
    with mesh.insight() as (running, _):
        await mesh.alerts(state("firing"))
        running.kill()
        running.wait(5)
    with mesh.insight() as (running, target):
        [alert] = await listed(target, 1)
        assert (alert.state, alert.rule, alert.summary) == (pb.ALERT_STATE_FIRING, "test.failing", "acme fails: 0.9")
        assert (alert.evidence.value, alert.severity, alert.labels["tenant_id"]) == (0.9, "critical", "acme")
        running.kill()
        running.wait(5)
    await mesh.measure(1, failed=0)
    with mesh.insight() as (_, target):
        found = await mesh.alerts(state("resolved"))
        # A second alert of the same rule: whatever the first one's restarts said twice would stand before it.
        await mesh.measure(2, failed=10)
        found = await mesh.alerts(lambda all_: sum(event.state == "firing" for event in all_) >= 2)
        alerts = await listed(target, 2)
        await judged(target, up_to=mesh.began + 3 * MINUTE)
    assert [event.state for event in found] == ["firing", "resolved", "firing"]
    assert found[0].alert_id == found[1].alert_id != found[2].alert_id
    assert [alert.state for alert in alerts] == [pb.ALERT_STATE_FIRING, pb.ALERT_STATE_RESOLVED]


async def test_a_late_restatement_resolves(mesh: Mesh) -> None:
    await mesh.measure(0, failed=9)
    with mesh.insight():
        await mesh.alerts(state("firing"))
        await mesh.measure(0, failed=9, of=100, revision=2)
        found = await mesh.alerts(state("resolved"))
        assert [event.state for event in found] == ["firing", "resolved"]


async def test_prometheus_sees_a_broken_four_fifths(mesh: Mesh) -> None:
    event = FairnessMeasured(
        metric="selection_rate", attribute="input_terms", group="religion", verdict=FAIRNESS_VERDICT_DISPARATE,
        ratio=0.5, below_four_fifths=True, sample_count=100,
    )  # fmt: skip
    event.metadata.event_id, event.series.tenant_id, event.series.model = "measured", "acme", "small"
    event.window.start.FromSeconds(int(time.time()) - 3_700)
    event.window.length.FromSeconds(3_600)
    await mesh.publish(event)
    expected = 'sluice_insight_fairness_below_four_fifths{attribute="input_terms",model="small",tenant="acme"} 1.0'
    with mesh.insight():
        async with httpx2.AsyncClient() as client, asyncio.timeout(DEADLINE):
            while expected not in await _metrics(client, mesh):
                await asyncio.sleep(0.1)


async def _metrics(client: httpx2.AsyncClient, mesh: Mesh) -> str:
    try:
        return (await client.get(f"http://{mesh.metrics}/metrics")).text
    except httpx2.TransportError:  # it is starting
        return ""
