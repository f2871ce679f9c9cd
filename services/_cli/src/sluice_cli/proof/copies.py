"""Which events stand on a topic more than once, found exactly with bounded memory: what is seen is spread over files by its id."""

import hashlib
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Self

_RECORD = struct.Struct("<16sIQ")
_READ_RECORDS = 4096
# Each file is looked through by itself, in memory: a hundred million events are then some 1.5 million at a time.
FILES = 64


@dataclass(frozen=True, slots=True)
class CopyCounts:
    """Copies by stream (a number that the caller gave it)."""

    same_event: Counter[int] = field(default_factory=Counter)
    """Records beyond the first of the same event under the same number: sent again."""
    other_number: Counter[int] = field(default_factory=Counter)
    """Numbers beyond the first of the same event: published again."""
    other_stream: Counter[int] = field(default_factory=Counter)
    """Events that stand in another stream, too."""


class Copies:
    """Takes (stream, sequence, event id) in any order. Use as a context manager; the files are temporary."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        self._files = [self._stack.enter_context(tempfile.TemporaryFile()) for _ in range(FILES)]  # noqa: SIM115 - the stack closes them
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, stream: int, sequence: int, event_id: str) -> None:
        """One more record."""
        digest = hashlib.blake2b(event_id.encode(), digest_size=16).digest()
        self._files[digest[0] % FILES].write(_RECORD.pack(digest, stream, sequence))

    def counts(self) -> CopyCounts:
        """What came more than once."""
        found = CopyCounts()
        for file in self._files:
            self._count(file, found)
        return found

    def _count(self, file: IO[bytes], found: CopyCounts) -> None:
        places: dict[bytes, dict[tuple[int, int], int]] = {}
        for digest, stream, sequence in _records(file):
            seen = places.setdefault(digest, {})
            seen[stream, sequence] = seen.get((stream, sequence), 0) + 1
        for seen in places.values():
            if len(seen) > 1 or max(seen.values()) > 1:
                _note(seen, found)


def _records(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    file.seek(0)
    while chunk := file.read(_RECORD.size * _READ_RECORDS):
        yield from _RECORD.iter_unpack(chunk)
    file.seek(0, 2)


def _note(seen: dict[tuple[int, int], int], found: CopyCounts) -> None:
    numbers = Counter(stream for stream, _ in seen)
    for (stream, _), times in seen.items():
        found.same_event[stream] += times - 1
    for stream, count in numbers.items():
        found.other_number[stream] += count - 1
        found.other_stream[stream] += len(numbers) > 1
