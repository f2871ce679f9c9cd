"""The stories of requests: the same in any order, each event once, a tenant's own, without any text, bounded."""

import asyncio
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1 import feedback_pb2, gateway_pb2, moderation_pb2
from sluice.insight.v1 import request_service_pb2 as pb
from sluice_insight.adapters.stories.events import LEFT_OUT, STORY_EVENTS, story_event
from sluice_insight.domain.request_query import RequestQuery
from sluice_kit.events import topic_of

from .story_house import CANARY, DAY_US, NOON, House, completed, cost, described, thumb, whole_story


@pytest.mark.parametrize("seed", range(8))
async def test_a_story_is_the_same_in_any_order_in_any_batches_and_however_often_its_events_come(
    house: House, seed: int
) -> None:
    dice = random.Random(seed)
    events = whole_story() * dice.randint(1, 3)
    dice.shuffle(events)
    while events:
        count = dice.randint(1, len(events))
        await house.take(*events[:count])
        del events[:count]
    story = await house.stub.GetRequest(pb.GetRequestRequest(request_id="r1"))
    assert [money.nano_units for money in story.summary.costs] == [600]
    assert [row.amount.nano_units for row in story.costs] == [1_000, -400]
    assert (story.summary.feedback_count, story.summary.thumbs, story.summary.tokens) == (2, 1, 15)
    assert (len(story.decisions), len(story.generations), list(story.summary.kinds)) == (1, 1, ["EMAIL_ADDRESS"])
    assert story.generations[0].prompt_profile.words == 7


async def test_no_text_no_embedding_and_no_pseudonym_is_kept_anywhere(house: House, tmp_path: Path) -> None:
    await house.take(*whole_story())
    story = await house.stub.GetRequest(pb.GetRequestRequest(request_id="r1"))
    house.stories._writer.submit(house.stories._write_to.execute, "PRAGMA wal_checkpoint(TRUNCATE)").result()
    kept = story.SerializeToString() + b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (CANARY.encode(), b"sub_abc", b"hello"):
        assert secret not in kept
    assert not story.generations[0].prompt_profile.embedding


# Fields that hold a code, an id or a name of configuration. A new text field of these events must be put here or into LEFT_OUT by somebody who
# has thought about it.
CODES = {
    "event_id", "producer", "request_id", "tenant_id", "project_id", "traceparent", "reason", "model", "route", "prompt_version",
    "experiment_arm", "api_key_id", "decision_ids", "blocked_categories", "kind", "skipped_filters", "served_model", "moderation_policies",
    "cost_hold_id", "text_left_out", "policy_id", "policy_digest", "key", "decision_id", "category", "detector", "check", "value",
    "offending_segment_ids", "identity_groups", "language", "enforced_decision_id", "backend", "model_digest", "embedding_model_digest",
    "source_event_id", "charge_kind", "currency_code", "price_book", "outcome", "corrects_event_id", "approved_by", "feedback_id",
    "other_request_id", "review_id", "cause", "reviewer_id", "subject_id", "bucket", "unit_price", "input_language", "output_language",
    "attribute", "called_tools",
}  # fmt: skip


def _texts(descriptor: Any, path: str, seen: tuple[str, ...] = ()) -> list[str]:
    found: list[str] = []
    for field in descriptor.fields:
        here = f"{path}.{field.name}".lstrip(".")
        if field.message_type is not None and field.message_type.full_name not in seen:
            found += _texts(field.message_type, here, (*seen, descriptor.full_name))
        elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            found.append(here)
    return found


@pytest.mark.parametrize("event", STORY_EVENTS, ids=lambda one: one.DESCRIPTOR.name)
def test_every_field_that_could_hold_a_text_is_a_known_code_or_left_out(event: type[Message]) -> None:
    left_out = LEFT_OUT.get(event.DESCRIPTOR.name, ())
    unknown = [
        path
        for path in _texts(event.DESCRIPTOR, "")
        if path.rsplit(".", 1)[-1] not in CODES
        and not any(path == one or path.startswith(f"{one}.") for one in left_out)
    ]
    assert unknown == []


