"""The vault of one request: which token in the text stands for which value. It lives as long as the request, nowhere else."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from .operators import RESTORABLE, Operation
from .phrases import Phrases
from .placeholders import CANONICAL, key_of, keys_in, placeholder

# Base 32, because models change case; a private key is the longest value there is.
ENCRYPTED = re.compile(r"<([A-Z][A-Z0-9_]{0,62})_ENC_([A-Z2-7]{24,65536})>")
HASHED = re.compile(r"<([A-Z][A-Z0-9_]{0,62})_HASH_([A-Z2-7]{24})>")
_KIND = re.compile(r"[A-Z][A-Z0-9_]{0,62}")
_WORD = re.compile(r"\w+")
_LONGEST_SURROGATE = 400


@dataclass(frozen=True, slots=True)
class Entry:
    """One replaced value. The value is kept out of repr, so that no log line can hold it by accident.

    placeholder: the token that stands in the text, whichever restorable operator made it.
    """

    placeholder: str
    value: str = field(repr=False)
    kind: str
    operation: Operation = Operation.REPLACE


class Vault:
    """Tokens and values of one request; the same value always gets the same token.

    A placeholder's number is given out only if no spelling of that placeholder stands in the vault or in any text
    announced by `reserve`, and a made-up value only if it holds a word that no such text has: what a user typed that
    looks like a token is never taken for ours.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Raises ValueError for an entry whose token does not have its operator's form, or that stands there twice."""
        self._by_placeholder: dict[str, Entry] = {}
        self._by_value: dict[str, Entry] = {}
        self._by_key: dict[str, Entry] = {}
        self._placeholders: dict[str, Entry] = {}
        self._surrogates = Phrases()
        self._reserved: set[str] = set()
        self._said: set[str] = set()
        self._words: set[str] = set()
        self._pairs: set[tuple[str, str]] = set()
        self._parts: dict[str, str] = {}
        self._last_number: dict[str, int] = {}
        for entry in entries:
            _check(entry)
            if entry.placeholder in self._by_placeholder or self._key(entry) in self._by_key:
                # Not which: a made-up value is nobody's secret, but it is no number either.
                what = entry.placeholder if entry.operation is Operation.REPLACE else f"a {entry.operation} token"
                raise ValueError(f"placeholder {what} stands in the vault twice")
            self._keep(entry)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_placeholder.values())

    def __len__(self) -> int:
        return len(self._by_placeholder)

    def tokens(self) -> Iterator[tuple[str, str]]:
        """(token, value) of every entry, in the order in which they were made."""
        return ((entry.placeholder, entry.value) for entry in self)

    def surrogates_in(self, text: str) -> Iterator[tuple[int, int]]:
        """Where made-up values of this vault stand in a text, in any case."""
        return ((found.start, found.end) for found in self._surrogates.occurrences(text))

    def reserve(self, text: str) -> None:
        """Whatever looks like a placeholder in this text, or consists of its words, will not be given out."""
        self._reserved.update(keys_in(text))
        words = _WORD.findall(text.casefold())
        self._said.update(words)
        self._take(words)

    def known(self, value: str) -> Entry | None:
        """The entry of this value, if it has one."""
        return self._by_value.get(value)

    def entry_for(self, value: str, kind: str) -> Entry:
        """The entry of this value, made with a placeholder if there is none. The kind of the first finding stays."""
        return self._by_value.get(value) or self._keep(Entry(self._next(kind), value, kind))

    def placeholder_for(self, value: str, kind: str) -> Entry:
        """An entry of this value whose token is in brackets, and so can be read in the middle of a word."""
        known = self._by_value.get(value)
        if known is not None and known.operation is not Operation.SURROGATE:
            return known
        return self._placeholders.get(value) or self._keep(Entry(self._next(kind), value, kind))

    def encrypt(self, value: str, kind: str, token: str) -> Entry:
        """The entry of this value, made with an encrypted token if there is none."""
        return self._by_value.get(value) or self._keep(Entry(token, value, kind, Operation.ENCRYPT))

    def adopt(self, entry: Entry) -> None:
        """An entry that was made elsewhere, beside whatever stands for its value already."""
        if entry.placeholder not in self._by_placeholder:
            self._keep(entry)

    def invent(self, value: str, kind: str, candidates: Iterable[str]) -> Entry | None:
        """The entry of this value, made with the first candidate that collides with nothing; None if all do.

        A name's first and last word get entries too, so that an answer may say "Maria" of "Maria Keller".
        """
        known = self._by_value.get(value)
        if known is not None:
            return known
        for candidate in candidates:
            entry = Entry(candidate, value, kind, Operation.SURROGATE)
            if self._is_free(candidate) and self._names_nobody(entry):
                free = [(part, made_up) for part, made_up in parts_of_name(entry) if self._is_free(made_up)]
                self._keep(entry)
                for part, made_up in free:
                    if part not in self._by_value:
                        self._keep(Entry(made_up, part, kind, Operation.SURROGATE))
                return entry
        return None

    def part(self, word: str) -> str | None:
        """What stands for this word of a name already."""
        return self._parts.get(word)

    def has_token(self, token: str) -> bool:
        return token in self._by_placeholder

    def _is_free(self, candidate: str) -> bool:
        """It stands in no text and no made-up value: some word of it, or pair of neighbouring words, does not."""
        if not _is_readable(candidate) or candidate in self._by_placeholder or candidate in self._by_value:
            return False
        words = _WORD.findall(candidate.casefold())
        return not (self._pairs.issuperset(pairwise(words)) and self._words.issuperset(words))

    def _names_nobody(self, entry: Entry) -> bool:
        """No word of a made-up name stands in the texts: it would be taken for somebody else's. Titles stay as they are."""
        if entry.kind != "PERSON":
            return True
        own = set(_WORD.findall(entry.value.casefold()))
        return self._said.isdisjoint(word for word in _WORD.findall(entry.placeholder.casefold()) if word not in own)

    def _take(self, words: Sequence[str]) -> None:
        self._words.update(words)
        self._pairs.update(pairwise(words))

    def _next(self, kind: str) -> str:
        number = self._last_number.get(kind, 0) + 1
        while key_of(placeholder(kind, number)) in self._reserved or key_of(placeholder(kind, number)) in self._by_key:
            number += 1
        self._last_number[kind] = number
        return placeholder(kind, number)

    def _keep(self, entry: Entry) -> Entry:
        self._by_placeholder[entry.placeholder] = entry
        self._by_value.setdefault(entry.value, entry)
        if entry.operation is Operation.SURROGATE:
            self._surrogates.add(entry.placeholder)
            # One made-up value must not be a part of another: restoring would not know which it is.
            self._take(_WORD.findall(entry.placeholder.casefold()))
            self._parts.update(parts_of_name(entry))
        else:
            self._by_key[self._key(entry)] = entry
            self._placeholders.setdefault(entry.value, entry)
        return entry

    def _key(self, entry: Entry) -> str:
        return entry.placeholder if entry.operation is Operation.SURROGATE else key_of(entry.placeholder)


