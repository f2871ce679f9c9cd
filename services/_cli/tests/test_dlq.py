"""`sluice events dlq` over a real broker: what consumers gave up, seen and put back once."""

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from sluice_cli.dead_letters import outgoing, putting_back, showing
from sluice_cli.dead_letters.index import Index
from sluice_cli.dead_letters.letters import Letter, Selection, letters, offset_range
from sluice_cli.events import topics_named
from sluice_cli.mesh.problem import MeshProblem
from sluice_kit.broker import client_options
from sluice_kit.completeness import REPLAYED_FROM
from sluice_kit.dead_letters import Failure, dead_letter, read_dead_letter
from sluice_kit.events import encode, now
from sluice_kit.ordered import OrderedReader
from sluice_kit.settings import MeshSettings

COMPLETED = "sluice.gateway.request_completed.v1"
SLUICE = str(Path(sys.executable).parent / "sluice")


class Mailbox:
    """Writes records and their letters, and reads what came of it."""

    def __init__(self, broker: MeshSettings, pen: Any, numbered: Any) -> None:
        self.broker, self.pen, self.numbered = broker, pen, numbered

    async def give_up(
        self, number: int, *, reason: str = "handler_failed:ValueError", value: bytes | None = None
    ) -> None:
        """A record on its topic, and the letter a consumer wrote of it."""
        record = encode(self.numbered.completed(number))
        written = await self.pen.raw(
            record.topic, record.key, value or record.value, record.headers, partition=number % 4
        )
        await self.bury(written, record, value or record.value, reason)

    async def bury(
        self, written: Any, record: Any, value: bytes, reason: str, *, omit: bool = False, group: str = "sluice-cost"
    ) -> None:
        given_up = SimpleNamespace(
            topic=written.topic, partition=written.partition, offset=written.offset, timestamp=written.timestamp,
            key=record.key, value=value, headers=list(record.headers),
        )  # fmt: skip
        letter = dead_letter(given_up, Failure(reason=reason, group=group, attempts=3, first_failed_at=now()))
        letter = letter.without_value() if omit else letter
        await self.pen.raw(letter.topic, letter.key, letter.value, letter.headers)

    async def chosen(self, selection: Selection = Selection(), *names: str) -> list[Letter]:  # noqa: B008 - a frozen value
        async with OrderedReader.opened(self.broker) as reader:
            return [letter async for letter in letters(reader, topics_named(names or ("RequestCompleted",)), selection)]

    async def put_back(self, selection: Selection = Selection(), **options: Any) -> putting_back.Outcome:  # noqa: B008
        topics = topics_named(("RequestCompleted",))
        return await putting_back.replay(self.broker, topics, selection, **({"again": False} | options))

    async def source(self) -> list[Any]:
        """Everything on the source topic."""
        async with OrderedReader.opened(self.broker) as reader:
            return [record async for record in reader.records(await reader.spans([COMPLETED]))]

    async def marks(self) -> Counter[str]:
        """How often each letter was put back."""
        return Counter(
            dict(r.headers)[REPLAYED_FROM].decode() for r in await self.source() if REPLAYED_FROM in dict(r.headers)
        )


@pytest.fixture
async def mailbox(broker, pen, numbered) -> Mailbox:
    return Mailbox(broker, pen, numbered)


async def test_letters_are_listed_by_topic_and_reason(mailbox) -> None:
    for number in (1, 2, 3):
        await mailbox.give_up(number)
    await mailbox.give_up(4, reason="malformed", value=b"\xff")
    groups: dict = {}
    for letter in await mailbox.chosen():
        showing.grouped(groups, letter)
    assert {key: (g.count, g.first_offset, g.last_offset, g.groups) for key, g in groups.items()} == {
        (COMPLETED, "handler_failed:ValueError"): (3, 0, 2, ("sluice-cost",)),
        (COMPLETED, "malformed"): (1, 3, 3, ("sluice-cost",)),
    }


