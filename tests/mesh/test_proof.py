"""What the mesh's own events prove: nothing missing, a withheld one named, and the ledger rebuilt from them to the byte."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition
from sluice.events.v1.inference_pb2 import ModelLoaded
from sluice_kit.events import encode

from .conftest import Mesh

PRODUCER = "sluice-thrown-away/0#0badcafe"
# A topic whose records are few and read by nobody's ledger.
TOPIC = "sluice.inference.model_loaded.v1"


def write(mesh: Mesh, numbers: Sequence[int]) -> None:
    """Events of a producer without an outbox, with these numbers."""

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=mesh.environment["SLUICE_KAFKA_BOOTSTRAP"], acks="all")
        await producer.start()
        try:
            for number in numbers:
                event = ModelLoaded()
                event.metadata.event_id = f"thrown-away-{number}"
                event.metadata.producer, event.metadata.producer_sequence = PRODUCER, number
                event.metadata.occurred_at.GetCurrentTime()
                record = encode(event)
                await producer.send_and_wait(record.topic, key=record.key, value=record.value, headers=record.headers)
        finally:
            await producer.stop()

    asyncio.run(send())


def test_after_a_demonstration_nothing_is_missing_and_all_books_agree(mesh: Mesh) -> None:
    demo = mesh.sluice("demo", "--count", "6")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    told = mesh.sluice("events", "verify", "--against", "ledger", "--settle", "20", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(told.stdout)
    assert found["sound"]
    streams = {topic["topic"]: topic["streams"] for topic in found["topics"]}
    for name in ("gateway.request_completed", "cost.cost_recorded", "moderation.content_moderated"):
        (stream, *_) = streams[f"sluice.{name}.v1"]
        assert stream["last"] >= 6 if "moderation" not in name else stream["last"]
        assert stream["complete_up_to"] == stream["last"]
        assert stream["complete_up_to_time"]
    recorded, ledger = found["checks"]
    assert recorded["left_count"] == recorded["right_count"] >= 6
    assert ledger["left_count"] == ledger["right_count"] >= 6


def test_a_withheld_event_is_named_until_it_comes(mesh: Mesh) -> None:
    write(mesh, [1, 2, 4, 5])
    told = mesh.sluice("events", "verify", "--type", "ModelLoaded", "--settle", "0")
    assert told.returncode == 1, told.stdout + told.stderr
    assert f"inference.model_loaded.v1 of {PRODUCER}: MISSING 3." in told.stdout
    assert "NOT COMPLETE" in told.stdout
    write(mesh, [3])
    told = mesh.sluice("events", "verify", "--type", "ModelLoaded")
    assert told.returncode == 0, told.stdout + told.stderr
    if mesh.broker == "apache":
        _delete_the_heads(mesh)


def _delete_the_heads(mesh: Mesh) -> None:
    """As retention does it: what is gone from the beginning of a topic is said, and no gap."""
    asyncio.run(_delete_records(mesh))
    write(mesh, [6])
    told = mesh.sluice("events", "verify", "--type", "ModelLoaded", "--json")
    (topic,) = json.loads(told.stdout)["topics"]
    assert told.returncode == 0, told.stdout + told.stderr
    assert topic["deleted_heads"]
    assert topic["removed"] >= 5


async def _delete_records(mesh: Mesh) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=mesh.environment["SLUICE_KAFKA_BOOTSTRAP"])
    await admin.start()
    try:
        (topic,) = await admin.describe_topics([TOPIC])
        partitions = [TopicPartition(TOPIC, each["partition"]) for each in topic["partitions"]]
        await admin.delete_records({partition: RecordsToDelete(before_offset=-1) for partition in partitions})
    finally:
        await admin.close()


def test_the_ledger_rebuilt_from_its_events_is_the_live_one_and_twice_the_same_bytes(
    mesh: Mesh, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        told = mesh.sluice("events", "replay", "ledger", "--into", name, "--export", str(tmp_path / name))
        assert told.returncode == 0, told.stdout + told.stderr
        assert " 0 different, 0 only live, 0 only replayed; sums the same" in told.stdout
    first = (tmp_path / "first").read_bytes()
    assert first == (tmp_path / "second").read_bytes()
    requests = {event["id"] for event in mesh.events("RequestCompleted") if "error" not in event}
    assert first.count(b"\n") == len(requests)
