"""Dead letters as they stand on the `.dlq` topics, and which of them are meant."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import ConsumerRecord
from sluice_kit.dead_letters import DeadLetter, NotADeadLetter, read_dead_letter
from sluice_kit.events import DEAD_LETTER_SUFFIX, TopicSpec
from sluice_kit.ordered import OrderedReader, Spans

from sluice_cli.mesh.problem import MeshProblem

UNREADABLE = "not_a_dead_letter"
"""Reason shown for records that lack what a letter must tell."""


@dataclass(frozen=True)
class Letter:
    """A record of a dead-letter topic."""

    record: ConsumerRecord
    told: DeadLetter | None
    """None for a record that is no dead letter."""

    @property
    def topic(self) -> str:
        """The topic it was given up on."""
        return self.told.source_topic if self.told else str(self.record.topic).removesuffix(DEAD_LETTER_SUFFIX)

    @property
    def reason(self) -> str:
        """Why, as a short code."""
        return self.told.reason if self.told else UNREADABLE

    @property
    def at(self) -> datetime:
        """When it was given up."""
        first = self.told.first_failed_at if self.told else None
        return first or datetime.fromtimestamp(self.record.timestamp / 1000, UTC)

    @property
    def place(self) -> str:
        """Where the letter stands: what the mark of a record that was put back names."""
        return f"{self.record.topic}/{self.record.partition}/{self.record.offset}"


@dataclass(frozen=True)
class Selection:
    """Which letters. Everything that is given must hold."""

    reasons: tuple[str, ...] = ()
    """A reason, or what stands before its colon: `handler_failed` means every `handler_failed:...`."""
    offsets: tuple[tuple[int, int], ...] = ()
    """Ranges of offsets of the letters, both ends inclusive."""

    def takes(self, letter: Letter) -> bool:
        """True when the letter is meant."""
        reason, offset = letter.reason, letter.record.offset
        by_reason = not self.reasons or reason in self.reasons or reason.split(":")[0] in self.reasons
        return by_reason and (not self.offsets or any(first <= offset <= last for first, last in self.offsets))


def offset_range(text: str) -> tuple[int, int]:
    """`17` or `17-40`. MeshProblem for anything else."""
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not first.isdecimal() or not last.isdecimal() or int(last) < int(first):
        raise MeshProblem(
            f"--offset {text}: write an offset of the dead-letter topic such as 17, or a range such as 17-40."
        )
    return int(first), int(last)


async def spans_of(reader: OrderedReader, topics: Sequence[TopicSpec]) -> Spans:
    """Where the letters of these topics (events or their `.dlq`) are now."""
    names = {spec.name.removesuffix(DEAD_LETTER_SUFFIX) + DEAD_LETTER_SUFFIX for spec in topics}
    return await reader.spans(sorted(names))


async def letters_in(reader: OrderedReader, spans: Spans, selection: Selection) -> AsyncGenerator[Letter, None]:
    """The chosen letters that stand there, oldest first."""
    async with contextlib.aclosing(reader.records(spans)) as records:
        async for record in records:
            letter = _letter(record)
            if selection.takes(letter):
                yield letter


async def letters(
    reader: OrderedReader, topics: Sequence[TopicSpec], selection: Selection
) -> AsyncGenerator[Letter, None]:
    """The chosen letters of these topics that are there now, oldest first."""
    async with contextlib.aclosing(letters_in(reader, await spans_of(reader, topics), selection)) as found:
        async for letter in found:
            yield letter


def _letter(record: ConsumerRecord) -> Letter:
    try:
        return Letter(record, read_dead_letter(record))
    except NotADeadLetter:
        return Letter(record, None)
