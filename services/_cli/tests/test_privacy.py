"""`sluice privacy`: keys are destroyed, the mesh is told, and nobody's name gets out."""

import asyncio
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from sluice.events.v1 import feedback_pb2, gateway_pb2, privacy_pb2
from sluice_cli.events import follow, topics_named
from sluice_cli.main import app
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.privacy import erasure
from sluice_cli.privacy.subjects import Subject, anonymous_day, subject_of
from sluice_kit.broker import client_options, ensure_topics
from sluice_kit.events import encode
from sluice_kit.sealing.file_keys import FileKeyStore
from sluice_kit.sealing.keys import Destruction
from sluice_kit.sealing.text import Place, TextSealer
from sluice_kit.settings import MeshSettings
from typer.testing import CliRunner

CANARY = "the canary sings"
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    (tmp_path / "gateway-subject.key").write_bytes(secrets.token_bytes(32))
    return tmp_path


@pytest.fixture
def store(home: Path) -> FileKeyStore:
    return FileKeyStore(home / "keys")


def sluice(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["privacy", *arguments])


def reach(broker: MeshSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_KAFKA_BOOTSTRAP", broker.kafka_bootstrap)
    monkeypatch.setenv("SLUICE_KAFKA_EMBEDDED", "true")


def test_a_person_is_found_by_name_or_pseudonym_and_each_tenants_own(home: Path) -> None:
    maria = subject_of("maria@example.com", "acme", home=home)
    assert maria.id.startswith("sub_")
    assert subject_of(maria.id, "acme", home=home) == maria
    assert subject_of("maria@example.com", "globex", home=home).id != maria.id


@pytest.mark.parametrize(
    ("told", "tenant", "message"),
    [("", "acme", "--subject is empty"), ("maria", "Acme Inc", "--tenant must be")],
)
def test_what_names_nobody_is_refused(home: Path, told: str, tenant: str, message: str) -> None:
    with pytest.raises(MeshProblem, match=message):
        subject_of(told, tenant, home=home)


def test_without_the_gateways_key_a_name_is_nobody_and_a_pseudonym_still_somebody(tmp_path: Path) -> None:
    with pytest.raises(MeshProblem, match=r"gateway-subject\.key cannot be read"):
        subject_of("maria", "acme", home=tmp_path)
    assert subject_of("sub_" + "0" * 32, "acme", home=tmp_path).id == "sub_" + "0" * 32


def test_a_day_is_a_day() -> None:
    assert anonymous_day("2026-11-26", "acme").id == "anonymous-2026-11-26"
    with pytest.raises(MeshProblem, match="is no day"):
        anonymous_day("yesterday", "acme")


@pytest.mark.parametrize("prose", ["asked by Maria", "maria@example.com", "x" * 65])
def test_what_is_published_cannot_be_prose(prose: str) -> None:
    with pytest.raises(MeshProblem, match="so no names"):
        erasure.check_code("--reason", prose)


def receipt(now: tuple[int, ...], before: tuple[int, ...], at: datetime = NOON) -> privacy_pb2.SubjectErased:
    subject = Subject("acme", "sub_1")
    return erasure.receipt_of(
        subject, Destruction(now, before), key_store="k1", at=at, requested_by="operator:1", reason="T-1"
    )


def test_a_receipt_says_what_was_destroyed_and_is_the_same_event_when_told_again() -> None:
    first, again = receipt((1, 2), ()), receipt((), (1, 2), NOON.replace(hour=13))
    assert list(first.key_ids) == list(again.key_ids) == ["acme/sub_1@1", "acme/sub_1@2"]
    assert (first.destroyed_keys, again.destroyed_keys) == (2, 0)
    assert first.metadata.event_id == again.metadata.event_id
    assert receipt((3,), (1, 2)).metadata.event_id != first.metadata.event_id


def test_in_a_home_without_a_key_store_nothing_is_claimed_to_be_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    monkeypatch.setenv("SLUICE_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    told = sluice("erase", "--tenant", "acme", "--subject", "sub_" + "0" * 32)
    assert isinstance(told.exception, MeshProblem)
    assert "there is none in" in str(told.exception)
    assert list(tmp_path.iterdir()) == []


def test_while_kafka_is_away_the_keys_are_destroyed_and_the_receipt_is_kept(
    home: Path, store: FileKeyStore, broker: MeshSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(ensure_topics(broker))
    whom = subject_of("maria", "acme", home=home)
    store.create_key(f"acme/{whom.id}")
    monkeypatch.setenv("SLUICE_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setattr(erasure, "DELIVERY_SECONDS", 0.2)
    told = sluice("erase", "--tenant", "acme", "--subject", "maria")
    assert isinstance(told.exception, MeshProblem)
    assert "Kafka did not take it yet" in str(told.exception)
    state = store.describe(f"acme/{whom.id}")
    assert state is not None
    assert state.destroyed == (1,)
    monkeypatch.undo()
    monkeypatch.setenv("SLUICE_HOME", str(home))
    reach(broker, monkeypatch)
    assert sluice("erase", "--tenant", "acme", "--subject", "maria").exit_code == 0
    events = asyncio.run(published(broker, "SubjectErased"))
    assert len({event.message.metadata.event_id for event in events}) == 1
    assert {event.message.metadata.producer_sequence for event in events} == {1, 2}


async def published(broker: MeshSettings, *names: str) -> list[Any]:
    return [event async for event in follow(broker, topics_named(names), from_beginning=True, live=False)]


async def captured(broker: MeshSettings, store: FileKeyStore, subjects: dict[str, str]) -> None:
    """A request of each subject, and a comment of somebody else on it."""
    sealer = TextSealer(lambda: store)
    records = []
    for request_id, subject_id in subjects.items():
        completed = gateway_pb2.RequestCompleted()
        comment = feedback_pb2.FeedbackReceived(feedback_id=f"f-{request_id}", redacted_comment="")
        for event, kind in ((completed, "completed"), (comment, "comment")):
            event.metadata.event_id, event.metadata.request_id = f"{kind}-{request_id}", request_id
            event.metadata.tenant_id = "acme"
        completed.metadata.subject_id = subject_id
        for event, field in ((completed, "encrypted_prompt"), (comment, "encrypted_text")):
            sealed = await sealer.seal(
                f"{CANARY} {request_id}", owners=[subject_id], place=Place.in_event(event, field)
            )
            getattr(event, field).CopyFrom(sealed)
        records += [encode(completed), encode(comment)]
    producer = AIOKafkaProducer(**client_options(broker), acks="all")
    await producer.start()
    for record in records:
        await producer.send_and_wait(record.topic, key=record.key, value=record.value, headers=record.headers)
    await producer.stop()


def test_erase_status_and_export_over_a_broker(
    home: Path, store: FileKeyStore, broker: MeshSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(broker, monkeypatch)
    asyncio.run(ensure_topics(broker))
    whom, other = (subject_of(name, "acme", home=home).id for name in ("maria", "paul"))
    asyncio.run(captured(broker, store, {"r1": whom, "r2": other}))

    exported = [
        json.loads(line) for line in sluice("export", "--tenant", "acme", "--subject", "maria").stdout.splitlines()
    ]
    texts = {event["type"].split(".")[2]: event["data"] for event in exported}
    assert texts["request_completed"]["encrypted_prompt"]["text"] == f"{CANARY} r1"
    assert texts["feedback_received"]["encrypted_text"]["text"] == f"{CANARY} r1"
    assert len(exported) == 2

    erased = sluice("erase", "--tenant", "acme", "--subject", "maria", "--reason", "GDPR-17/4711")
    told = json.loads(erased.stdout)
    assert (told["destroyed_keys"], told["key_ids"], told["reason"]) == (1, [f"acme/{whom}@1"], "GDPR-17/4711")
    assert "maria" not in erased.stdout
    from_stdin = CliRunner().invoke(app, ["privacy", "erase", "--tenant", "acme", "--subject", "-"], input="maria\n")
    again = json.loads(from_stdin.stdout)
    assert (again["destroyed_keys"], again["metadata"]["event_id"]) == (0, told["metadata"]["event_id"])

    after = [
        json.loads(line) for line in sluice("export", "--tenant", "acme", "--subject", "maria").stdout.splitlines()
    ]
    left_out = [event["data"][field] for event in after for field in event["data"] if field.startswith("encrypted")]
    assert {one["left_out"] for one in left_out} == {"ERASED"}
    assert CANARY not in json.dumps(after)
    others = sluice("export", "--tenant", "acme", "--subject", "paul").stdout
    assert f"{CANARY} r2" in others

    status = sluice("status", "--tenant", "acme")
    assert status.exit_code == 0
    (receipts) = asyncio.run(published(broker, "SubjectErased"))
    assert {event.headers["ce_dataclassification"] for event in receipts} == {b"confidential"}
    assert all(b"maria" not in path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_of_a_person_nobody_knows_nothing_is_exported_and_that_is_said(
    home: Path, store: FileKeyStore, broker: MeshSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    reach(broker, monkeypatch)
    asyncio.run(ensure_topics(broker))
    asyncio.run(captured(broker, store, {"r1": subject_of("paul", "acme", home=home).id}))
    told = sluice("export", "--tenant", "acme", "--subject", "maria")
    assert (told.exit_code, told.stdout) == (0, "")
    assert told.stderr == f"No event of {subject_of('maria', 'acme', home=home).id} is kept for tenant acme.\n"
