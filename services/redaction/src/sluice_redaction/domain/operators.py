"""Operators: what a policy puts in place of a value. Named as in Presidio's anonymizer."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Operation(StrEnum):
    """The ones there are."""

    REPLACE = "replace"
    """A placeholder, `<KIND_n>`."""
    MASK = "mask"
    """Characters of it covered by a sign."""
    HASH = "hash"
    """A keyed fingerprint, `<KIND_HASH_...>`."""
    ENCRYPT = "encrypt"
    """The value itself, readable for whoever has the key, `<KIND_ENC_...>`."""
    SURROGATE = "surrogate"
    """Another value of the same kind, locale and format."""
    REDACT = "redact"
    """Nothing."""
    KEEP = "keep"
    """The value: found and told, not replaced."""


RESTORABLE = frozenset({Operation.REPLACE, Operation.ENCRYPT, Operation.SURROGATE})
KEYED = frozenset({Operation.HASH, Operation.ENCRYPT})


@dataclass(frozen=True, slots=True)
class Operator:
    """An operation and its options, which only `mask` has.

    mask_character: one sign. mask_count: how many characters are covered; 0 means all. mask_from_end: the last ones.
    """

    operation: Operation = Operation.REPLACE
    mask_character: str = "*"
    mask_count: int = 0
    mask_from_end: bool = False

    @property
    def restorable(self) -> bool:
        """Whether it leaves a vault entry."""
        return self.operation in RESTORABLE

    @property
    def needs_key(self) -> bool:
        return self.operation in KEYED


REPLACE = Operator()


def masked(value: str, operator: Operator) -> str:
    """The value with characters covered. At least one is, whatever the options."""
    count = min(operator.mask_count or len(value), len(value))
    cover = operator.mask_character * count
    return value[: len(value) - count] + cover if operator.mask_from_end else cover + value[count:]


class Keys(Protocol):
    """Keyed functions of one tenant. Both are deterministic: the same value gives the same token."""

    def hashed(self, value: str, kind: str) -> str:
        """`<KIND_HASH_...>`."""
        ...

    def encrypted(self, value: str, kind: str) -> str:
        """`<KIND_ENC_...>`."""
        ...

    def decrypted(self, token: str) -> str | None:
        """The value of a token that `encrypted` made with this key for this tenant; None for anything else."""
        ...

    def is_ours(self, token: str) -> bool:
        """Whether a token was made by this key: not what somebody typed in that form."""
        ...


class Surrogates(Protocol):
    """Makes values up."""

    def candidates(self, value: str, kind: str, taken: "Taken") -> Iterable[str]:
        """A few made-up values that could stand for this one, best first, the same for the same value in one request;
        none for what it cannot make. None of them holds the value."""
        ...


class Taken(Protocol):
    """What is known of a request's surrogates."""

    def part(self, word: str) -> str | None:
        """What stands for this part of a name already."""
        ...
