"""`sluice events verify` over a real broker, with events whose numbers the tests choose."""

import asyncio
import json
import sqlite3
from concurrent import futures
from io import StringIO
from pathlib import Path
from typing import Any

import grpc
import pytest
from rich.console import Console
from sluice.cost.v1 import cost_service_pb2, cost_service_pb2_grpc
from sluice.events.v1.mesh_pb2 import EventsLost
from sluice_cli.events import topics_named
from sluice_cli.mesh.problem import MeshProblem
from sluice_cli.proof import showing
from sluice_cli.proof.copies import Copies
from sluice_cli.proof.differences import TwoSets
from sluice_cli.proof.findings import Verification
from sluice_cli.proof.reading import _split
from sluice_cli.proof.verification import verify
from sluice_kit.completeness import REPLAYED_FROM
from sluice_kit.errors import Unavailable
from sluice_kit.events import encode
from sluice_kit.outbox import Outbox
from sluice_kit.settings import MeshSettings

GATEWAY = "sluice-gateway/0#1f2e3d4c"
COMPLETED = "sluice.gateway.request_completed.v1"


async def verified(broker: MeshSettings, *names: str, **options: Any) -> Verification:
    """What is found of these events, without waiting for more."""
    topics = topics_named(names or ("RequestCompleted",))
    return await verify(broker, topics, **{"home": broker.home, "settle_seconds": 0.0, **options})


def told(found: Verification) -> str:
    """As a person reads it."""
    out = StringIO()
    showing.show(found, Console(file=out, width=200), as_json=False)
    return out.getvalue()


async def test_a_whole_stream_is_complete_up_to_its_last_event(broker, pen, numbered) -> None:
    await pen.write(*(numbered.completed(n) for n in range(1, 301)))
    found = await verified(broker)
    (stream,) = found.topics[0].streams
    assert found.is_sound
    assert (stream.report.first, stream.report.last, stream.report.complete_up_to, stream.report.gaps) == (
        1,
        300,
        300,
        (),
    )
    assert stream.report.complete_up_to_us == (1_790_000_000 + 300) * 1_000_000
    assert "300 records on 1 topics: nothing is missing." in told(found)


async def test_a_withheld_event_is_named_and_nothing_is_complete_behind_it(broker, pen, numbered) -> None:
    await pen.write(*(numbered.completed(n) for n in range(1, 101) if n not in (40, 70, 71)))
    await pen.write(*(numbered.completed(n, producer="sluice-gateway/1#bbbbbbbb") for n in (1, 2)))
    found = await verified(broker)
    streams = {stream.report.producer: stream for stream in found.topics[0].streams}
    assert not found.is_sound
    assert streams[GATEWAY].gaps == ((40, 40), (70, 71))
    assert streams[GATEWAY].report.complete_up_to == 39
    assert streams["sluice-gateway/1#bbbbbbbb"].is_sound
    assert f"gateway.request_completed.v1 of {GATEWAY}: MISSING 40, 70-71." in told(found)
    assert json.loads(json.dumps(found.as_dict()))["topics"][0]["streams"][0]["gaps"] == [[40, 40], [70, 71]]


async def test_copies_are_told_apart_by_what_they_are(broker, pen, numbered) -> None:
    await pen.write(*(numbered.completed(n) for n in (1, 2, 3, 4)))
    await pen.write(numbered.completed(2), numbered.completed(2))  # sent again
    await pen.write(numbered.completed(5, event_id="event-1"))  # published again under another number
    await pen.write(numbered.completed(3, event_id="another"))  # a number given out twice
    dead = encode(numbered.completed(4))
    await pen.raw(dead.topic, dead.key, dead.value, [*dead.headers, (REPLAYED_FROM, b"x.dlq/0/1")])
    found = await verified(broker)
    (stream,) = found.topics[0].streams
    assert (stream.sent_again, stream.published_again, stream.number_twice, stream.report.replayed) == (2, 1, 1, 1)
    assert stream.gaps == ()
    assert not found.is_sound
    assert "1 numbers were given to two events: the producer's counting is BROKEN." in told(found)


async def test_copies_alone_are_no_loss(broker, pen, numbered) -> None:
    await pen.write(*(numbered.completed(n) for n in (1, 2, 2, 1)))
    assert (await verified(broker)).is_sound


