"""Restoring: the tokens of this request become the caller's values again, in a whole text or in a stream."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from .json_depth import JsonDepth
from .tokens import Reading, TokenReader
from .vault import Entry


@dataclass(frozen=True, slots=True)
class Restored:
    """text: with values in place. replaced: how many tokens were."""

    text: str
    replaced: int


class RestoringStream:
    """Restores a text that comes in pieces; the pieces may be cut anywhere.

    Held back is only the tail that could still become a token of this vault; with an empty vault, nothing. What looks like
    a token but is not in the vault stays as it is. The vault may grow between pushes (new findings); only the entries
    present at construction are restored.
    """

    def __init__(self, vault: Iterable[Entry] | TokenReader, *, json_text: bool = False) -> None:
        """vault: or a reader of its tokens. json_text: values are escaped as inside JSON strings, as deep as they stand,
        because the caller says that the text is JSON."""
        self._reader = vault if isinstance(vault, TokenReader) else reader_of(vault)
        self._json = JsonDepth() if json_text else None
        self._held = ""
        self._before = ""  # the last two characters that were read
        self.replaced = 0

    @property
    def held_characters(self) -> int:
        return len(self._held)

    def push(self, text: str) -> str:
        """What can be released now."""
        return self._read(self._held + text, final=False)

    def finish(self) -> str:
        """The rest, which has not become a token."""
        return self._read(self._held, final=True)

    def _read(self, text: str, *, final: bool) -> str:
        released: list[str] = []
        done, start, self._held = 0, self._reader.next_start(text, 0), ""
        while start >= 0:
            before = text[max(0, start - 2) : start] if start >= 2 else (self._before + text[:start])[-2:]
            reading = self._reader.read(text, start, before, final=final)
            if reading is None:
                start = self._reader.next_start(text, start + 1)
                continue
            released.append(self._passed(text[done:start]))
            done = start
            if reading.value is None:
                break
            released.append(self._shown(reading) + reading.suffix)
            self._passed(text[start : reading.end])
            self.replaced += 1
            done, start = reading.end, self._reader.next_start(text, reading.end)
        if start >= 0:
            self._held = text[done:]
        else:
            released.append(self._passed(text[done:]))
        return "".join(released)

    def _passed(self, text: str) -> str:
        """Text that is decided."""
        if self._json is not None:
            self._json.follow(text)
        self._before = (self._before + text)[-2:]
        return text

    def _shown(self, reading: Reading) -> str:
        depth = max(1, self._json.depth) if self._json is not None else reading.escaped
        value = reading.value or ""
        for _ in range(depth):
            value = json.dumps(value, ensure_ascii=False)[1:-1]
        return value


def reader_of(vault: Iterable[Entry]) -> TokenReader:
    """Reads the tokens of a vault; for several texts, because it takes longer to make than to use."""
    return TokenReader((entry.placeholder, entry.value) for entry in vault)


def restore(text: str, vault: Iterable[Entry] | TokenReader, *, json_text: bool = False) -> Restored:
    """Restores one whole text."""
    stream = RestoringStream(vault, json_text=json_text)
    return Restored(stream.push(text) + stream.finish(), stream.replaced)
