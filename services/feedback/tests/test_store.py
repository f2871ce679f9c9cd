"""Feedback in SQL: once, in order with the news of its request, and told exactly as it stands."""

import asyncio
import random
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice_feedback.adapters import tables
from sluice_feedback.adapters.database import Database, open_database
from sluice_feedback.adapters.feedback_events import encode
from sluice_feedback.adapters.sql_feedback import SqlFeedback
from sluice_feedback.domain.feedback import (
    ContentDiffers,
    Feedback,
    ForeignRequest,
    Kind,
    Preference,
    Standing,
    Thumb,
    TooMuchFeedback,
    UnknownFeedback,
    Value,
)
from sluice_feedback.domain.known_requests import KnownRequest, Partition

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
UP, DOWN = Value(Kind.THUMB, thumb=Thumb.UP), Value(Kind.THUMB, thumb=Thumb.DOWN)


def feedback(value: Value = UP, **changes: Any) -> Feedback:
    return Feedback(**{"feedback_id": "f1", "request_id": "r1", "tenant_id": "acme", "value": value, **changes})


def known(request_id: str = "r1", tenant_id: str = "acme", at: datetime = NOON) -> KnownRequest:
    return KnownRequest(request_id, tenant_id, at)


@pytest.fixture
def store(database: Database) -> SqlFeedback:
    return SqlFeedback(database, encode=encode)


async def told(store: SqlFeedback) -> list[FeedbackReceived]:
    payloads: list[bytes] = []
    await store.hand_over(payloads.extend, limit=1000)
    return [FeedbackReceived.FromString(payload) for payload in payloads]


async def test_the_same_feedback_again_is_the_same_answer_and_one_event(store: SqlFeedback) -> None:
    first, is_known = await store.add(feedback(), received_at=NOON)
    again, _ = await store.add(feedback(), received_at=LATER)
    assert (again, is_known) == (first, False)
    assert len(await told(store)) == 1


async def test_other_content_under_the_same_id_is_refused(store: SqlFeedback) -> None:
    await store.add(feedback(), received_at=NOON)
    with pytest.raises(ContentDiffers):
        await store.add(feedback(DOWN), received_at=NOON)
    (one,), _ = await store.of_request("acme", "r1")
    assert one.feedback.value == UP


async def test_ids_are_each_tenants_own(store: SqlFeedback) -> None:
    await store.add(feedback(), received_at=NOON)
    await store.add(feedback(DOWN, tenant_id="umbrella", request_id="r2"), received_at=NOON)
    assert len(await told(store)) == 2


async def test_many_at_once_under_one_id_leave_one(store: SqlFeedback) -> None:
    answers = await asyncio.gather(*(store.add(feedback(), received_at=NOON) for _ in range(20)))
    assert len({stored.received_at for stored, _ in answers}) == 1
    assert len(await told(store)) == 1


async def test_what_was_stored_is_read_back_as_it_was(store: SqlFeedback) -> None:
    values = [
        UP,
        Value(Kind.RATING, rating=4),
        Value(Kind.COMMENT, text="\N{GRINNING FACE} <PERSON_1>"),
        Value(Kind.COMPARISON, other_request_id="r2", preference=Preference.OTHER),
    ]
    given = [feedback(value, feedback_id=f"f{i}", tags=("a", "b")) for i, value in enumerate(values)]
    for one in given:
        await store.add(one, received_at=NOON)
    found, _ = await store.of_request("acme", "r1")
    assert [stored.feedback for stored in found] == given


async def test_a_request_becomes_known_with_its_completion(store: SqlFeedback) -> None:
    assert (await store.add(feedback(), received_at=NOON))[1] is False
    assert await store.learn([known()], {}, at=NOON) == 0
    assert (await store.add(feedback(), received_at=NOON))[1] is True
    assert (await store.of_request("acme", "r1"))[1] is True
    assert [event.retracted for event in await told(store)] == [False]


@pytest.mark.parametrize(
    "value", [UP, Value(Kind.COMPARISON, other_request_id="r2", preference=Preference.THIS)], ids=["own", "compared"]
)
async def test_feedback_on_a_request_that_is_known_to_be_anothers_is_refused(store: SqlFeedback, value: Value) -> None:
    foreign = "r2" if value.other_request_id else "r1"
    await store.learn([known(foreign, "umbrella")], {}, at=NOON)
    with pytest.raises(ForeignRequest):
        await store.add(feedback(value), received_at=NOON)
    with pytest.raises(ForeignRequest):
        await store.check_owner("acme", [foreign])
    with pytest.raises(ForeignRequest):
        await store.of_request("acme", foreign)
    assert await told(store) == []


@pytest.mark.parametrize(
    "value", [UP, Value(Kind.COMPARISON, other_request_id="r2", preference=Preference.THIS)], ids=["own", "compared"]
)
async def test_feedback_whose_request_turns_out_to_be_anothers_is_rejected_and_taken_back_from_its_readers(
    store: SqlFeedback, value: Value
) -> None:
    foreign = "r2" if value.other_request_id else "r1"
    await store.add(feedback(value), received_at=NOON)
    await store.add(feedback(feedback_id="f2", request_id="r3"), received_at=NOON)
    assert await store.learn([known(foreign, "umbrella"), known("r3")], {}, at=LATER) == 1
    assert await store.learn([known(foreign, "umbrella"), known("r3")], {}, at=LATER) == 0
    assert [(e.feedback_id, e.retracted) for e in await told(store)] == [("f1", False), ("f2", False), ("f1", True)]
    with pytest.raises(UnknownFeedback):
        await store.retract("acme", "f1", at=LATER)


