"""What a log holds after an offset, asked beside the consumer that reads it: on real logs with holes, and of a broker that is silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from sluice_kit.broker import client_options, ensure_topics
from sluice_kit.streams.plain_reading import PlainLog, PlainRecord
from sluice_kit.streams.second_reader import next_held
from sluice_kit.streams.sequence import SEEKS, SILENCE_SECONDS, Sequencer
from spine_actors import TOPIC
from spine_brokers import new_broker

PLACE = TopicPartition(TOPIC, 0)


@pytest.fixture(params=["embedded", pytest.param("apache", marks=pytest.mark.kafka)])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[dict]:
    """Options for a broker with the log below."""
    broker = new_broker(request.param, tmp_path / "broker")
    await asyncio.to_thread(broker.start)
    try:
        settings = broker.settings(tmp_path)
        await ensure_topics(settings)
        options = client_options(settings)
        await write(options)
        yield options
    finally:
        broker.kill()


async def write(options: dict) -> None:
    """Records at 0 to 2 and 4 to 5, the latter of a transaction that is aborted; markers at 3 and 6, where the log ends."""
    async with AIOKafkaProducer(**options, transactional_id="holes") as producer:
        await producer.begin_transaction()
        for number in range(3):
            await producer.send_and_wait(TOPIC, b"%d" % number, partition=0)
        await producer.commit_transaction()
        await producer.begin_transaction()
        for number in (4, 5):
            await producer.send_and_wait(TOPIC, b"%d" % number, partition=0)
        await producer.abort_transaction()


class Position:
    """A frontier."""

    def __init__(self, at: int) -> None:
        self.next = at

    def next_offset(self, source: str) -> int | None:
        return self.next

    def skip_to(self, source: str, offset: int) -> None:
        self.next = offset

    def rewind(self, source: str, end: int) -> None:
        raise AssertionError("the log lost nothing")


async def test_a_log_is_passed_over_where_a_transaction_left_a_marker_and_where_it_was_cut_and_nowhere_else(
    client: dict,
) -> None:
    assert [await next_held(client, PLACE, offset) for offset in range(8)] == [0, 1, 2, 4, 4, 5, 7, 7]
    assert await next_held(client, PLACE, 8) is None, "the log ends before"
    position = Position(0)
    assert (await merged(client, position), position.next) == ([0, 1, 2, 4, 5], 6)
    assert (await merged(client, position), position.next) == ([], 7), (
        "a worker that starts there finds no record to wait for"
    )
    admin = AIOKafkaAdminClient(**client)
    await admin.start()
    try:
        await admin.delete_records({PLACE: RecordsToDelete(before_offset=5)})
    finally:
        await admin.close()
    assert [await next_held(client, PLACE, offset) for offset in (0, 4, 5)] == [5, 5, 5]


async def merged(client: dict, position: Position) -> list[int]:
    """What a sequencer that is new lets through of the log from a position on."""
    log, clock, found = PlainLog(client), [0.0], []
    log.consumer = consumer = AIOKafkaConsumer(**client, group_id="holes", enable_auto_commit=False)
    sequencer = Sequencer(log, now=lambda: clock[0])
    await consumer.start()
    try:
        consumer.assign([PLACE])
        await sequencer.align({PLACE: position})
        for _ in range(4 * SEEKS):
            for records in (await consumer.getmany(timeout_ms=100)).values():
                admitted = await sequencer.admit(position, [PlainRecord(PLACE, record) for record in records])
                found += [event.message.offset for event in admitted]
                position.next = found[-1] + 1 if admitted else position.next
            clock[0] += SILENCE_SECONDS
            await sequencer.seek_again()
    finally:
        await consumer.stop()
    return found


async def test_of_a_broker_that_does_not_answer_nothing_is_said() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await reader.read()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        assert await next_held({"bootstrap_servers": f"127.0.0.1:{port}"}, PLACE, 5, within=0.5) is None
    finally:
        server.close()
    assert await next_held({"bootstrap_servers": f"127.0.0.1:{port}"}, PLACE, 5) is None, "nobody listens"