def _is_readable(candidate: str) -> bool:
    """A reader of tokens finds it again: on one line, with single blanks between its words."""
    return (
        0 < len(candidate) <= _LONGEST_SURROGATE
        and candidate.isprintable()
        and " ".join(candidate.split()) == candidate
    )


def parts_of_name(entry: Entry) -> list[tuple[str, str]]:
    """First and last word of a made-up name, each with what it stands for: (part of the value, part of the token)."""
    values, made_up = entry.value.split(), entry.placeholder.split()
    if entry.kind != "PERSON" or entry.operation is not Operation.SURROGATE or not 1 < len(values) == len(made_up):
        return []
    pairs = ((values[0], made_up[0]), (values[-1], made_up[-1]))
    return [(value, token) for value, token in pairs if value != token and min(len(value), len(token)) > 2]


def _check(entry: Entry) -> None:
    """Raises ValueError; the message holds neither token, value nor kind."""
    token = entry.placeholder
    if entry.kind and _KIND.fullmatch(entry.kind) is None:
        # It names a metric's label and stands in events.
        raise ValueError("a vault entry's kind is not of capital letters, digits and underscores")
    if entry.operation not in RESTORABLE:
        raise ValueError(f"a vault entry's operator is {entry.operation}, which cannot be undone")
    if entry.operation is Operation.REPLACE and CANONICAL.fullmatch(token) is None:
        raise ValueError("a vault entry's placeholder does not have the form <KIND_n>")
    if entry.operation is Operation.ENCRYPT and ENCRYPTED.fullmatch(token) is None:
        raise ValueError("a vault entry's placeholder does not have the form <KIND_ENC_...>")
    if entry.operation is Operation.SURROGATE and not (_WORD.search(token) and len(token) <= _LONGEST_SURROGATE):
        raise ValueError(f"a surrogate has letters or digits and at most {_LONGEST_SURROGATE} characters")
