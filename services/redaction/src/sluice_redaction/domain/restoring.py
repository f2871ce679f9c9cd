"""Restoring: placeholders of this request become the caller's values again, in a whole text or in a stream."""

import json
from dataclasses import dataclass

from .placeholders import Reader
from .vault import Vault


@dataclass(frozen=True, slots=True)
class Restored:
    """text: with values in place. replaced: how many placeholders were."""

    text: str
    replaced: int


class RestoringStream:
    """Restores a text that comes in pieces; the pieces may be cut anywhere.

    Held back is only the tail that could still become a placeholder of this vault; with an empty vault, nothing. What
    looks like a placeholder but is not in the vault stays as it is. The vault may grow between pushes (new findings);
    only the entries present at construction are restored.
    """

    def __init__(self, vault: Vault, *, json_text: bool = False) -> None:
        """json_text: values are escaped as inside a JSON string, because the caller says that the text is JSON."""
        self._values = {entry_key: entry.value for entry_key in vault.keys if (entry := vault.by_key(entry_key))}
        self._reader = Reader(self._values)
        self._json_text = json_text
        self._held = ""
        self.replaced = 0

    @property
    def held_characters(self) -> int:
        return len(self._held)

    def push(self, text: str) -> str:
        """What can be released now."""
        return self._read(self._held + text, final=False)

    def finish(self) -> str:
        """The rest, which has not become a placeholder."""
        return self._read(self._held, final=True)

    def _read(self, text: str, *, final: bool) -> str:
        released: list[str] = []
        done, opening = 0, self._reader.opening(text, 0)
        self._held = ""
        while opening >= 0:
            reading = self._reader.read(text, opening)
            if reading is None or (reading.unfinished and final):
                opening = self._reader.opening(text, opening + 1)
                continue
            released.append(text[done:opening])
            if reading.key is None:
                self._held = text[opening:]
                return "".join(released)
            released.append(self._shown(self._values[reading.key]) + reading.suffix)
            self.replaced += 1
            done, opening = reading.end, self._reader.opening(text, reading.end)
        released.append(text[done:])
        return "".join(released)

    def _shown(self, value: str) -> str:
        return json.dumps(value, ensure_ascii=False)[1:-1] if self._json_text else value


def restore(text: str, vault: Vault, *, json_text: bool = False) -> Restored:
    """Restores one whole text."""
    stream = RestoringStream(vault, json_text=json_text)
    return Restored(stream.push(text) + stream.finish(), stream.replaced)
