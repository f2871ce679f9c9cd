"""Puts dead letters back on the topics they came from, each exactly once, however often it is killed and run again.

What was put back is remembered where it was put: the record carries the letter's place in a header, so that writing it and
remembering it are one act, on any broker. A run first reads what stands behind the letters' source offsets, and leaves out
what it finds there.
"""

import fcntl
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from sluice_kit.broker import client_options
from sluice_kit.completeness import REPLAYED_FROM
from sluice_kit.dead_letters import DeadLetter
from sluice_kit.events import Headers
from sluice_kit.kafka_client import closed
from sluice_kit.ordered import OrderedReader, Span
from sluice_kit.settings import MeshSettings

from sluice_cli.dead_letters.letters import Letter
from sluice_cli.mesh.problem import MeshProblem

BATCH = 200


@dataclass
class Memory:
    """What the source topics tell of the letters that are to be put back."""

    put_back: set[str] = field(default_factory=set)
    """Places of letters whose records are there."""
    deleted_up_to: dict[TopicPartition, int] = field(default_factory=dict)
    """The highest offset without a record behind the letters: a record that was put back may have stood there."""
    originals: dict[tuple[str, int, int], ConsumerRecord] = field(default_factory=dict)
    """Records that did not fit their letters, by topic, partition, offset."""


@dataclass
class Outcome:
    """What became of the letters."""

    put_back: list[Letter] = field(default_factory=list)
    there_already: list[Letter] = field(default_factory=list)
    unknown: list[Letter] = field(default_factory=list)
    """Whether they were put back before can no longer be seen."""
    lost: list[Letter] = field(default_factory=list)
    """No dead letters, or too large for one and gone from their source."""


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """One replay at a time from this home: two would not see each other's records."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "dlq-replay.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise MeshProblem(
                "Another `sluice events dlq replay` runs from this SLUICE_HOME: wait for its end."
            ) from None
        yield


async def recall(reader: OrderedReader, letters: Sequence[Letter]) -> Memory:
    """Read the source partitions from the letters' source offsets to their ends."""
    wanted = {letter.place for letter in letters}
    firsts = _first_offsets(letters)
    held = await reader.spans(sorted({partition.topic for partition in firsts}))
    memory = Memory()
    spans = {p: Span(max(first, held[p].start), held[p].end) for p, first in firsts.items() if p in held}
    expected = {partition: firsts[partition] for partition in spans}
    omitted = {_source(letter.told) for letter in letters if letter.told and letter.told.value_omitted}
    async for record in reader.records(spans):
        partition = TopicPartition(record.topic, record.partition)
        if record.offset > expected[partition]:
            memory.deleted_up_to[partition] = record.offset - 1
        expected[partition] = record.offset + 1
        memory.put_back.update(mark for mark in _marks(record) if mark in wanted)
        if (place := (record.topic, record.partition, record.offset)) in omitted:
            memory.originals[place] = record
    for partition, span in spans.items():
        if expected[partition] < span.end:
            memory.deleted_up_to[partition] = span.end - 1
    return memory


async def put_back(
    settings: MeshSettings, letters: Sequence[Letter], memory: Memory, *, again: bool, dry: bool = False
) -> Outcome:
    """Send what is not there yet, in the order of the letters; `again` also what may have been there. `dry`: only look."""
    outcome = Outcome()
    to_send: list[tuple[Letter, DeadLetter]] = []
    for letter in letters:
        told = letter.told
        if told is None or (told.value_omitted and _source(told) not in memory.originals):
            outcome.lost.append(letter)
        elif letter.place in memory.put_back:
            outcome.there_already.append(letter)
        elif not again and memory.deleted_up_to.get(_partition(told), -1) > told.source_offset:
            outcome.unknown.append(letter)
        else:
            to_send.append((letter, told))
    if not dry:
        await _send_all(settings, to_send, memory)
    outcome.put_back = [letter for letter, _ in to_send]
    return outcome


async def _send_all(settings: MeshSettings, letters: Sequence[tuple[Letter, DeadLetter]], memory: Memory) -> None:
    if not letters:
        return
    async with _producer(settings) as producer:
        records = _records(letters)
        for start in range(0, len(records), BATCH):
            sent = [await _send(producer, places, told, memory) for places, told in records[start : start + BATCH]]
            for acknowledged in sent:
                await acknowledged


def _records(letters: Sequence[tuple[Letter, DeadLetter]]) -> list[tuple[list[str], DeadLetter]]:
    """What is to be sent, and the places of its letters, in their order.

    A record that several groups gave up is sent once: all of them read it again, and a copy a group would be given up again by
    each of them.
    """
    records: dict[object, tuple[list[str], DeadLetter]] = {}
    for letter, told in letters:
        # A topic that was made anew has other records at the same places.
        record = (_source(told), told.original.key, told.original.value, told.value_omitted)
        records.setdefault(record, ([], told))[0].append(letter.place)
    return list(records.values())


async def _send(producer: AIOKafkaProducer, places: Sequence[str], told: DeadLetter, memory: Memory):  # type: ignore[no-untyped-def] # a future
    original = memory.originals.get(_source(told))
    value = original.value if original and told.value_omitted else told.original.value
    kept: Headers = list(original.headers) if original and told.value_omitted else told.original.headers
    headers = [(name, each) for name, each in kept if name != REPLAYED_FROM]
    return await producer.send(
        told.source_topic,
        key=told.original.key,
        value=value,
        headers=[*headers, *((REPLAYED_FROM, place.encode()) for place in places)],
        # Where it stood: consumers keep the order of a partition, and the next run looks for it here.
        partition=told.source_partition,
    )


@asynccontextmanager
async def _producer(settings: MeshSettings) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        **client_options(settings), acks="all", enable_idempotence=True, request_timeout_ms=20_000
    )
    try:
        await producer.start()
        yield producer
    except (KafkaError, OSError) as error:
        raise MeshProblem(
            f"Kafka did not take the records ({type(error).__name__}): run the same command again; what arrived is left out."
        ) from None
    finally:
        await closed(producer)


def _first_offsets(letters: Sequence[Letter]) -> Mapping[TopicPartition, int]:
    firsts: defaultdict[TopicPartition, list[int]] = defaultdict(list)
    for told in (letter.told for letter in letters):
        if told:
            firsts[_partition(told)].append(told.source_offset)
    return {partition: min(offsets) for partition, offsets in firsts.items()}


def _marks(record: ConsumerRecord) -> list[str]:
    return [value.decode(errors="replace") for name, value in record.headers if name == REPLAYED_FROM]


def _partition(told: DeadLetter) -> TopicPartition:
    return TopicPartition(told.source_topic, told.source_partition)


def _source(told: DeadLetter) -> tuple[str, int, int]:
    return told.source_topic, told.source_partition, told.source_offset
