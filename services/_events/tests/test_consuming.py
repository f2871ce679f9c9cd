"""The library on real brokers: typed events, at least once, and whatever may stand in a topic."""

import asyncio
import contextlib
import logging
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
import sluice_events
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from sluice.events.v1.feedback_pb2 import FeedbackReceived
from sluice.events.v1.gateway_pb2 import RequestCompleted
from sluice.events.v1.metadata_pb2 import EventMetadata
from sluice.events.v1.registry_pb2 import ConfigurationChanged
from sluice_events.framing import prefix
from sluice_events.wire import encode

TOPIC = "sluice.gateway.request_completed.v1"


def completed(number: int, *, synthetic: bool = False, request_id: str = "") -> RequestCompleted:
    event = RequestCompleted(model="small")
    event.metadata.event_id, event.metadata.request_id = f"event-{number}", request_id or f"request-{number}"
    event.metadata.producer, event.metadata.synthetic = "sluice-test/0", synthetic
    event.metadata.occurred_at.GetCurrentTime()
    event.usage.output_tokens = number
    return event


async def read(broker, *kinds, count: int | None = None, **options: Any) -> list[sluice_events.Event]:
    """Events until there are `count`, or all there are now."""
    seen: list[sluice_events.Event] = []
    options = {"follow": count is not None} | options
    events = sluice_events.consume(*kinds or (RequestCompleted,), bootstrap=broker.bootstrap, **options)
    async with asyncio.timeout(60), contextlib.aclosing(events):
        async for event in events:
            seen.append(event)
            if len(seen) == count:
                break
    return seen


def numbers(events: list[sluice_events.Event]) -> list[int]:
    return sorted(event.data.usage.output_tokens for event in events)


async def test_three_lines_give_typed_events(broker):
    await broker.send(completed(1))
    async for event in sluice_events.consume(
        RequestCompleted, bootstrap=broker.bootstrap, group="finance", follow=False
    ):
        assert (event.metadata.request_id, event.data.usage.output_tokens) == ("request-1", 1)
        assert isinstance(event.data, RequestCompleted)
        assert isinstance(event.metadata, EventMetadata)
        assert (event.id, event.key, event.topic) == ("event-1", b"request-1", TOPIC)
        assert event.attributes["type"] == TOPIC
        assert event.attributes["dataclassification"] == "confidential"
        assert abs((datetime.now(UTC) - event.recorded_at).total_seconds()) < 60


async def test_a_group_goes_on_where_it_stopped(broker):
    await broker.send(*(completed(n) for n in range(10)))
    assert numbers(await read(broker, group="finance")) == list(range(10))
    await broker.send(*(completed(n) for n in range(10, 15)))
    assert numbers(await read(broker, group="finance")) == list(range(10, 15))
    assert numbers(await read(broker, group="finance")) == []
    assert numbers(await read(broker, group="others")) == list(range(15))


async def test_without_a_group_everything_is_read_every_time(broker):
    await broker.send(*(completed(n) for n in range(10)))
    assert numbers(await read(broker)) == list(range(10))
    assert numbers(await read(broker)) == list(range(10))


async def test_what_the_loop_body_did_not_finish_comes_again(broker):
    await broker.send(*(completed(n, request_id="one") for n in range(10)))
    with pytest.raises(ZeroDivisionError):
        events = sluice_events.consume(RequestCompleted, bootstrap=broker.bootstrap, group="finance")
        async with asyncio.timeout(60), contextlib.aclosing(events):
            async for event in events:
                1 / (4 - event.data.usage.output_tokens)
    assert [e.data.usage.output_tokens for e in await read(broker, group="finance")] == list(range(4, 10))


READER = """
import asyncio, sys
import sluice_events
from sluice.events.v1.gateway_pb2 import RequestCompleted

async def main():
    options = {"bootstrap": sys.argv[1], "group": "finance", "group_instance_id": "finance-0", "follow": sys.argv[2] == "follow"}
    async for event in sluice_events.consume(RequestCompleted, session_timeout_ms=6_000, **options):
        print(event.data.usage.output_tokens, flush=True)
        if options["follow"]:
            await asyncio.sleep(0.005)  # work, so that the time to commit comes before the end

asyncio.run(main())
"""


async def test_a_reader_killed_with_kill_9_loses_nothing(broker):
    await broker.send(*(completed(n) for n in range(1_000)))
    command = [sys.executable, "-c", READER, broker.bootstrap]
    killed = subprocess.Popen([*command, "follow"], stdout=subprocess.PIPE, text=True)
    first = [await asyncio.to_thread(killed.stdout.readline) for _ in range(350)]
    killed.send_signal(signal.SIGKILL)
    first += killed.stdout.read().split("\n")[:-1]
    killed.stdout.close()
    assert killed.wait(timeout=10) == -signal.SIGKILL
    rest = await asyncio.to_thread(
        subprocess.run, [*command, "end"], capture_output=True, text=True, timeout=120, check=True
    )
    seen = {int(line) for line in [*first, *rest.stdout.split()]}
    assert seen == set(range(1_000))
    assert len(rest.stdout.split()) < 1_000, "the group remembers what was committed"