async def test_the_owner_of_a_request_never_changes(store: SqlFeedback) -> None:
    await store.learn([known()], {}, at=NOON)
    await store.learn([known(tenant_id="umbrella")], {}, at=NOON)
    await store.check_owner("acme", ["r1"])


async def test_feedback_is_taken_back_once(store: SqlFeedback) -> None:
    await store.add(feedback(), received_at=NOON)
    first = await store.retract("acme", "f1", at=LATER)
    again = await store.retract("acme", "f1", at=LATER + timedelta(hours=1))
    assert (first.standing, first.ended_at) == (Standing.RETRACTED, LATER)
    assert again == first
    assert [event.retracted for event in await told(store)] == [False, True]


@pytest.mark.parametrize(("tenant", "feedback_id"), [("umbrella", "f1"), ("acme", "f2")])
async def test_only_ones_own_feedback_can_be_taken_back(store: SqlFeedback, tenant: str, feedback_id: str) -> None:
    await store.add(feedback(), received_at=NOON)
    with pytest.raises(UnknownFeedback):
        await store.retract(tenant, feedback_id, at=LATER)
    assert len(await told(store)) == 1


async def test_there_is_a_limit_to_feedback_on_one_request(store: SqlFeedback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sluice_feedback.adapters.sql_feedback.MOST_PER_REQUEST", 2)
    for number in range(2):
        await store.add(feedback(feedback_id=f"f{number}"), received_at=NOON)
    with pytest.raises(TooMuchFeedback):
        await store.add(feedback(feedback_id="f3"), received_at=NOON)
    assert len((await store.of_request("acme", "r1"))[0]) == 2
    assert len(await told(store)) == 2


async def test_requests_are_forgotten_by_age_and_by_number(store: SqlFeedback) -> None:
    requests = [known(f"r{hour}", at=NOON + timedelta(hours=hour)) for hour in range(10)]
    await store.learn(requests, {}, at=NOON)
    assert await store.forget(before=NOON + timedelta(hours=2), keep_at_most=100) == 2
    assert await store.forget(before=NOON, keep_at_most=3) == 5
    assert await store.forget(before=NOON, keep_at_most=100) == 0


async def test_offsets_are_kept_with_what_was_learnt(store: SqlFeedback) -> None:
    first, second = Partition("t", 0), Partition("t", 1)
    await store.learn([known()], {first: 7}, at=NOON)
    assert await store.next_offsets({first, second}) == {first: 7}


@pytest.mark.parametrize("seed", range(3))
async def test_feedback_and_completions_in_any_order_and_at_once_end_the_same(seed: int, store: SqlFeedback) -> None:
    chance = random.Random(seed)
    numbers = range(30)

    async def submit(number: int) -> None:
        # Every third one speaks of a request of somebody else's.
        tenant = "umbrella" if number % 3 == 0 else "acme"
        try:
            await store.add(
                feedback(feedback_id=f"f{number}", request_id=f"r{number}", tenant_id=tenant), received_at=NOON
            )
        except ForeignRequest:
            assert tenant == "umbrella"

    async def complete(some: Sequence[int]) -> None:
        await store.learn([known(f"r{number}") for number in some], {}, at=LATER)

    shuffled = list(numbers)
    chance.shuffle(shuffled)
    work = [submit(number) for number in numbers] + [complete(shuffled[at : at + 7]) for at in range(0, 30, 7)]
    chance.shuffle(work)
    await asyncio.gather(*work)
    events = await told(store)
    standing = {event.feedback_id: event.retracted for event in events}
    stands = {feedback_id for feedback_id, is_over in standing.items() if not is_over}
    assert stands == {f"f{number}" for number in numbers if number % 3}


async def test_a_transaction_that_fails_leaves_no_row_and_no_event(database: Database) -> None:
    def break_down(_: Any) -> bytes:
        raise RuntimeError

    broken = SqlFeedback(database, encode=break_down)
    with pytest.raises(RuntimeError):
        await broken.add(feedback(), received_at=NOON)
    assert (await broken.of_request("acme", "r1"))[0] == []


async def test_nobody_who_gives_feedback_waits_while_events_are_handed_over(store: SqlFeedback) -> None:
    handing_over, go_on = threading.Event(), threading.Event()

    def deliver(_: Sequence[bytes]) -> None:
        handing_over.set()
        assert go_on.wait(60)

    await store.add(feedback(), received_at=NOON)
    relaying = asyncio.create_task(store.hand_over(deliver, limit=10))
    assert await asyncio.to_thread(handing_over.wait, 60)
    try:
        async with asyncio.timeout(30):
            await store.add(feedback(DOWN, feedback_id="f2"), received_at=NOON)
    finally:
        go_on.set()
    assert await relaying == 1
    assert len(await told(store)) == 1  # what came meanwhile waits for its turn


async def test_an_event_that_was_sent_and_not_taken_out_is_sent_again_the_same(store: SqlFeedback) -> None:
    sent: list[bytes] = []

    def die(payloads: Sequence[bytes]) -> None:
        sent.extend(payloads)
        raise ConnectionError

    await store.add(feedback(), received_at=NOON)
    with pytest.raises(ConnectionError):
        await store.hand_over(die, limit=10)
    assert await store.hand_over(sent.extend, limit=10) == 1
    assert sent[0] == sent[1]


async def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database) -> None:
    def compare(connection: Any) -> list[Any]:
        options = {"version_table": "feedback_schema_version"}
        return compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)

    assert await database.read(compare) == []


async def test_a_second_start_finds_the_schema_there(database_url: str, database: Database) -> None:
    again = open_database(database_url)
    await again.close()