async def test_requests_are_found_by_each_condition_and_by_all_together(house: House) -> None:
    blocked = gateway_pb2.REQUEST_OUTCOME_BLOCKED_INPUT
    await house.take(
        completed("a", seconds=1),
        completed(
            "b",
            seconds=2,
            model="large",
            outcome=blocked,
            blocked_categories=["prompt_injection"],
            reason="CONTENT_BLOCKED",
        ),
        completed("c", seconds=3, tenant="globex", prompt_version="greeting@3"),
        completed("d", seconds=4, route="canary"),
        thumb("a", 9),
    )
    at = [Timestamp() for _ in range(2)]
    at[0].FromDatetime(NOON + timedelta(seconds=2))
    at[1].FromDatetime(NOON + timedelta(seconds=4))
    assert await house.ids() == ["d", "c", "b", "a"]
    assert await house.ids(tenant_id="globex") == ["c"]
    assert await house.ids(outcomes=[blocked]) == ["b"]
    failed, done = gateway_pb2.REQUEST_OUTCOME_FAILED, gateway_pb2.REQUEST_OUTCOME_COMPLETED
    assert await house.ids(outcomes=[blocked, failed]) == ["b"]
    assert await house.ids(outcomes=[blocked, done, done], tenant_id="acme") == ["d", "b", "a"]
    assert await house.ids(outcomes=[failed]) == []
    assert await house.ids(model="large") == ["b"]
    assert await house.ids(route="canary") == ["d"]
    assert await house.ids(prompt_version="greeting@3") == ["c"]
    assert await house.ids(kind="EMAIL_ADDRESS", tenant_id="acme") == ["d", "b", "a"]
    assert await house.ids(kind="IBAN") == []
    assert await house.ids(blocked_category="prompt_injection") == ["b"]
    assert await house.ids(with_feedback=True) == ["a"]
    assert await house.ids(start_time=at[0], end_time=at[1]) == ["c", "b"]
    assert await house.ids(model="large", tenant_id="globex") == []


async def test_what_waits_for_a_person_is_found_until_it_is_decided(house: House) -> None:
    held, shadow = (
        moderation_pb2.ContentModerated(awaits_review=True),
        moderation_pb2.ContentModerated(awaits_review=True, shadow=True),
    )
    held.verdict.decision_id, shadow.verdict.decision_id = "d-held", "d-shadow"
    appeal = feedback_pb2.ReviewRequested(review_id="v1", decision_id="d-appealed")
    await house.take(
        completed("a"),
        described(held, 1, "a"),
        completed("b"),
        described(shadow, 1, "b"),
        completed("c"),
        described(appeal, 1, "c"),
    )
    assert set(await house.ids(awaiting_review=True)) == {"a", "c"}
    found = (await house.stub.GetRequest(pb.GetRequestRequest(request_id="a"))).summary
    assert list(found.decisions_awaiting_review) == ["d-held"]
    decided = feedback_pb2.ReviewResolved(review_id="v2", decision_id="d-held", outcome="upheld")
    await house.take(described(decided, 1, "a", seconds=9))
    assert await house.ids(awaiting_review=True) == ["c"]


