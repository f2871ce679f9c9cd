"""The vault of one request: which placeholder stands for which value. It lives as long as the request, nowhere else."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .placeholders import CANONICAL, key_of, keys_in, placeholder


@dataclass(frozen=True, slots=True)
class Entry:
    """One replaced value. The value is kept out of repr, so that no log line can hold it by accident."""

    placeholder: str
    value: str = field(repr=False)
    kind: str


class Vault:
    """Placeholders and values of one request; the same value always gets the same placeholder.

    A number is given out only if no spelling of that placeholder stands in the vault or in any text announced by
    `reserve`: what a user typed that looks like a placeholder is never taken for ours.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Raises ValueError for an entry whose placeholder is not `<KIND_n>`, or that stands there twice."""
        self._by_placeholder: dict[str, Entry] = {}
        self._by_value: dict[str, Entry] = {}
        self._by_key: dict[str, Entry] = {}
        self._reserved: set[str] = set()
        self._last_number: dict[str, int] = {}
        for entry in entries:
            if CANONICAL.fullmatch(entry.placeholder) is None:
                raise ValueError("a vault entry's placeholder does not have the form <KIND_n>")
            if entry.placeholder in self._by_placeholder or key_of(entry.placeholder) in self._by_key:
                raise ValueError(f"placeholder {entry.placeholder} stands in the vault twice")
            self._keep(entry)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_placeholder.values())

    def __len__(self) -> int:
        return len(self._by_placeholder)

    @property
    def keys(self) -> Iterable[str]:
        return self._by_key.keys()

    def reserve(self, text: str) -> None:
        """Whatever looks like a placeholder in this text will not be given out."""
        self._reserved.update(keys_in(text))

    def entry_for(self, value: str, kind: str) -> Entry:
        """The entry of this value, made if there is none. The kind of the first finding stays."""
        known = self._by_value.get(value)
        if known is not None:
            return known
        return self._keep(Entry(self._next(kind), value, kind))

    def by_key(self, key: str) -> Entry | None:
        return self._by_key.get(key)

    def _next(self, kind: str) -> str:
        number = self._last_number.get(kind, 0) + 1
        while key_of(placeholder(kind, number)) in self._reserved or key_of(placeholder(kind, number)) in self._by_key:
            number += 1
        self._last_number[kind] = number
        return placeholder(kind, number)

    def _keep(self, entry: Entry) -> Entry:
        self._by_placeholder[entry.placeholder] = entry
        self._by_value.setdefault(entry.value, entry)
        self._by_key[key_of(entry.placeholder)] = entry
        return entry
