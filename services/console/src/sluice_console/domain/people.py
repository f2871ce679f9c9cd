"""Who signs in: keys by their hash, and what a role may do."""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass


class Role(enum.StrEnum):
    """What somebody may do; each may do what the ones before it may."""

    AUDITOR = "auditor"
    """Sees everything, changes nothing."""
    REVIEWER = "reviewer"
    """Decides what waits for a review."""
    OPERATOR = "operator"
    """Acts on alerts, too."""

    def includes(self, other: Role) -> bool:
        """Whether this role may do what the other may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Person:
    """Who is signed in."""

    id: str
    role: Role
    tenant_id: str = ""
    """The only tenant this person sees; empty means all of them."""

    def may(self, role: Role) -> bool:
        """Whether this person may do what the role may."""
        return self.role.includes(role)


@dataclass(frozen=True, slots=True)
class ConsoleKey:
    """A key as it is kept: never the key, only its digest."""

    sha256: str
    person: Person


class Keyring:
    """Finds who a key belongs to."""

    def __init__(self, keys: Iterable[ConsoleKey]) -> None:
        self._keys = tuple(keys)

    def person(self, key: str) -> Person | None:
        """The person whose key this is, or None. Every key is compared, in constant time: how long it takes tells nothing.

        Keys are 256 random bits (the file says so): a plain digest of one cannot be guessed, as that of a password could.
        """
        digest = hashlib.sha256(key.encode()).hexdigest()
        found = [one.person for one in self._keys if hmac.compare_digest(one.sha256, digest)]
        return found[0] if found else None

    def holds(self, person: Person) -> bool:
        """Whether a key of this person, with this role and tenant, is still in force."""
        return any(one.person == person for one in self._keys)