async def test_two_readers_of_a_group_share_the_work_and_lose_nothing(broker):
    seen: dict[str, list[int]] = {"a": [], "b": []}

    async def reader(name: str) -> None:
        # The embedded broker wants a lasting name of every member.
        events = sluice_events.consume(
            RequestCompleted, bootstrap=broker.bootstrap, group="finance", group_instance_id=f"finance-{name}"
        )
        async with contextlib.aclosing(events):
            async for event in events:
                seen[name].append(event.data.usage.output_tokens)

    await broker.send(*(completed(n) for n in range(200)))
    async with asyncio.timeout(120):
        first = asyncio.create_task(reader("a"))
        while len(seen["a"]) < 50:
            await asyncio.sleep(0.05)
        second = asyncio.create_task(reader("b"))
        number = 200
        while not seen["b"]:  # until the group has let the second one in
            await broker.send(*(completed(n) for n in range(number, number + 50)))
            number += 50
            await asyncio.sleep(0.5)
        while {*seen["a"], *seen["b"]} != set(range(number)):
            await asyncio.sleep(0.05)
    for task in (first, second):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_reader_may_begin_at_the_end(broker):
    await broker.send(completed(1))
    events = sluice_events.consume(RequestCompleted, bootstrap=broker.bootstrap, start="end")
    async with asyncio.timeout(60), contextlib.aclosing(events):
        first = asyncio.create_task(anext(events))
        number = 2
        while not first.done():
            await broker.send(completed(number))
            number += 1
        assert (await first).data.usage.output_tokens > 1


async def test_a_group_that_began_at_the_end_goes_on_from_there_although_it_took_nothing(broker):
    await broker.send(*(completed(n) for n in range(5)))
    events = sluice_events.consume(RequestCompleted, bootstrap=broker.bootstrap, group="finance", start="end")
    waiting = asyncio.create_task(anext(events))
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    async with asyncio.timeout(60):
        while len(await admin.list_consumer_group_offsets("finance")) < 4:
            await asyncio.sleep(0.05)
    await admin.close()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await broker.send(*(completed(n) for n in range(5, 10)))
    assert numbers(await read(broker, group="finance", start="end")) == list(range(5, 10))


@pytest.mark.parametrize("group", [None, "finance"])
async def test_a_reader_may_begin_at_a_moment(broker, group):
    moment = datetime.now(UTC).replace(microsecond=0)
    records = [encode(completed(n)) for n in range(20)]
    written = [int(moment.timestamp() * 1000) + (n - 10) * 100 for n in range(20)]  # the tenth at the moment itself
    await broker.send(
        *(
            (TOPIC, {"key": r.key, "value": r.value, "headers": r.headers, "timestamp_ms": at})
            for r, at in zip(records, written, strict=True)
        )
    )
    assert numbers(await read(broker, start=moment, group=group)) == list(range(10, 20))
    if group:  # where the group has been, it goes on from there
        assert numbers(await read(broker, start=moment, group=group)) == []


async def test_several_kinds_of_events_in_one_loop(broker):
    rated = FeedbackReceived(rating=4)
    rated.metadata.event_id, rated.metadata.request_id = "event-f", "request-1"
    await broker.send(completed(1), rated)
    seen = await read(broker, RequestCompleted, FeedbackReceived)
    assert {type(event.data) for event in seen} == {RequestCompleted, FeedbackReceived}


async def test_probes_of_the_mesh_are_left_out_unless_asked_for(broker):
    await broker.send(completed(1), completed(2, synthetic=True), completed(3))
    assert numbers(await read(broker, group="finance")) == [1, 3]
    assert numbers(await read(broker, group="audit", synthetic=True)) == [1, 2, 3]


POISON = {"key": b"one", "value": b"\xff\xff", "headers": []}


async def test_poison_stops_the_reader_and_is_met_again(broker):
    await broker.send(completed(1, request_id="one"), (TOPIC, POISON), completed(2, request_id="one"))
    for expected in ([1], []):
        seen = []
        with pytest.raises(
            sluice_events.PoisonRecord, match=r"offset 1: malformed. on_poison='skip' passes over"
        ) as caught:
            async with asyncio.timeout(60):
                async for event in sluice_events.consume(RequestCompleted, bootstrap=broker.bootstrap, group="finance"):
                    seen.append(event.data.usage.output_tokens)
        assert seen == expected
        assert caught.value.record.value == b"\xff\xff"


async def test_poison_may_be_passed_over_with_a_warning(broker, caplog):
    await broker.send(completed(1, request_id="one"), (TOPIC, POISON), completed(2, request_id="one"))
    with caplog.at_level(logging.WARNING, "sluice_events"):
        assert numbers(await read(broker, on_poison="skip", group="finance")) == [1, 2]
    assert [record.getMessage() for record in caplog.records if record.name == "sluice_events"] == [
        f"passed over a record that is no event: {TOPIC}, partition {caplog.records[-1].args[1]}, offset 1: malformed"
    ]
    assert numbers(await read(broker, group="finance")) == []