async def test_a_letter_is_shown_with_its_event_and_one_that_cannot_be_read_without_its_bytes(mailbox) -> None:
    await mailbox.give_up(1)
    await mailbox.give_up(2, reason="malformed", value=b"\xff call me at 555-0199")
    readable, poison = await mailbox.chosen()
    shown = showing.describe(readable, raw=False)
    assert shown["event"]["metadata"]["request_id"] == "request-1"
    assert (shown["source"], shown["attempts"]) == (f"{COMPLETED}/1/0", 3)
    hidden = showing.describe(poison, raw=False)
    assert hidden["event"] is None
    assert hidden["value_bytes"] == 21
    assert "555" not in json.dumps(hidden)
    assert bytes.fromhex(showing.describe(poison, raw=True)["value_hex"]) == b"\xff call me at 555-0199"


async def test_a_header_nobody_knows_is_shown_by_its_size(mailbox) -> None:
    record = encode(mailbox.numbered.completed(1))
    record.headers.append(("x-name", b"Erika Mustermann"))
    written = await mailbox.pen.raw(record.topic, record.key, record.value, record.headers)
    await mailbox.bury(written, record, record.value, "malformed")
    (letter,) = await mailbox.chosen()
    assert showing.describe(letter, raw=False)["headers"]["x-name"] == "(16 bytes)"


async def test_what_is_put_back_is_the_record_it_was_with_a_mark(mailbox) -> None:
    await mailbox.give_up(5)
    (original,) = await mailbox.source()
    outcome = await mailbox.put_back()
    assert len(outcome.put_back) == 1
    _, copy = await mailbox.source()
    assert (copy.key, copy.value, copy.partition) == (original.key, original.value, original.partition)
    assert list(copy.headers) == [*original.headers, (REPLAYED_FROM, f"{COMPLETED}.dlq/0/0".encode())]


async def test_putting_back_twice_puts_back_once(mailbox) -> None:
    for number in range(1, 10):
        await mailbox.give_up(number)
    first, second = await mailbox.put_back(), await mailbox.put_back()
    assert (len(first.put_back), len(second.put_back), len(second.there_already)) == (9, 0, 9)
    assert set((await mailbox.marks()).values()) == {1}


async def test_only_what_is_chosen_is_put_back(mailbox) -> None:
    for number, reason in enumerate(("malformed", "handler_failed:KeyError", "handler_failed:ValueError", "malformed")):
        await mailbox.give_up(number + 1, reason=reason)
    await mailbox.put_back(Selection(reasons=("handler_failed",)))
    await mailbox.put_back(Selection(offsets=((3, 9),)))
    assert sorted(await mailbox.marks()) == [f"{COMPLETED}.dlq/0/{offset}" for offset in (1, 2, 3)]


async def test_a_record_given_up_again_is_a_new_letter_and_can_be_put_back_again(mailbox) -> None:
    await mailbox.give_up(1)
    await mailbox.put_back()
    copy = (await mailbox.source())[-1]
    await mailbox.bury(copy, copy, copy.value, "handler_failed:ValueError")
    outcome = await mailbox.put_back()
    assert (len(outcome.put_back), len(outcome.there_already)) == (1, 1)
    last = (await mailbox.source())[-1]
    assert [value for name, value in last.headers if name == REPLAYED_FROM] == [f"{COMPLETED}.dlq/0/1".encode()]


async def test_a_record_that_several_groups_gave_up_is_put_back_once(mailbox) -> None:
    record = encode(mailbox.numbered.completed(1))
    written = await mailbox.pen.raw(record.topic, record.key, record.value, record.headers, partition=1)
    for group in ("sluice-cost", "sluice-quality", "sluice-feedback"):
        await mailbox.bury(written, record, record.value, "malformed", group=group)
    assert len((await mailbox.put_back()).put_back) == 3
    _, copy = await mailbox.source()
    marks = [value.decode() for name, value in copy.headers if name == REPLAYED_FROM]
    assert marks == [f"{COMPLETED}.dlq/0/{offset}" for offset in range(3)]
    assert len((await mailbox.put_back()).there_already) == 3
    assert len(await mailbox.source()) == 2


