"""Events on the wire, and the rows of the outbox: numbered, bounded, refused with a reason, there after kill -9."""

import asyncio
import signal
import subprocess
import sys
import textwrap

import pytest
from sluice.events.v1 import gateway_pb2
from sluice_kit.errors import InvalidInput, ResourceExhausted
from sluice_kit.events import UndecodableEvent, decode, encode, new_event_id
from sluice_kit.outbox import Outbox
from sluice_kit.process import StartFailed
from spine_actors import TOPIC, completed


def test_an_event_becomes_a_cloud_event_and_comes_back():
    event = completed()
    event.metadata.producer, event.metadata.tenant_id, event.metadata.producer_sequence = "sluice-gateway/0", "acme", 7
    record = encode(event)
    headers = dict(record.headers)
    assert (record.topic, record.key) == (TOPIC, b"r-1")
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_type"] == TOPIC.encode()
    assert headers["ce_id"] == event.metadata.event_id.encode()
    assert headers["ce_sequence"] == b"7"
    assert headers["content-type"] == b"application/protobuf"
    assert headers["ce_dataclassification"] == b"confidential"
    assert decode(record.topic, record.value, record.headers) == event


@pytest.mark.parametrize(
    ("topic", "value", "headers", "reason"),
    [
        ("nobody.knows.v1", b"", {}, "unknown_topic"),
        (TOPIC, None, {}, "no_value"),
        (TOPIC, b"\xff\xff\xff", {}, "malformed"),
        (TOPIC, b"", {}, "no_metadata"),
        (TOPIC, b"", {"ce_type": b"something.else"}, "wrong_type"),
        (TOPIC, b"{}", {"content-type": b"application/json"}, "wrong_type"),
    ],
)
def test_a_record_that_is_no_event_says_why(topic, value, headers, reason):
    with pytest.raises(UndecodableEvent) as caught:
        decode(topic, value, headers)
    assert caught.value.reason == reason


async def test_the_outbox_numbers_events_without_a_gap_and_remembers_after_a_restart(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0")
    await asyncio.gather(*(outbox.append([completed(f"r{i}")]) for i in range(50)))
    first_name = outbox.producer
    outbox.close()
    again = Outbox(tmp_path / "o.db", producer="sluice-test/0")
    await again.append([completed("last")])
    rows = await again.call(again.tables.pending, 1000)
    again.close()
    numbers = [decode(r.topic, r.value).metadata.producer_sequence for r in rows]
    assert numbers == list(range(1, 52))
    assert again.producer == first_name


async def test_a_full_outbox_refuses_and_uses_up_no_number(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0", max_rows=2)
    await outbox.append([completed("a"), completed("b")])
    with pytest.raises(ResourceExhausted) as caught:
        await outbox.append([completed("c")])
    assert caught.value.reason == "OUTBOX_FULL"
    rows = await outbox.call(outbox.tables.pending, 10)
    await outbox.call(outbox.tables.acknowledge, rows, False)
    await outbox.append([completed("c")])
    (row,) = await outbox.call(outbox.tables.pending, 10)
    outbox.close()
    assert decode(row.topic, row.value).metadata.producer_sequence == 3


async def test_an_event_that_cannot_be_encoded_fails_alone(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0")
    nameless = completed("x")
    nameless.metadata.event_id = ""
    results = await asyncio.gather(
        outbox.append([completed("a")]),
        outbox.append([nameless]),
        outbox.append([completed("b")]),
        return_exceptions=True,
    )
    rows = await outbox.call(outbox.tables.pending, 10)
    outbox.close()
    assert [isinstance(r, ValueError) for r in results] == [False, True, False]
    assert [decode(r.topic, r.value).metadata.producer_sequence for r in rows] == [1, 2]


async def test_a_second_process_cannot_open_an_outbox_in_use(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0")
    with pytest.raises(StartFailed, match="in use by another process"):
        Outbox(tmp_path / "o.db", producer="sluice-test/0")
    outbox.close()
    Outbox(tmp_path / "o.db", producer="sluice-test/0").close()


def test_an_outbox_that_cannot_be_opened_says_why(tmp_path):
    (tmp_path / "o.db").write_text("this is no database, and never was one" * 100)
    with pytest.raises(StartFailed, match="not a database"):
        Outbox(tmp_path / "o.db", producer="sluice-test/0")
    with pytest.raises(StartFailed, match="set SLUICE_HOME"):
        Outbox(tmp_path / "o.db" / "below", producer="sluice-test/0")


async def test_the_outbox_is_bounded_in_bytes_and_an_event_in_size(tmp_path):
    outbox = Outbox(tmp_path / "o.db", producer="sluice-test/0", max_bytes=2_000)
    big = gateway_pb2.RequestCompleted(model="m" * 1_000)
    big.metadata.event_id = new_event_id()
    await outbox.append([big])
    with pytest.raises(ResourceExhausted):
        await outbox.append([big])
    big.model = "m" * 1_100_000
    with pytest.raises(InvalidInput) as caught:
        await outbox.append([big])
    assert caught.value.reason == "EVENT_TOO_LARGE"
    await outbox.call(outbox.tables.acknowledge, await outbox.call(outbox.tables.pending, 10), True)
    assert outbox.depth == 0
    assert await outbox.call(outbox.tables.reopen_acknowledged) == 1
    with pytest.raises(ResourceExhausted):
        await outbox.append([completed("x" * 1_000)])
    outbox.close()


KILLED = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from sluice.events.v1 import gateway_pb2
    from sluice_kit.events import new_event_id
    from sluice_kit.outbox import Outbox

    async def main():
        outbox = Outbox(Path(sys.argv[1]), producer="sluice-test/0")
        for number in range(100_000):
            event = gateway_pb2.RequestCompleted()
            event.metadata.event_id, event.metadata.request_id = new_event_id(), str(number)
            await outbox.append([event])
            print(number, flush=True)

    asyncio.run(main())
""")


async def test_what_was_published_survives_kill_9(tmp_path):
    path = tmp_path / "o.db"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    told = [int(child.stdout.readline()) for _ in range(300)]
    child.send_signal(signal.SIGKILL)
    told += [int(line) for line in child.stdout.read().split("\n")[:-1] if line]
    child.wait(timeout=10)
    child.stdout.close()
    outbox = Outbox(path, producer="sluice-test/0")
    rows = await outbox.call(outbox.tables.pending, 1_000_000)
    outbox.close()
    stored = [decode(r.topic, r.value).metadata for r in rows]
    assert {m.request_id for m in stored} >= {str(n) for n in told}
    assert [m.producer_sequence for m in stored] == list(range(1, len(stored) + 1))