async def test_poison_may_be_taken_in_hand(broker):
    taken: list[sluice_events.Poison] = []

    async def keep(poison: sluice_events.Poison) -> None:
        taken.append(poison)

    wrong_type = {"key": b"one", "value": b"", "headers": [("ce_type", b"com.example.other")]}
    await broker.send(
        (TOPIC, POISON), (TOPIC, wrong_type), (TOPIC, POISON | {"value": None}), completed(1, request_id="one")
    )
    assert numbers(await read(broker, on_poison=keep)) == [1]
    assert numbers(await read(broker, on_poison=taken.append)) == [1]
    assert [poison.reason for poison in taken] == ["malformed", "wrong_type", "no_value"] * 2


async def test_tombstones_of_a_compacted_topic_are_no_poison(broker):
    changed = ConfigurationChanged(asset_key="policy/acme/strict")
    changed.metadata.event_id = "event-c"
    topic = encode(changed).topic
    await broker.send(changed, (topic, {"key": b"policy/acme/gone", "value": None}))
    assert [event.data.asset_key for event in await read(broker, ConfigurationChanged)] == ["policy/acme/strict"]


async def test_values_in_the_frame_of_a_schema_registry_are_read_beside_others(broker):
    record = encode(completed(2))
    framed = prefix(7, RequestCompleted.DESCRIPTOR) + record.value
    await broker.send(completed(1), (TOPIC, {"key": record.key, "value": framed, "headers": record.headers}))
    assert numbers(await read(broker)) == [1, 2]


async def test_fields_of_a_newer_producer_are_kept(broker):
    record = encode(completed(1))
    newer = record.value + b"\xba\xb5\x03\x05later"
    await broker.send((TOPIC, {"key": record.key, "value": newer, "headers": record.headers}))
    (event,) = await read(broker)
    assert event.data.SerializeToString(deterministic=True) == newer


async def test_seen_ids_make_a_reader_count_once_what_came_twice(broker):
    await broker.send(completed(1), completed(1), completed(2))
    seen, tokens = sluice_events.SeenIds(), 0
    async for event in sluice_events.consume(RequestCompleted, bootstrap=broker.bootstrap, follow=False):
        if seen.is_new(event.id):
            tokens += event.data.usage.output_tokens
    assert tokens == 3


def test_the_blocking_loop_reads_the_same_and_goes_on_where_it_stopped(broker):
    asyncio.run(broker.send(*(completed(n) for n in range(10))))
    options = {"bootstrap": broker.bootstrap, "group": "finance", "follow": False}
    assert numbers(list(sluice_events.consume_blocking(RequestCompleted, **options))) == list(range(10))
    assert list(sluice_events.consume_blocking(RequestCompleted, **options)) == []


def test_leaving_the_blocking_loop_keeps_what_was_done(broker):
    asyncio.run(broker.send(*(completed(n, request_id="one") for n in range(10))))
    events = sluice_events.consume_blocking(RequestCompleted, bootstrap=broker.bootstrap, group="finance")
    for event in events:
        if event.data.usage.output_tokens == 4:
            break
    events.close()
    rest = sluice_events.consume_blocking(RequestCompleted, bootstrap=broker.bootstrap, group="finance", follow=False)
    assert [event.data.usage.output_tokens for event in rest] == list(range(4, 10))


# --- what is wrong is said ---


async def test_a_topic_that_is_not_there_is_named(broker, delete_topics):
    await delete_topics(broker.bootstrap, [TOPIC])
    with pytest.raises(sluice_events.TopicMissing, match=f"Kafka has no topic {TOPIC}: is it the mesh's broker"):
        await read(broker)


async def test_a_broker_that_is_not_there_is_said_at_once():
    with pytest.raises(KafkaConnectionError, match=r"Unable to bootstrap from .*127\.0\.0\.1', 9"):
        async for _ in sluice_events.consume(RequestCompleted, bootstrap="127.0.0.1:9"):
            pass


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start": datetime(2026, 11, 1)}, "start has no time zone"),
        ({"start": "yesterday"}, "start is 'yesterday'; it may be 'beginning', 'end' or a datetime"),
        ({"group": ""}, "group is empty"),
        ({"on_poison": "ignore"}, "on_poison is 'ignore'; it may be 'raise', 'skip' or a function"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(wrong, message):
    with pytest.raises(ValueError, match=message):
        sluice_events.consume(RequestCompleted, bootstrap="127.0.0.1:9", **wrong)


def test_a_message_that_is_no_event_is_refused():
    with pytest.raises(ValueError, match=r"sluice.events.v1.EventMetadata declares no topic: it is not an event"):
        sluice_events.consume(EventMetadata, bootstrap="127.0.0.1:9")
    with pytest.raises(ValueError, match=r"<class 'int'> is no event class"):
        sluice_events.consume(int, bootstrap="127.0.0.1:9")