async def test_a_record_too_large_for_its_letter_is_put_back_from_its_source(mailbox) -> None:
    record = encode(mailbox.numbered.completed(1))
    written = await mailbox.pen.raw(record.topic, record.key, record.value, record.headers)
    await mailbox.bury(written, record, record.value, "handler_failed:ValueError", omit=True)
    assert len((await mailbox.put_back()).put_back) == 1
    original, copy = await mailbox.source()
    assert (copy.value, copy.key) == (original.value, original.key)


async def test_what_is_no_dead_letter_is_told_and_left(mailbox) -> None:
    await mailbox.pen.raw(f"{COMPLETED}.dlq", b"k", b"v")
    outcome = await mailbox.put_back()
    assert (outcome.lost.places, len(outcome.put_back)) == ([f"{COMPLETED}.dlq/0/0"], 0)
    assert [letter.reason for letter in await mailbox.chosen()] == ["not_a_dead_letter"]


async def test_a_dry_run_puts_nothing_back(mailbox) -> None:
    await mailbox.give_up(1)
    assert len((await mailbox.put_back(dry=True)).put_back) == 1
    assert not await mailbox.marks()


async def test_where_the_topic_was_deleted_behind_a_letter_it_is_left_out_until_told_again(mailbox) -> None:
    await mailbox.give_up(1)
    for deleted_up_to, unknown in (({TopicPartition(COMPLETED, 1): 7}, 1), ({}, 0)):
        with Index() as index:
            for letter in await mailbox.chosen():
                index.add(letter)
            left = await putting_back.put_back(mailbox.broker, each_of(await mailbox.chosen()), index, deleted_up_to)
        assert (len(left.unknown), len(left.put_back)) == (unknown, 1 - unknown)


async def each_of(found: list[Letter]) -> AsyncIterator[Letter]:
    for letter in found:
        yield letter


async def test_again_puts_back_what_may_have_been_put_back_and_not_what_was(mailbox, monkeypatch) -> None:
    await mailbox.give_up(1)

    async def deleted(_reader: object, _index: object) -> dict[TopicPartition, int]:
        return {TopicPartition(COMPLETED, 1): 7}

    with monkeypatch.context() as patched:
        patched.setattr(putting_back, "recall", deleted)
        assert len((await mailbox.put_back()).unknown) == 1
        assert len((await mailbox.put_back(again=True)).put_back) == 1
    assert len((await mailbox.put_back(again=True)).there_already) == 1


async def test_a_large_record_that_is_gone_from_its_source_is_lost_and_one_that_is_there_is_not(mailbox) -> None:
    record = encode(mailbox.numbered.completed(1))
    written = await mailbox.pen.raw(record.topic, record.key, record.value, record.headers, partition=1)
    gone = SimpleNamespace(topic=written.topic, partition=written.partition, offset=written.offset + 1)
    for place in (gone, written):
        await mailbox.bury(SimpleNamespace(timestamp=0, **_place(place)), record, record.value, "malformed", omit=True)
    outcome = await mailbox.put_back()
    assert (outcome.lost.places, outcome.put_back.places) == ([f"{COMPLETED}.dlq/0/0"], [f"{COMPLETED}.dlq/0/1"])


def _place(written: Any) -> dict[str, Any]:
    return {"topic": written.topic, "partition": written.partition, "offset": written.offset}


