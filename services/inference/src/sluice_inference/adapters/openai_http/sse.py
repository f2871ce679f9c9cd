"""Server-sent events from bytes, however the network cut them (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

# A CR at the very end may be half of a CRLF: it is left in the buffer until the next bytes tell.
_LINE_END = re.compile(r"\r\n|\n|\r(?!$)", re.DOTALL)
# One event of a model is some hundred bytes; a server that never ends a line must not fill our memory.
LONGEST_EVENT = 1_000_000


class BrokenStream(Exception):
    """The bytes are no event stream: too long a line, or no UTF-8."""


class EventStream:
    """Feed bytes, get the data of complete events. Names, ids and comments are read past: model servers do not use them."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._buffer = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Raises BrokenStream."""
        try:
            self._buffer += self._decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise BrokenStream("the stream is no UTF-8") from error
        yield from self._lines()
        if len(self._buffer) + sum(map(len, self._data)) > LONGEST_EVENT:
            raise BrokenStream("an event is too long")

    def end(self) -> Iterator[str]:
        """What the end of the stream completes: a last event without its blank line is taken too, as servers forget it."""
        self._buffer += "\n\n"
        yield from self._lines()

    def _lines(self) -> Iterator[str]:
        begin = 0
        for end in _LINE_END.finditer(self._buffer):
            line, begin = self._buffer[begin : end.start()], end.end()
            if (data := self._take(line)) is not None:
                yield data
        self._buffer = self._buffer[begin:]

    def _take(self, line: str) -> str | None:
        if not line:
            data, self._data = self._data, []
            return "\n".join(data) if data else None
        name, _, value = line.partition(":")
        if name == "data":
            self._data.append(value.removeprefix(" "))
        return None
