"""Texts of feedback: sealed where they stand, and gone when a person is erased or their tenant captures none."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sluice.events.v1 import gateway_pb2, privacy_pb2
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice_feedback.adapters import tables
from sluice_feedback.adapters.database import Database
from sluice_feedback.adapters.feedback_events import encode
from sluice_feedback.adapters.sealed_texts import ClearTexts, SealedTexts
from sluice_feedback.adapters.sql_feedback import SqlFeedback
from sluice_feedback.consumer import CompletionConsumer, known_request
from sluice_feedback.domain.desk import Desk
from sluice_feedback.domain.feedback import (
    CaptureRefused,
    ContentDiffers,
    Feedback,
    KeysUnavailable,
    Kind,
    Standing,
    Thumb,
    Value,
)
from sluice_kit.consumer import ConsumedEvent
from sluice_kit.errors import Unavailable
from sluice_kit.events import topic_of
from sluice_kit.sealing.file_keys import FileKeyStore
from sluice_kit.sealing.keys import KeyStore, KeyStoreUnavailable
from sluice_kit.sealing.text import Place, TextErased, TextReader, TextSealer

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CANARY = "the canary sings"


class Keys:
    """A key store that can be away."""

    def __init__(self, folder: Path) -> None:
        self.store = FileKeyStore(folder)
        self.away = False

    def __call__(self) -> KeyStore:
        if self.away:
            raise KeyStoreUnavailable("away")
        return self.store


class Redactor:
    async def redact(self, text: str) -> str:
        return text.replace("Jane", "<PERSON_1>")


class Service:
    """The service without its doors."""

    def __init__(self, database: Database, keys: Keys) -> None:
        self.keys, self.database = keys, database
        self.store = SqlFeedback(database, encode=encode)
        self.safe = SealedTexts(TextSealer(keys), keys)
        self.desk = Desk(self.store, Redactor(), self.safe)
        self.health: dict[str, bool] = {}
        self.consumer = CompletionConsumer(
            self.store, on_rejected=lambda: None, report_health=self.health.__setitem__, clock=lambda: NOON,
            keep_for=timedelta(days=1), keep_at_most=1000, keys=self.safe,
        )  # fmt: skip
        self._offset = 0

    async def say(
        self, text: str = CANARY, *, at: datetime = NOON, kind: Kind = Kind.COMMENT, **about: Any
    ) -> Feedback:
        told = {"feedback_id": "f1", "request_id": "r1", "tenant_id": "acme", "value": Value(kind, text=text), **about}
        stored, _ = await self.desk.submit(Feedback(**told), received_at=at)
        return stored.feedback

    async def consume(self, *messages: Any) -> None:
        events = []
        for message in messages:
            self._offset += 1
            topic = topic_of(type(message)).name
            events.append(ConsumedEvent(message, topic, 0, self._offset, b"", {}, message.metadata.event_id, 0))
        await self.consumer.handle(events)

    async def shown(self, request_id: str = "r1") -> list[tuple[str | None, str]]:
        found, _ = await self.desk.of_request("acme", request_id)
        return [(one.stored.feedback.value.text, one.left_out) for one in found]

    async def events(self) -> list[FeedbackReceived]:
        payloads: list[bytes] = []
        await self.store.hand_over(payloads.extend, limit=1000)
        return [FeedbackReceived.FromString(payload) for payload in payloads]

    def read(self, event: FeedbackReceived) -> str:
        return TextReader(self.keys).open(event.encrypted_text, Place.in_event(event, "encrypted_text"))

    async def rows(self) -> list[Any]:
        query = sqlalchemy.select(tables.feedback)
        return list(await self.database.read(lambda connection: connection.execute(query).all()))


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Service:
    return Service(database, Keys(tmp_path / "keys"))


def completed(request_id: str = "r1", tenant_id: str = "acme", subject_id: str = "", **fields: Any) -> Any:
    event = gateway_pb2.RequestCompleted(**fields)
    event.metadata.event_id, event.metadata.request_id = f"completed-{request_id}", request_id
    event.metadata.tenant_id, event.metadata.subject_id = tenant_id, subject_id
    event.metadata.occurred_at.FromDatetime(NOON)
    return event


def erased(subject_id: str, tenant_id: str = "acme", at: datetime = NOON + MINUTE) -> privacy_pb2.SubjectErased:
    event = privacy_pb2.SubjectErased()
    event.metadata.event_id, event.metadata.tenant_id, event.metadata.subject_id = "erased", tenant_id, subject_id
    event.metadata.occurred_at.FromDatetime(at)
    return event


async def test_a_text_is_sealed_in_the_store_and_the_event_and_shown_to_who_has_the_key(service: Service) -> None:
    await service.say(f"{CANARY}, says Jane", subject_id="sub_1")
    (row,), (event,) = await service.rows(), await service.events()
    assert row.text is None
    assert b"canary" not in row.sealed_text + event.SerializeToString()
    assert (event.WhichOneof("value"), event.redacted_comment) == ("redacted_comment", "")
    assert service.read(event) == f"{CANARY}, says <PERSON_1>"
    assert await service.shown() == [(f"{CANARY}, says <PERSON_1>", "")]


async def test_the_digest_in_the_store_tells_nothing_of_a_sealed_text(service: Service) -> None:
    await service.say("yes", feedback_id="f1")
    await service.say("no", feedback_id="f2")
    one, other = await service.rows()
    assert one.digest == other.digest


async def test_the_same_text_again_is_the_same_feedback_and_another_is_refused(service: Service) -> None:
    await service.say()
    await service.say()
    assert len(await service.events()) == 1
    with pytest.raises(ContentDiffers):
        await service.say("something else")
    service.keys.store.destroy("acme/request-r1")
    service.safe._reader._keys.clear()
    with pytest.raises(ContentDiffers):
        await service.say()


async def test_a_retraction_does_not_say_the_text_again(service: Service) -> None:
    await service.say()
    await service.store.retract("acme", "f1", at=NOON)
    said, taken_back = await service.events()
    assert (said.retracted, said.HasField("encrypted_text")) == (False, True)
    assert (taken_back.retracted, taken_back.HasField("encrypted_text")) == (True, False)
    assert taken_back.WhichOneof("value") == "redacted_comment"


async def test_nothing_is_stored_while_the_key_store_is_away(service: Service) -> None:
    service.keys.away = True
    with pytest.raises(KeysUnavailable):
        await service.say()
    assert await service.rows() == []
    stored, _ = await service.desk.submit(
        Feedback("f2", "r1", "acme", Value(Kind.THUMB, thumb=Thumb.UP)), received_at=NOON
    )
    assert stored.standing is Standing.ACCEPTED


async def test_a_text_that_cannot_be_opened_now_is_listed_without_it(service: Service) -> None:
    await service.say()
    other = Desk(service.store, Redactor(), SealedTexts(TextSealer(service.keys), service.keys))
    service.keys.away = True
    found, _ = await other.of_request("acme", "r1")
    assert [one.left_out for one in found] == ["KEY_STORE_UNAVAILABLE"]


@pytest.mark.parametrize(
    ("giver", "subject", "is_known", "owners"),
    [
        ("sub_1", "sub_2", True, ["sub_1", "sub_2"]),
        ("sub_1", "sub_1", True, ["sub_1"]),
        ("", "sub_2", True, ["sub_2"]),
        ("", "", True, ["request-r1"]),
        ("sub_1", "", True, ["sub_1"]),
        ("sub_1", "", False, ["sub_1", "request-r1"]),
        ("", "", False, ["request-r1"]),
    ],
)
async def test_everybody_it_is_about_has_a_key_to_it(
    service: Service, giver: str, subject: str, is_known: bool, owners: list[str]
) -> None:
    if is_known:
        await service.consume(completed(subject_id=subject))
    await service.say(subject_id=giver)
    (event,) = await service.events()
    assert [key.split("@")[0] for key in event.encrypted_text.key_ids] == [f"acme/{owner}" for owner in owners]


@pytest.mark.parametrize("who", ["giver", "subject"])
@pytest.mark.parametrize("order", ["request first", "feedback first", "request last"])
async def test_an_erasure_takes_what_came_of_a_person_or_about_their_request_in_any_order(
    service: Service, who: str, order: str
) -> None:
    request = completed(subject_id="sub_subject")
    if order == "request first":
        await service.consume(request)
    await service.say(subject_id="sub_giver")
    await service.say(feedback_id="f2", request_id="r2", subject_id="sub_other")
    if order == "feedback first":
        await service.consume(request)
    service.keys.store.destroy(f"acme/sub_{who}")  # as `sluice privacy erase` does before it tells
    await service.consume(erased(f"sub_{who}"))
    if order == "request last":
        await service.consume(request)
    by_id = {row.feedback_id: row for row in await service.rows()}
    assert (by_id["f1"].text, by_id["f1"].sealed_text, by_id["f1"].digest) == (None, None, "")
    assert await service.shown() == [(None, "ERASED")]
    assert await service.shown("r2") == [(CANARY, "")]
    event, other = await service.events()
    with pytest.raises(TextErased):
        service.read(event)
    assert service.read(other) == CANARY


async def test_what_a_person_says_after_the_erasure_stays_also_when_it_is_replayed(service: Service) -> None:
    await service.consume(completed(subject_id="sub_1"))
    service.keys.store.destroy("acme/sub_1")
    await service.consume(erased("sub_1"))
    await service.say("said afterwards", subject_id="sub_1", at=NOON + 2 * MINUTE)
    await service.consume(erased("sub_1"), completed(subject_id="sub_1"))
    assert await service.shown() == [("said afterwards", "")]


async def test_an_erasure_stays_with_its_tenant(service: Service) -> None:
    await service.say(subject_id="sub_1")
    await service.consume(erased("sub_1", tenant_id="umbrella"))
    assert await service.shown() == [(CANARY, "")]


async def test_counts_and_standing_stay_when_a_text_is_erased(service: Service) -> None:
    await service.say(subject_id="sub_1")
    before = [(row.feedback_id, row.kind, row.standing, row.received_at_us) for row in await service.rows()]
    await service.consume(erased("sub_1"))
    assert [(row.feedback_id, row.kind, row.standing, row.received_at_us) for row in await service.rows()] == before


async def test_an_erasure_waits_for_the_key_store_and_then_is_done(service: Service) -> None:
    await service.say()
    service.keys.away = True
    with pytest.raises(Unavailable):
        await service.consume(completed(content_capture=gateway_pb2.CONTENT_CAPTURE_NONE))
    assert service.health["key_store"] is False
    assert (await service.rows())[0].sealed_text is not None
    service.keys.away = False
    await service.consume(completed(content_capture=gateway_pb2.CONTENT_CAPTURE_NONE))
    assert service.health["key_store"] is True
    assert (await service.rows())[0].sealed_text is None


async def test_a_tenant_that_captures_nothing_gets_no_text_taken(service: Service) -> None:
    await service.consume(completed(content_capture=gateway_pb2.CONTENT_CAPTURE_NONE))
    with pytest.raises(CaptureRefused):
        await service.say()
    assert await service.rows() == []


async def test_a_text_that_came_before_its_request_goes_when_the_tenant_captures_nothing(service: Service) -> None:
    await service.say()
    await service.consume(completed(content_capture=gateway_pb2.CONTENT_CAPTURE_NONE))
    (event,) = await service.events()
    assert await service.shown() == [(None, "ERASED")]
    with pytest.raises(TextErased):
        service.read(event)


async def test_texts_of_a_former_version_are_sealed_and_stand_in_no_file_in_clear(
    service: Service, database_url: str, tmp_path: Path
) -> None:
    for number in range(5):
        plain = Feedback(
            f"old-{number}", "r1", "acme", Value(Kind.COMMENT, text=f"{CANARY} {number}"), subject_id="sub_1"
        )
        await service.store.add(plain, received_at=NOON)
    await service.events()  # they were told long ago
    await asyncio.wait_for(ClearTexts(service.store, service.safe).seal_all(asyncio.Event()), 30)
    if database_url.startswith("sqlite"):  # with the database still open
        leaks = [path.name for path in tmp_path.rglob("feedback.db*") if b"canary" in path.read_bytes()]
        assert leaks == []
    assert [row.text for row in await service.rows()] == [None] * 5
    assert [text for text, _ in await service.shown()] == [f"{CANARY} {number}" for number in range(5)]
    await service.say(f"{CANARY} 3", feedback_id="old-3", subject_id="sub_1")  # the same again is still the same


def test_self_tests_take_no_place_in_the_register_of_requests() -> None:
    real, self_test = completed(), completed("r2")
    self_test.metadata.synthetic = True
    topic = topic_of(gateway_pb2.RequestCompleted).name
    found = [known_request(ConsumedEvent(one, topic, 0, 0, b"", {}, "", 0)) for one in (real, self_test)]
    assert [one and one.request_id for one in found] == ["r1", None]
