"""Of two workers on Apache Kafka one is killed and never comes back: the other takes over all that it had."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.quality_pb2 import QualityMeasured
from sluice_kit import broker
from sluice_kit.events import topic_of
from sluice_quality.settings import QualitySettings

from .worker_world import (
    COMPLETIONS,
    PATIENCE,
    agree,
    batch_computation,
    events,
    free_port,
    in_pieces,
    latest_parts,
    page,
    process,
    reading,
    send,
    wait_for_health,
    worker,
)

GROUP = "sluice-quality"
SOURCE = topic_of(RequestCompleted)
ALL = set(range(SOURCE.partitions))
TAKEN_OVER_SECONDS = 30
"""The session of the dead worker is 10 s, and the neighbour had its partitions 10 to 12 s after the kill (docs/streams.md)."""
# Below those the kernel gives to outgoing connections.
PORTS = range(20_000, 32_000)


@pytest.fixture()
def apache_kafka(tmp_path: Path) -> Iterator[str]:
    """Started as `sluice mesh up` starts it."""
    apache = pytest.importorskip(
        "sluice_cli.mesh.apache", reason="sluice-cli, which can start Apache Kafka, is not installed"
    )
    from sluice_cli.mesh.home import Home
    from sluice_cli.mesh.ports import is_free

    try:
        distribution = apache.resolve(print)
    except apache.CannotRun as reason:
        pytest.skip(f"Apache Kafka cannot run here: {reason}")
    # Its controller takes the next port.
    port = next(port for port in random.sample(PORTS, 1_000) if is_free(port) and is_free(port + 1))
    command = apache.program(Home(tmp_path), port, distribution).command
    with process(list(command), {}, tmp_path / "kafka.log"):
        yield f"127.0.0.1:{port}"


@pytest.mark.kafka
@pytest.mark.parametrize("runner", ["faust", "plain"])
async def test_a_worker_that_is_killed_for_good_leaves_everything_to_its_neighbour(
    apache_kafka: str, tmp_path: Path, runner: str
) -> None:
    """Events come all the while: before, while nobody reads what the dead one read, and after."""
    await broker.ensure_topics(QualitySettings(SLUICE_KAFKA_BOOTSTRAP=apache_kafka))  # type: ignore[call-arg]
    messages, ports = events(), [free_port(), free_port()]
    pieces, last = in_pieces(messages[:-600], 40), messages[-600:]
    parts: dict[str, QualityMeasured] = {}
    async with reading(apache_kafka, topic_of(QualityMeasured).name) as consumer:
        with contextlib.ExitStack() as workers:
            _, victim = [
                workers.enter_context(worker(n, apache_kafka, tmp_path, runner, port, embedded=False))
                for n, port in enumerate(ports)
            ]
            for port in ports:
                await wait_for_health(port, time.monotonic() + PATIENCE)
            deadline = time.monotonic() + PATIENCE
            while not (
                len(await shares(apache_kafka)) == len(told_by(parts)) == 2
                and min([await facts_counted(port) for port in ports]) > 100
            ):
                assert time.monotonic() < deadline, "the two do not work side by side"
                await send(apache_kafka, next(pieces, []))
                await latest_parts(consumer, parts)
            await send(apache_kafka, next(pieces, []))
            victim.kill()
            victim.wait(5)
            killed, ends = time.monotonic(), await source_ends(apache_kafka)
            while await shares(apache_kafka) != [ALL]:
                assert time.monotonic() < killed + TAKEN_OVER_SECONDS, await shares(apache_kafka)
                await send(apache_kafka, next(pieces, []))
                await latest_parts(consumer, parts)
            taken_over = time.monotonic() - killed
            assert all(end > ends[partition] for partition, end in (await source_ends(apache_kafka)).items())
            await send(apache_kafka, [message for piece in pieces for message in piece] + last)
            await agree(consumer, parts, await batch_computation(apache_kafka), tmp_path)
            print(
                f"{runner}: taken over {taken_over:.1f} s after the kill, right after {time.monotonic() - killed:.1f} s"
            )
    assert requests_of(parts) == COMPLETIONS
    assert told_by(parts)["sluice-quality/0"] == ALL


def requests_of(parts: dict[str, QualityMeasured]) -> int:
    return sum(part.requests.requests for part in parts.values())


async def facts_counted(port: int) -> float:
    """By the worker whose pages are there."""
    lines = (await page(port, "/metrics")).decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("sluice_quality_facts_total{"))


def told_by(parts: dict[str, QualityMeasured]) -> dict[str, set[int]]:
    """The workers that published these, and the partitions of each."""
    found: dict[str, set[int]] = {}
    for event in parts.values():
        found.setdefault(event.metadata.producer.partition("#")[0], set()).add(event.part.source_partition)
    return found


async def shares(kafka: str) -> list[set[int]]:
    """Which partitions of the requests each member of the group has, as the broker says."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        [response] = await admin.describe_consumer_groups([GROUP])
    finally:
        await admin.close()
    [(_, _, state, _, _, members, *_)] = response.groups
    # While the group is being given out anew nobody has anything.
    assignments = [ConsumerProtocolMemberAssignment.decode(member[-1]) for member in members if state == "Stable"]
    return [{n for topic, numbers in told.assignment if topic == SOURCE.name for n in numbers} for told in assignments]


async def source_ends(kafka: str) -> dict[int, int]:
    """The end of each partition of the requests."""
    async with AIOKafkaConsumer(bootstrap_servers=kafka) as consumer:
        places = [TopicPartition(SOURCE.name, number) for number in ALL]
        return {place.partition: end for place, end in (await consumer.end_offsets(places)).items()}