async def test_letters_of_one_record_far_apart_are_put_back_as_one(mailbox, monkeypatch) -> None:
    monkeypatch.setattr(outgoing, "BATCH", 3)
    records = [encode(mailbox.numbered.completed(number)) for number in range(1, 12)]
    written = [await mailbox.pen.raw(r.topic, r.key, r.value, r.headers, partition=1) for r in records]
    for group in ("sluice-cost", "sluice-quality"):
        for record, place in zip(records, written, strict=True):
            await mailbox.bury(place, record, record.value, "malformed", group=group)
    assert len((await mailbox.put_back()).put_back) == 22
    copies = (await mailbox.source())[11:]
    assert [copy.value for copy in copies] == [record.value for record in records]
    marks = [[value.decode() for name, value in c.headers if name == REPLAYED_FROM] for c in copies]
    assert marks == [[f"{COMPLETED}.dlq/0/{n}", f"{COMPLETED}.dlq/0/{n + 11}"] for n in range(11)]


async def test_how_many_letters_there_are_does_not_tell_in_memory(mailbox, monkeypatch) -> None:
    monkeypatch.setattr(outgoing, "BATCH_BYTES", 1 << 20)
    count, size = 400, 100_000

    async def made() -> AsyncIterator[Letter]:
        """Not read from the embedded broker, which gives a whole partition at once whatever it is asked for."""
        for number in range(count):
            letter = dead_letter(
                SimpleNamespace(
                    topic=COMPLETED, partition=number % 4, offset=number, timestamp=0, key=b"k",
                    value=number.to_bytes(4, "big") * (size // 4), headers=[],
                ),
                Failure(reason="malformed", group="sluice-cost", attempts=0, first_failed_at=now()),
            )  # fmt: skip
            record = SimpleNamespace(**vars(letter), partition=0, offset=number, timestamp=0)
            yield Letter(record, read_dead_letter(record))

    tracemalloc.start()
    try:
        with Index() as index:
            async for letter in made():
                index.add(letter)
            outcome = await putting_back.put_back(mailbox.broker, made(), index, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (len(outcome.put_back), len(await mailbox.marks())) == (count, count)
    assert peak < count * size / 4, f"{peak / 1e6:.0f} MB"


def test_an_offset_that_is_none_is_refused() -> None:
    assert (offset_range("17"), offset_range("17-40")) == ((17, 17), (17, 40))
    for text in ("", "x", "5-", "9-3", "-1"):
        with pytest.raises(MeshProblem, match="write an offset"):
            offset_range(text)


async def test_killed_at_any_moment_and_run_again_each_letter_is_put_back_once(mailbox, tmp_path: Path) -> None:
    count = 1500
    for number in range(1, count + 1):
        await mailbox.give_up(number)
    environment = {n: v for n, v in os.environ.items() if not n.startswith("SLUICE_")} | {
        "SLUICE_HOME": str(tmp_path),
        "SLUICE_KAFKA_BOOTSTRAP": mailbox.broker.kafka_bootstrap,
        "SLUICE_KAFKA_EMBEDDED": "true",
    }
    command = [SLUICE, "events", "dlq", "replay", "--all"]
    ends = await _ends(mailbox.broker)
    for _ in range(2):
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while await _ends(mailbox.broker) == ends and process.poll() is None and time.monotonic() < deadline:
                pass
            process.send_signal(signal.SIGKILL)
        ends = await _ends(mailbox.broker)
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    marks = await mailbox.marks()
    assert (len(marks), set(marks.values())) == (count, {1})


async def _ends(broker: MeshSettings) -> int:
    consumer = AIOKafkaConsumer(**client_options(broker))
    await consumer.start()
    try:
        return sum((await consumer.end_offsets([TopicPartition(COMPLETED, p) for p in range(4)])).values())
    finally:
        await consumer.stop()


def test_two_replays_at_once_are_refused(tmp_path: Path) -> None:
    with (
        putting_back.only_one(tmp_path),
        pytest.raises(MeshProblem, match="Another"),
        putting_back.only_one(tmp_path),
    ):
        pass
