"""Feedback rebuilt from its topics: the same rows, the same bytes, what was erased stays erased; on SQLite and PostgreSQL."""

import argparse
import json
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from sluice.events.v1 import gateway_pb2, privacy_pb2
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.types.v1.encrypted_text_pb2 import EncryptedText
from sluice_feedback.adapters import tables, versions
from sluice_feedback.adapters.database import Database
from sluice_feedback.adapters.feedback_events import encode as encode_feedback
from sluice_feedback.adapters.sql_feedback import SqlFeedback
from sluice_feedback.consumer import CompletionConsumer
from sluice_feedback.domain.feedback import Feedback, Kind, Preference, Thumb, Value
from sluice_feedback.replay import Replay, Report, _event, run
from sluice_feedback.replay import Report as SkippingReport
from sluice_feedback.settings import FeedbackSettings
from sluice_kit.broker import ensure_topics
from sluice_kit.events import encode, topic_of
from sluice_kit.ordered import OrderedReader
from sqlalchemy import select, update

pytestmark = pytest.mark.skipif(find_spec("noida_db") is None, reason="no embedded broker: noida-db is not installed")

# Before the moment up to which events may be on their way.
NOW = datetime.now(UTC) - timedelta(hours=1)


def sealed(words: str) -> bytes:
    return EncryptedText(ciphertext=words.encode()).SerializeToString()


SAID = [
    Feedback("thumb", "request-1", "acme", Value(Kind.THUMB, thumb=Thumb.UP), tags=("quick", "kind"), project_id="p"),
    Feedback("rating", "request-2", "acme", Value(Kind.RATING, rating=4), subject_id="ben"),
    Feedback("about-ada", "request-1", "acme", Value(Kind.COMMENT, sealed_text=sealed("of ada's request"))),
    Feedback("by-ben", "request-2", "acme", Value(Kind.CORRECTION, sealed_text=sealed("ben's")), subject_id="ben"),
    Feedback("in-clear", "request-2", "acme", Value(Kind.COMMENT, text="<PERSON_1> was helpful")),
    Feedback("foreign", "request-3", "acme", Value(Kind.COMMENT, sealed_text=sealed("of globex"))),
    Feedback("taken-back", "request-2", "acme", Value(Kind.THUMB, thumb=Thumb.DOWN)),
    Feedback("of-two", "request-2", "acme", Value(Kind.COMPARISON, other_request_id="request-1", preference=Preference.TIE)),
    Feedback("unknown", "request-9", "acme", Value(Kind.RATING, rating=1), is_synthetic=True),
    Feedback("captures-none", "request-4", "initech", Value(Kind.COMMENT, sealed_text=sealed("not to be kept"))),
]  # fmt: skip


def completed(number: int, tenant: str, subject: str = "", **fields: Any) -> gateway_pb2.RequestCompleted:
    event = gateway_pb2.RequestCompleted(outcome=gateway_pb2.REQUEST_OUTCOME_COMPLETED, **fields)
    event.metadata.event_id, event.metadata.request_id = f"event-{number}", f"request-{number}"
    event.metadata.tenant_id, event.metadata.subject_id = tenant, subject
    event.metadata.occurred_at.FromDatetime(NOW)
    return event


def learnt() -> list[Any]:
    erased = privacy_pb2.SubjectErased()
    erased.metadata.event_id, erased.metadata.tenant_id, erased.metadata.subject_id = "erased", "acme", "ada"
    erased.metadata.occurred_at.FromDatetime(NOW + timedelta(minutes=5))
    return [
        completed(1, "acme", "ada"),
        completed(2, "acme", "cleo"),
        completed(3, "globex"),
        completed(4, "initech", content_capture=gateway_pb2.CONTENT_CAPTURE_NONE),
        erased,
    ]


class House:
    """A broker, a live database of feedback, and replays of it."""

    def __init__(self, settings: FeedbackSettings) -> None:
        self.settings = settings
        self.database = Database(settings.database)
        self.store = SqlFeedback(self.database, encode=encode_feedback)

    async def send(self, *events: Any) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.settings.kafka_bootstrap, acks="all") as producer:
            for event in events:
                record = encode(event)
                await producer.send_and_wait(record.topic, record.value, key=record.key, headers=record.headers)

    async def learn(self) -> None:
        """As the service's consumer does, from Kafka."""
        consumer = CompletionConsumer(
            self.store, on_rejected=lambda: None, report_health=lambda name, good: None, clock=lambda: NOW + timedelta(minutes=6),
            keep_for=timedelta(days=30), keep_at_most=1000,
        )  # fmt: skip
        topics = [topic_of(each).name for each in (gateway_pb2.RequestCompleted, privacy_pb2.SubjectErased)]
        async with OrderedReader.opened(self.settings) as reader:
            async for record in reader.records(await reader.spans(topics)):
                event = _event(record, Report(""))
                assert event is not None
                await consumer.handle([event])

    async def relay(self) -> None:
        """As the service's relay does."""
        payloads: list[bytes] = []
        await self.store.hand_over(payloads.extend, limit=100)
        await self.send(*(FeedbackReceived.FromString(payload) for payload in payloads))

    async def live(self) -> dict[str, Any]:
        rows = await self.database.read(lambda connection: connection.execute(select(tables.feedback)).all())
        return {row.feedback_id: row for row in rows}


