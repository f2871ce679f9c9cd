"""Two sets of ids of any size, compared with bounded memory: ids are spread over files and compared file by file."""

import hashlib
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

FILES = 64
EXAMPLES = 10


@dataclass(frozen=True)
class Difference:
    """How many different ids each side has, and what only one of them has."""

    left_count: int
    right_count: int
    only_left: int
    only_right: int
    examples_left: tuple[str, ...]
    examples_right: tuple[str, ...]


class TwoSets:
    """Takes ids of a left and a right set, in any order and any number of times. Use as a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._files: list[IO[str]] = []

    def __enter__(self) -> Self:
        self._files = [self._stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(FILES)]  # noqa: SIM115 - the stack closes them
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def left(self, id_: str) -> None:
        """An id of the left set."""
        self._write("l", id_)

    def right(self, id_: str) -> None:
        """An id of the right set."""
        self._write("r", id_)

    def difference(self) -> Difference:
        """The comparison; more may be added afterwards."""
        counts = dict.fromkeys("lr", 0)
        only: dict[str, list[str]] = {"l": [], "r": []}
        alone = dict.fromkeys("lr", 0)
        for file in self._files:
            sides = _sides(file)
            for side, other in (("l", "r"), ("r", "l")):
                missing = sides[side] - sides[other]
                counts[side] += len(sides[side])
                alone[side] += len(missing)
                only[side] = sorted([*only[side], *missing])[:EXAMPLES]
        return Difference(counts["l"], counts["r"], alone["l"], alone["r"], tuple(only["l"]), tuple(only["r"]))

    def _write(self, side: str, id_: str) -> None:
        at = hashlib.blake2b(id_.encode(), digest_size=1).digest()[0] % FILES
        # One line an id, whatever it holds.
        self._files[at].write(side + id_.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") + "\n")


def _sides(file: IO[str]) -> dict[str, set[str]]:
    file.seek(0)
    sides: dict[str, set[str]] = {"l": set(), "r": set()}
    for line in file:
        sides[line[0]].add(line[1:-1])
    file.seek(0, 2)
    return sides
