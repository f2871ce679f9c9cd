"""What is to be known of every chosen letter at once, on disk: how many letters there are does not tell in memory."""

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from enum import IntEnum
from types import TracebackType
from typing import Self

from aiokafka import TopicPartition
from sluice_kit.dead_letters import DeadLetter

from sluice_cli.dead_letters.letters import Letter

_SCHEMA = """
CREATE TABLE letter (id INTEGER PRIMARY KEY, place TEXT NOT NULL UNIQUE, record BLOB NOT NULL, state INTEGER NOT NULL);
CREATE INDEX letter_of_record ON letter (record);
"""


class State(IntEnum):
    """Where the record of a letter stands."""

    UNSEEN = 0
    """Not seen behind the letter's source offset."""
    PUT_BACK = 1
    """There already, when the reading began."""
    SENT = 2
    """Sent by this run."""


class Index:
    """The letters' places, which of them are of one record, and which were put back. Use as a context manager."""

    def __init__(self) -> None:
        self._firsts: dict[TopicPartition, int] = {}
        # No name: SQLite keeps it in a file of its own, which nobody else can open and which is gone with the connection.
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        # One transaction that is never committed: nothing here has to survive.
        self._database.execute("BEGIN")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    @property
    def first_offsets(self) -> Mapping[TopicPartition, int]:
        """By source partition, the lowest source offset of a letter."""
        return self._firsts

    def add(self, letter: Letter) -> None:
        """One more; what is no dead letter is of no record."""
        if letter.told is None:
            return
        source = TopicPartition(letter.told.source_topic, letter.told.source_partition)
        first = self._firsts.get(source, letter.told.source_offset)
        self._firsts[source] = min(first, letter.told.source_offset)
        row = (letter.place, _record(letter.told), State.UNSEEN)
        self._database.execute("INSERT OR IGNORE INTO letter (place, record, state) VALUES (?, ?, ?)", row)

    def note(self, places: Iterable[str], state: State) -> None:
        """The records of these letters stand so; places of letters that were not chosen are left out."""
        rows = ((state, place) for place in places)
        self._database.executemany("UPDATE letter SET state = ? WHERE place = ?", rows)

    def state(self, letter: Letter) -> State:
        """As it was noted last."""
        row = self._database.execute("SELECT state FROM letter WHERE place = ?", (letter.place,)).fetchone()
        return State(row[0]) if row else State.UNSEEN

    def places_to_send(self, told: DeadLetter) -> list[str]:
        """Places of all letters of the same record that is to be sent, in the order they were added.

        A record that several groups gave up is sent once: all of them read it again, and a copy a group would be given up
        again by each of them.
        """
        chosen = "SELECT place FROM letter WHERE record = ? AND state = ? ORDER BY id"
        return [place for (place,) in self._database.execute(chosen, (_record(told), State.UNSEEN))]


def _record(told: DeadLetter) -> bytes:
    """Which record it was: a topic that was made anew has other records at the same places."""
    key, value = told.original.key, told.original.value
    which = told.source_topic, told.source_partition, told.source_offset, told.value_omitted, key, value is None
    digest = hashlib.blake2b(repr(which).encode(), digest_size=16)
    digest.update(value or b"")
    return digest.digest()
