"""No raw personal data leaves the request path: canary values, then a search of everything that was kept."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from sluice.feedback.v1 import feedback_service_pb2, feedback_service_pb2_grpc
from sluice.gateway.v1 import gateway_service_pb2 as pb
from sluice_kit.broker import install_empty_fetch_guard
from sluice_kit.settings import MeshSettings

from .conftest import Mesh, eventually
from .test_conversations import ABUSE, gateway, options, spec

MARK = secrets.token_hex(4)
EMAIL = f"canary.{MARK}@example.com"
CARD = "4539 1488 0343 6467"
PHONE = "(415) 555-0132"
TEXT = f"Write to {EMAIL}, charge card {CARD}, or call {PHONE}. Repeat all of this to me."
CANARIES = [EMAIL.encode(), MARK.encode(), CARD.encode(), CARD.replace(" ", "").encode(), PHONE.encode()]
# They hold keys and addresses by purpose.
NOT_SEARCHED = ("gateway.yaml", "demo.env")


def _converse(mesh: Mesh) -> str:
    """Every door and mode; the id of an answered request."""
    channel, stub = gateway(mesh)
    with channel:
        answer = stub.Chat(pb.ChatRequest(spec=spec(TEXT, user=EMAIL)), **options(mesh))
        list(stub.ChatStream(pb.ChatStreamRequest(spec=spec(TEXT)), **options(mesh)))
    body = {
        "model": "sluice-small",
        "max_tokens": 24,
        "user": EMAIL,
        "messages": [{"role": "user", "content": TEXT, "name": "canary"}],
    }
    blocked = body | {"messages": [{"role": "user", "content": f"{ABUSE} {TEXT}"}]}
    invalid = body | {"temperature": TEXT}
    headers = {"authorization": f"Bearer {mesh.environment['SLUICE_API_KEY']}"}
    with httpx.Client(
        trust_env=False, timeout=120, headers=headers, base_url=mesh.environment["SLUICE_HTTP_URL"]
    ) as client:
        codes = [
            client.post("/v1/chat/completions", json=sent).status_code
            for sent in (body, body | {"stream": True}, blocked, invalid)
        ]
        unreadable = client.post("/v1/chat/completions", content=f'{{"model": "{EMAIL}", {TEXT}').status_code
    assert (codes, unreadable) == ([200, 200, 400, 400], 400)
    return str(answer.request_id)


def _give_feedback(mesh: Mesh, request_id: str) -> None:
    with grpc.insecure_channel(
        mesh.environment["SLUICE_FEEDBACK_TARGET"], options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        stub = feedback_service_pb2_grpc.FeedbackServiceStub(channel)
        for value in (
            {"comment": f"Nice! {TEXT}"},
            {"correction": f"You should have written to {EMAIL} about {CARD}."},
        ):
            request = feedback_service_pb2.SubmitFeedbackRequest(request_id=request_id, **value)
            stub.SubmitFeedback(request, metadata=(("x-sluice-tenant-id", "acme"),), timeout=60)


async def _records(mesh: Mesh) -> list[tuple[str, bytes]]:
    """Every record of every topic, the processors' changelogs and dead letters too: where it stands, and all its bytes."""
    bootstrap = mesh.environment["SLUICE_KAFKA_BOOTSTRAP"]
    install_empty_fetch_guard(MeshSettings(kafka_embedded=mesh.broker == "embedded"))
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        topics = await admin.describe_topics([name for name in await admin.list_topics() if not name.startswith("__")])
    finally:
        await admin.close()
    partitions = [TopicPartition(topic["topic"], part["partition"]) for topic in topics for part in topic["partitions"]]
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning(*partitions)
        found = []
        async with asyncio.timeout(90):
            while [p for p, end in ends.items() if await consumer.position(p) < end]:
                batches = await consumer.getmany(timeout_ms=200)
                for record in (record for batch in batches.values() for record in batch):
                    content = b"\n".join(
                        [record.key or b"", record.value or b"", *(value for _, value in record.headers)]
                    )
                    found.append((f"{record.topic}/{record.partition}/{record.offset}", content))
        return found
    finally:
        await consumer.stop()


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name not in NOT_SEARCHED:
            yield str(path.relative_to(folder)), path.read_bytes()


def _metrics(mesh: Mesh) -> Iterator[tuple[str, bytes]]:
    from sluice_kit.addresses import DEFAULT_PORTS

    with httpx.Client(trust_env=False) as client:
        for name, port in DEFAULT_PORTS.items():
            if name.startswith("metrics_") and name != "metrics_registry":
                yield name, client.get(f"http://127.0.0.1:{port + mesh.offset}/metrics").content


def _leaks_of(words: list[bytes], places: Iterator[tuple[str, bytes]] | list[tuple[str, bytes]]) -> list[str]:
    return [f"{place}: {word!r}" for place, content in places for word in words if word in content]


def _leaks(places: Iterator[tuple[str, bytes]] | list[tuple[str, bytes]]) -> list[str]:
    return _leaks_of(CANARIES, places)


def test_no_canary_is_found_in_any_topic_file_log_or_metric(mesh: Mesh) -> None:
    request_id = _converse(mesh)
    _give_feedback(mesh, request_id)
    assert eventually(lambda: len([e for e in mesh.events("FeedbackReceived") if e.get("subject") == request_id]) == 2)
    records = asyncio.run(_records(mesh))
    assert any(request_id.encode() in content for _, content in records), "the search sees the request at all"
    assert _leaks(records) == []
    assert _leaks(_files(mesh.home.path)) == []
    assert _leaks(_metrics(mesh)) == []
