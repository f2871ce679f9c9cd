"""Puts dead letters back on the topics they came from, each exactly once, however often it is killed and run again.

What was put back is remembered where it was put: the record carries the letter's place in a header, so that writing it and
remembering it are one act, on any broker. A run reads the letters for their places, then what stands behind their source
offsets, and then the letters again, to send those that it did not find there: one at a time, and never all in memory.
"""

import fcntl
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import ConsumerRecord, TopicPartition
from sluice_kit.completeness import REPLAYED_FROM
from sluice_kit.dead_letters import DeadLetter
from sluice_kit.events import TopicSpec
from sluice_kit.ordered import OrderedReader, Span
from sluice_kit.settings import MeshSettings

from sluice_cli.dead_letters.index import Index, State
from sluice_cli.dead_letters.letters import Letter, Selection, letters_in, spans_of
from sluice_cli.dead_letters.outgoing import Originals, Outgoing
from sluice_cli.mesh.problem import MeshProblem

SHOWN_PLACES = 10


@dataclass
class Tally:
    """How many letters, and where the first of them stand."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def add(self, letter: Letter) -> None:
        """One more."""
        self.count += 1
        if len(self.places) < SHOWN_PLACES:
            self.places.append(letter.place)


@dataclass
class Outcome:
    """What became of the letters."""

    put_back: Tally = field(default_factory=Tally)
    there_already: Tally = field(default_factory=Tally)
    unknown: Tally = field(default_factory=Tally)
    """Whether they were put back before can no longer be seen."""
    lost: Tally = field(default_factory=Tally)
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


async def replay(
    settings: MeshSettings, topics: Sequence[TopicSpec], selection: Selection, *, again: bool, dry: bool = False
) -> Outcome:
    """Put back the chosen letters that are there now, in their order; `again` also what may have been put back. `dry`: only look."""
    async with OrderedReader.opened(settings) as reader:
        # Letters that come while we work are not meant.
        spans = await spans_of(reader, topics)
        with Index() as index:
            async with aclosing(letters_in(reader, spans, selection)) as chosen:
                async for letter in chosen:
                    index.add(letter)
            deleted_up_to = await recall(reader, index)
            async with aclosing(letters_in(reader, spans, selection)) as chosen:
                return await put_back(settings, chosen, index, {} if again else deleted_up_to, dry=dry)


async def recall(reader: OrderedReader, index: Index) -> dict[TopicPartition, int]:
    """Read the source partitions from the letters' source offsets to their ends, and note which letters were put back.

    Gives the highest offset without a record behind the letters, by partition: a record that was put back may have stood there.
    """
    firsts, deleted_up_to = index.first_offsets, {}
    held = await reader.spans(sorted({partition.topic for partition in firsts}))
    spans = {p: Span(max(first, held[p].start), held[p].end) for p, first in firsts.items() if p in held}
    expected = {partition: firsts[partition] for partition in spans}
    async for record in reader.records(spans):
        partition = TopicPartition(record.topic, record.partition)
        if record.offset > expected[partition]:
            deleted_up_to[partition] = record.offset - 1
        expected[partition] = record.offset + 1
        index.note(_marks(record), State.PUT_BACK)
    for partition, span in spans.items():
        if expected[partition] < span.end:
            deleted_up_to[partition] = span.end - 1
    return deleted_up_to


async def put_back(
    settings: MeshSettings,
    letters: AsyncIterator[Letter],
    index: Index,
    deleted_up_to: Mapping[TopicPartition, int],
    *,
    dry: bool = False,
) -> Outcome:
    """Send what is not there yet, in the order of the letters, which the index must know; what may have been there is left out."""
    outcome = Outcome()
    async with Outgoing(settings) as outgoing, Originals(settings) as originals:
        async for letter in letters:
            told, state = letter.told, index.state(letter)
            original = await originals.of(told) if told and told.value_omitted and state is State.UNSEEN else None
            tally = _tally(outcome, told, state, original, deleted_up_to)
            tally.add(letter)
            if told and tally is outcome.put_back and state is State.UNSEEN:
                places = index.places_to_send(told)
                if not dry:
                    await outgoing.send(told, places, original)
                index.note(places, State.SENT)
    return outcome


def _tally(
    outcome: Outcome,
    told: DeadLetter | None,
    state: State,
    original: ConsumerRecord | None,
    deleted_up_to: Mapping[TopicPartition, int],
) -> Tally:
    """Where a letter is counted."""
    if told is None:
        return outcome.lost
    if state is not State.UNSEEN:
        return outcome.there_already if state is State.PUT_BACK else outcome.put_back
    if told.value_omitted and original is None:
        return outcome.lost
    source = TopicPartition(told.source_topic, told.source_partition)
    return outcome.unknown if deleted_up_to.get(source, -1) > told.source_offset else outcome.put_back


def _marks(record: ConsumerRecord) -> list[str]:
    return [value.decode(errors="replace") for name, value in record.headers if name == REPLAYED_FROM]