async def test_what_cannot_be_read_is_told_with_its_place_and_never_with_its_bytes(broker, pen, numbered) -> None:
    await pen.write(numbered.completed(1))
    place = await pen.raw(COMPLETED, b"key", b"\xff my secret \xff")
    found = await verified(broker)
    assert found.topics[0].undecodable == (("malformed", 1, ((place.partition, place.offset),)),)
    assert f"1 undecodable records (malformed), at partition/offset {place.partition}/{place.offset}" in told(found)
    assert "secret" not in told(found) + json.dumps(found.as_dict())


async def test_what_is_on_its_way_when_the_reading_begins_is_waited_for(broker, pen, numbered) -> None:
    await pen.write(numbered.completed(1), numbered.completed(3))
    reading = asyncio.create_task(verified(broker, settle_seconds=20.0))
    await asyncio.sleep(1)
    await pen.write(numbered.completed(2), numbered.completed(5))
    found = await reading
    assert found.is_sound
    assert found.topics[0].streams[0].report.last in (3, 5)


async def test_an_event_that_waits_in_the_outbox_or_was_refused_is_no_loss(
    broker, pen, numbered, tmp_path: Path
) -> None:
    outbox = Outbox(tmp_path / "outbox" / "sluice-gateway-0.db", producer="sluice-gateway/0")
    for number in range(1, 5):
        await outbox.append([numbered.completed(number, producer=outbox.producer)])
    rows = await outbox.call(outbox.tables.pending, 10)
    for row in (rows[0], rows[3]):
        await pen.raw(row.topic, row.key, row.value, row.headers)
    await outbox.call(outbox.tables.acknowledge, [rows[0], rows[3]], False)
    await outbox.call(outbox.tables.refuse, rows[1], "MessageSizeTooLargeError")
    try:
        found = await verified(broker)
    finally:
        outbox.close()
    (stream,) = found.topics[0].streams
    assert (stream.gaps, stream.refused, stream.waiting) == ((), ((2, 2),), ((3, 3),))
    assert found.is_sound
    assert "3 wait in the outbox" in told(found)
    assert "2 were refused by Kafka" in told(found)


async def test_what_a_producer_said_it_dropped_is_told_and_a_gap_beside_it_is_still_one(broker, pen, numbered) -> None:
    await pen.write(*(numbered.completed(n) for n in (1, 2, 10)))
    lost = EventsLost(lost_topic=COMPLETED, first_sequence=3, last_sequence=8, count=6)
    lost.metadata.event_id, lost.metadata.producer, lost.metadata.producer_sequence = "lost-1", GATEWAY, 1
    await pen.write(lost)
    found = await verified(broker)
    (stream,) = found.topics[0].streams
    assert (stream.given_up, stream.gaps) == (((3, 8),), ((9, 9),))
    assert not found.is_sound
    assert "3-8 were dropped knowingly" in told(found)
    await pen.write(numbered.completed(9))
    assert (await verified(broker)).is_sound


def test_missing_ranges_are_parted_by_what_is_known_of_them() -> None:
    left, found = _split(((1, 10), (20, 20)), ((0, 2), (2, 3), (5, 5), (9, 15)))
    assert (left, found) == (((4, 4), (6, 8), (20, 20)), ((1, 2), (3, 3), (5, 5), (9, 10)))


def test_an_outbox_that_is_none_is_named(tmp_path: Path) -> None:
    from sluice_cli.proof.outboxes import kept

    (tmp_path / "outbox").mkdir()
    sqlite3.connect(tmp_path / "outbox" / "strange.db").execute("CREATE TABLE other (x)").connection.close()
    with pytest.raises(MeshProblem, match=r"strange\.db cannot be read"):
        kept(tmp_path)


async def test_a_broker_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    nowhere = MeshSettings(home=tmp_path, kafka_bootstrap="127.0.0.1:1")
    with pytest.raises(Unavailable, match="does not answer"):
        await verify(nowhere, topics_named(()), home=tmp_path)


class Ledger(cost_service_pb2_grpc.CostServiceServicer):
    """Tells of so many requests, read up to these offsets; one of them is a self-test, which only who asks for kinds is told of."""

    def __init__(self, requests: int, offsets: dict[int, int]) -> None:
        self._requests, self._offsets = requests, offsets

    def GetSpend(self, request: Any, context: Any) -> Any:
        probes = min(1, self._requests)
        counts = {"inference": self._requests - probes}
        if cost_service_pb2.SPEND_DIMENSION_CHARGE_KIND in request.group_by:
            counts["synthetic"] = probes
        return cost_service_pb2.GetSpendResponse(
            groups=[cost_service_pb2.SpendGroup(values=[k], request_count=n, row_count=n) for k, n in counts.items()],
            complete_up_to=[
                cost_service_pb2.LedgerPosition(topic=COMPLETED, partition=partition, next_offset=offset)
                for partition, offset in self._offsets.items()
            ],
        )


