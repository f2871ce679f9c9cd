"""Replacing: what an operator puts in a value's place, the same for the same value throughout a request."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .operators import Keys, Operation, Operator, Surrogates, masked
from .placeholders import placeholder_like
from .policy import Policy
from .vault import Entry, Vault

# The end of an encrypted or hashed token, in brackets or without, and the kind before it. Whether it is a token, only the
# key can tell.
_KEYED = re.compile(r"_(?:ENC|HASH)_[A-Z2-7]{24,65536}", re.IGNORECASE)
_KIND = re.compile(r"[A-Z][A-Z0-9_]{0,62}$", re.IGNORECASE)


class KeyMissing(RuntimeError):
    """A policy needs a key, and there is none."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What operators need besides the value, for one request: a tenant's keys, and made-up values seeded by the request."""

    keys: Keys | None = None
    surrogates: Surrogates | None = None


@dataclass(frozen=True, slots=True)
class Replacement:
    """text: stands for the value. entry: how it comes back; None if it does not."""

    text: str = field(repr=False)
    operation: Operation
    entry: Entry | None = None


class Replacing:
    """One policy's operators over one vault."""

    def __init__(self, policy: Policy, vault: Vault, tools: Tools | None = None) -> None:
        self._policy = policy
        self._vault = vault
        self._tools = tools or Tools()
        # What cannot be undone stands in no vault, but is the same throughout the call all the same.
        self._final: dict[str, Replacement] = {}

    def of(self, value: str, kind: str, *, alone: bool = True) -> Replacement:
        """alone: no word goes on into the value, so that a made-up one could be found again as a word of its own.

        Raises KeyMissing if the operator needs a key.
        """
        operator = self._policy.operator_for(kind)
        if operator.operation is Operation.KEEP:
            return Replacement(value, Operation.KEEP)
        if (entry := self._vault.known(value)) and (alone or entry.operation is not Operation.SURROGATE):
            return _restorable(entry)
        if operator.operation is Operation.SURROGATE and not alone:
            return _restorable(self._vault.placeholder_for(value, kind))
        if operator.restorable:
            return _restorable(self._entry(value, kind, operator))
        if value not in self._final:
            self._final[value] = Replacement(self._not_undoable(value, kind, operator), operator.operation)
        return self._final[value]

    def own_tokens(self, text: str) -> list[tuple[int, int]]:
        """(start, end), in order and apart, of what earlier redaction put into a text, which is not redacted again:
        whatever looks like a placeholder, tokens made with our key, made-up values of this vault."""
        found = [
            *placeholder_like(text, self._policy.custom_kinds), *self._keyed(text), *self._vault.surrogates_in(text)
        ]  # fmt: skip
        apart: list[tuple[int, int]] = []
        for start, end in sorted(found):
            if not apart or start >= apart[-1][1]:
                apart.append((start, end))
        return apart

    def _keyed(self, text: str) -> Iterator[tuple[int, int]]:
        for match in _KEYED.finditer(text):
            kind = _KIND.search(text, max(0, match.start() - 63), match.start())
            token = f"<{text[kind.start() : match.end()]}>".upper() if kind else ""
            if kind and (self._vault.has_token(token) or (self._tools.keys and self._tools.keys.is_ours(token))):
                yield kind.start(), match.end()

    def _entry(self, value: str, kind: str, operator: Operator) -> Entry:
        if operator.operation is Operation.ENCRYPT:
            return self._vault.encrypt(value, kind, self._keys().encrypted(value, kind))
        if operator.operation is Operation.SURROGATE and self._tools.surrogates is not None:
            candidates = self._tools.surrogates.candidates(value, kind, self._vault)
            if entry := self._vault.invent(value, kind, candidates):
                return entry
        return self._vault.entry_for(value, kind)

    def _not_undoable(self, value: str, kind: str, operator: Operator) -> str:
        match operator.operation:
            case Operation.MASK:
                return masked(value, operator)
            case Operation.HASH:
                return self._keys().hashed(value, kind)
            case _:
                return ""

    def _keys(self) -> Keys:
        if self._tools.keys is None:
            raise KeyMissing("there is no key to encrypt and hash with")
        return self._tools.keys


def _restorable(entry: Entry) -> Replacement:
    return Replacement(entry.placeholder, entry.operation, entry)