@pytest.fixture
async def house(tmp_path: Path, database_url: str, start_process: Callable[..., Any]) -> Any:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    binary = str(files("noida_db") / "noida-db")
    command = [binary, "start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(tmp_path / "broker")]
    start_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    settings = FeedbackSettings(
        home=tmp_path, kafka_bootstrap=f"127.0.0.1:{port}", kafka_embedded=True, database_url=database_url
    )
    await ensure_topics(settings)
    made = House(settings)
    for number, said in enumerate(SAID):
        await made.store.add(said, received_at=NOW + timedelta(microseconds=number))
    await made.store.retract("acme", "taken-back", at=NOW + timedelta(minutes=1))
    await made.relay()
    await made.send(*learnt())
    await made.learn()
    await made.relay()
    yield made
    await made.database.close()


@pytest.fixture(autouse=True)
def no_versions_left(request: pytest.FixtureRequest, database_url: str) -> Iterator[None]:
    """PostgreSQL keeps the versions; a server that was given to the tests should not."""
    yield
    if not database_url.startswith("sqlite"):
        server = request.getfixturevalue("postgres")
        name = database_url.rsplit("/", 1)[1]
        with psycopg.connect(server, autocommit=True) as connection:
            for version in ("one", "two", "before_one"):
                connection.execute(f"DROP DATABASE IF EXISTS {name}_{version} WITH (FORCE)")  # type: ignore[call-overload]


async def test_two_replays_are_the_live_database_and_the_same_bytes(house: House, tmp_path: Path) -> None:
    live = await house.live()
    assert {name: row.standing for name, row in live.items() if row.standing != "accepted"} == {
        "taken-back": "retracted",
        "foreign": "rejected",
    }
    gone = {"about-ada", "foreign", "captures-none"}
    assert {name for name, row in live.items() if row.kind in ("comment", "correction") and not row.digest} == gone
    for name in ("one", "two"):
        report = await Replay(house.settings, into=name).build(tmp_path / name)
        assert report.is_same, report
        assert report.difference.same == len(SAID) + 4 + 1  # and four requests and one erasure
    first = (tmp_path / "one").read_bytes()
    assert first == (tmp_path / "two").read_bytes()
    assert sealed("ben's").hex().encode() in first
    for words in ("of ada's request", "of globex", "not to be kept"):
        assert sealed(words).hex().encode() not in first


async def test_what_differs_is_named_without_its_value_and_the_switch_puts_it_right(
    house: House, tmp_path: Path
) -> None:
    which = tables.feedback.c.feedback_id == "rating"
    await house.database.write(
        lambda connection: connection.execute(update(tables.feedback).where(which).values(rating=1))
    )
    late = Feedback("not-told-yet", "request-2", "acme", Value(Kind.THUMB, thumb=Thumb.UP))
    await house.store.add(late, received_at=NOW)
    replay = Replay(house.settings, into="one")
    report = await replay.build(None)
    assert (report.difference.different, report.difference.under_way, report.is_same) == (1, 1, False)
    assert report.difference.examples == ("feedback_entries acme/rating: rating differ",)
    with pytest.raises(versions.Refused, match="in use"):
        await replay.switch()
    await house.database.close()
    assert not (await replay.switch()).kept_as
    assert (await replay.switch(accept_differences=True)).kept_as

    house.database = Database(house.settings.database)
    house.store = SqlFeedback(house.database, encode=encode_feedback)
    live = await house.live()
    assert live["rating"].rating == 4
    assert len(live) == len(SAID) + 1
    await house.relay()  # what waited to be told was carried over, and is told
    report = await Replay(house.settings, into="two").build(None)
    assert report.is_same, report
    assert report.difference.under_way == 0


async def test_a_part_is_refused_with_the_reason(house: House) -> None:
    arguments = argparse.Namespace(begin="7", into="one", switch=False, export=None, accept_differences=False)
    with pytest.raises(versions.Refused, match="replayed as a whole"):
        await run(arguments, house.settings)


def test_a_report_tells_what_was_skipped_by_reason() -> None:
    report = SkippingReport(into="again", skipped=Counter(UnusableCompletion=2))
    assert json.loads(report.as_json())["skipped"] == {"UnusableCompletion": 2}