@pytest.fixture
def serve_ledger():
    """Starts a ledger; gives its address."""
    servers = []

    def serve(requests: int, offsets: dict[int, int]) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(2))
        cost_service_pb2_grpc.add_CostServiceServicer_to_server(Ledger(requests, offsets), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield serve
    for server in servers:
        server.stop(None)


ALL = dict.fromkeys(range(4), 10**9)


async def test_requests_events_and_ledger_are_the_same(broker, pen, numbered, serve_ledger) -> None:
    await pen.write(*(numbered.completed(n) for n in range(1, 21)), numbered.completed(3))
    await pen.write(*(numbered.recorded(n) for n in range(1, 21)))
    answered = [f"request-{n}" for n in range(1, 21)]
    found = await verified(broker, "RequestCompleted", "CostRecorded", ledger=serve_ledger(20, ALL), answered=answered)
    assert found.is_sound
    assert [(check.name, check.left_count, check.right_count) for check in found.checks] == [
        ("answered", 20, 20),
        ("recorded", 20, 20),
        ("ledger", 20, 20),
    ]


async def test_differences_between_the_books_are_listed(broker, pen, numbered, serve_ledger) -> None:
    await pen.write(*(numbered.completed(n) for n in range(1, 21)))
    await pen.write(*(numbered.recorded(n + 1 if n == 5 else n, sequence=n) for n in range(1, 20)))
    target = serve_ledger(19, ALL)
    found = await verified(broker, ledger=target, answered=["request-1", "request-99"])
    answered, recorded, ledger = found.checks
    assert not found.is_sound
    assert (answered.only_left, answered.examples_left) == (1, ("request-99",))
    assert (recorded.only_left, recorded.examples_left) == (2, ("event-20", "event-5"))
    assert (ledger.left_count, ledger.right_count, ledger.is_sound) == (20, 19, False)
    assert "only in RequestCompleted, 2: event-20, event-5" in told(found)


async def test_what_beside_a_request_was_charged_is_no_difference(broker, pen, numbered, serve_ledger) -> None:
    await pen.write(*(numbered.completed(n) for n in range(1, 9)))
    rows = [numbered.recorded(n) for n in range(1, 13)]
    rows[7].charge_kind = "synthetic"
    for row, kind in zip(rows[8:], ("judge", "correction", "compute", "idle"), strict=True):
        row.charge_kind = kind
    await pen.write(*rows)
    found = await verified(broker, "RequestCompleted", "CostRecorded", ledger=serve_ledger(8, ALL))
    recorded = found.checks[0]
    assert found.is_sound
    assert (recorded.left_count, recorded.right_count, recorded.only_right) == (8, 8, 0)


async def test_events_the_ledger_has_not_read_yet_are_not_held_against_it(broker, pen, numbered, serve_ledger) -> None:
    await pen.write(*(numbered.completed(n) for n in range(1, 9)))
    found = await verified(broker, ledger=serve_ledger(0, {}))
    assert found.checks[1].is_sound


def test_copies_are_counted_the_same_in_any_order() -> None:
    seen = [(0, 1, "a"), (0, 1, "a"), (0, 2, "b"), (1, 7, "b"), (0, 3, "c"), (0, 4, "c")]
    counted = []
    for order in (seen, seen[::-1]):
        with Copies() as copies:
            for stream, sequence, event_id in order:
                copies.add(stream, sequence, event_id)
            counted.append(copies.counts())
    assert counted[0] == counted[1]
    assert counted[0].same_event[0] == 1
    assert counted[0].other_number[0] == 1
    assert (counted[0].other_stream[0], counted[0].other_stream[1]) == (1, 1)


def test_two_sets_of_ids_differ_by_what_only_one_has() -> None:
    with TwoSets() as sets:
        for number in range(1000):
            sets.left(f"id-{number}")
            sets.left(f"id-{number}")
            sets.right(f"id-{number + 3}\nwith a line")
            sets.right(f"id-{number + 3}")
        difference = sets.difference()
    assert (difference.left_count, difference.only_left) == (1000, 3)
    assert difference.examples_left == ("id-0", "id-1", "id-2")
    assert difference.only_right == 3 + 1000