async def test_pages_lead_through_all_requests_also_those_of_one_moment_while_new_ones_come(house: House) -> None:
    await house.take(*(completed(f"r{i:03}", seconds=i // 10) for i in range(95)))
    seen: list[str] = []
    token = ""
    while True:
        answer = await house.stub.ListRequests(pb.ListRequestsRequest(page_size=20, page_token=token))
        seen += [one.request_id for one in answer.requests]
        await house.take(completed(f"new-{len(seen)}", seconds=1_000))
        token = answer.next_page_token
        if not token:
            break
    assert seen == [f"r{i:03}" for i in reversed(range(95))]


async def test_a_tenant_sees_only_its_own_however_it_asks(house: House) -> None:
    await house.take(
        completed("mine"), completed("theirs", tenant="globex"), completed("both"), completed("both", tenant="globex")
    )
    acme = (("x-sluice-tenant-id", "acme"),)
    for asked in ("", "acme", "globex"):
        assert set(await house.ids(acme, tenant_id=asked)) == {"mine", "both"}
    assert (
        await house.stub.GetRequest(pb.GetRequestRequest(request_id="both"), metadata=acme)
    ).summary.tenant_id == "acme"
    for unknown in ("theirs", "nobody's"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await house.stub.GetRequest(pb.GetRequestRequest(request_id=unknown), metadata=acme)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    "bad",
    [
        {"page_token": "x"},
        {"page_token": "9" * 30 + "|a|b"},
        {"outcomes": [99]},
        {"model": "m" * 300},
        {"start_time": Timestamp(seconds=9), "end_time": Timestamp(seconds=9)},
        {"start_time": Timestamp(seconds=1 << 62)},
        {"end_time": Timestamp(seconds=-(1 << 62))},
        {"min_latency": Duration(seconds=1 << 62)},
    ],
)
async def test_a_bad_question_is_refused_with_its_field(house: House, bad: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.stub.ListRequests(pb.ListRequestsRequest(**bad))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_probes_are_listed_only_when_asked_for(house: House) -> None:
    probe = completed("probe")
    probe.metadata.synthetic = True
    await house.take(probe, completed("real"))
    assert await house.ids() == ["real"]
    assert set(await house.ids(include_synthetic=True)) == {"real", "probe"}


async def test_what_is_too_old_or_too_much_goes_with_all_its_parts(tmp_path: Path) -> None:
    small = House(tmp_path / "small.db", most_requests=1_000, keep_us=DAY_US)
    await small.take(
        *(event for i in range(10) for event in (completed(f"old{i}", seconds=-2 * 86_400), cost(f"old{i}", 1, 5)))
    )
    await small.take(*(completed(f"r{i:04}", seconds=i) for i in range(1_010)))
    await small.take(cost("orphan", 1, 5, tenant="nobody"))
    now_us = int((NOON + timedelta(hours=1)).timestamp() * 1_000_000)
    while await small.stories.prune(now_us):
        pass
    rows = {
        table: small.stories._reader.submit(
            lambda table=table: small.stories._read_from.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
        ).result()
        for table in ("requests", "marks", "events")
    }
    assert rows == {"requests": 1_000, "marks": 1_000, "events": 1_001}  # the orphan waits for its end
    small.stories.close()


async def test_self_tests_push_out_no_real_request_and_the_newest_of_them_stay(tmp_path: Path) -> None:
    small = House(tmp_path / "small.db", most_requests=100, keep_us=DAY_US)
    probes = [completed(f"probe{i:03}", seconds=100 + i) for i in range(150)]
    for probe in probes:
        probe.metadata.synthetic = True
    await small.take(*(completed(f"r{i:02}", seconds=i) for i in range(60)), *probes)
    now_us = int((NOON + timedelta(hours=1)).timestamp() * 1_000_000)
    while await small.stories.prune(now_us):
        pass
    kept = await small.stories.find(RequestQuery(limit=1_000, include_synthetic=True))
    assert [one.request_id for one in kept] == [
        *(f"probe{i:03}" for i in range(149, 109, -1)),
        *(f"r{i:02}" for i in range(59, -1, -1)),
    ]
    await small.take(*(completed(f"s{i:02}", seconds=300 + i) for i in range(50)))
    while await small.stories.prune(now_us):
        pass
    kept = await small.stories.find(RequestQuery(limit=1_000, include_synthetic=True))
    assert [one.request_id for one in kept if one.synthetic] == [f"probe{i:03}" for i in range(149, 139, -1)]
    assert len(kept) == 100
    small.stories.close()


async def test_reading_goes_on_where_the_file_says_and_a_lost_file_is_filled_again(tmp_path: Path) -> None:
    from aiokafka import TopicPartition

    topic = topic_of(gateway_pb2.RequestCompleted).name
    places = {TopicPartition(topic, 0), TopicPartition(topic, 1)}
    house = House(tmp_path / "a.db")
    await house.take(completed("a"), completed("b"))
    house.stories.close()
    again = House(tmp_path / "a.db")
    assert await again.feed.starting_offsets(places) == {TopicPartition(topic, 0): 2, TopicPartition(topic, 1): 0}
    again.stories.close()
    lost = House(tmp_path / "b.db")
    assert set((await lost.feed.starting_offsets(places)).values()) == {0}
    lost.stories.close()


async def test_a_search_keeps_nobody_from_writing(house: House) -> None:
    await house.take(*(completed(f"r{i}", seconds=i) for i in range(300)))
    answers = await asyncio.gather(
        *(house.ids(page_size=500) for _ in range(5)),
        *(house.take(completed(f"n{i}", seconds=1_000 + i)) for i in range(20)),
    )
    assert len(answers[0]) >= 300  # type: ignore[arg-type]
    assert len(await house.ids(page_size=500)) == 320


def test_an_event_that_belongs_to_no_request_is_passed_over() -> None:
    assert story_event(gateway_pb2.RequestCompleted()) is None


@pytest.mark.parametrize("field", ["occurred_at", "latency"])
async def test_an_event_of_an_impossible_time_is_refused_each_time_and_leaves_nothing_behind(
    house: House, field: str
) -> None:
    poison = completed("r1")
    (poison.metadata.occurred_at if field == "occurred_at" else poison.latency).seconds = 2**62
    for _ in range(2):  # what fails again and again becomes a dead letter; what is thought to be kept would not
        with pytest.raises((ValueError, OverflowError)):
            await house.take(completed("r2"), poison)
    assert await house.ids() == []
    await house.take(completed("r2"))
    assert await house.ids() == ["r2"]
