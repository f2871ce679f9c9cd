"""What a key store does, in the shape of a key management service: keys have names and versions, and wrap the secrets of others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class KeyStoreUnavailable(Exception):
    """The store cannot be asked now, or is not there at all; the message says what to do. Another time may succeed."""


class KeyDestroyed(Exception):
    """The version was destroyed on purpose: what it wrapped cannot be had again."""


class WrongKey(Exception):
    """The store has no such key, or what is to be unwrapped was not wrapped by it in this context."""


@dataclass(frozen=True, slots=True)
class WrappedSecret:
    """A secret that only the key of this version gives back."""

    version: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Destruction:
    """What `destroy` did: the versions it destroyed, and those that were destroyed before."""

    now: tuple[int, ...]
    before: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key as it stands; `current` is 0 when every version is destroyed."""

    name: str
    current: int
    destroyed: tuple[int, ...]
    created_at: float
    """When its oldest version was made, in Unix seconds."""


class KeyStore(Protocol):
    """Every method blocks, and raises KeyStoreUnavailable when the store cannot be asked. Safe for several threads and processes."""

    @property
    def id(self) -> str:
        """Names the store: what one has wrapped no other can unwrap."""

    def create_key(self, name: str) -> int:
        """The version that wraps now; made where there is none, or where all are destroyed."""

    def wrap(self, name: str, secret: bytes, context: bytes) -> WrappedSecret:
        """Wrap a short secret with the key's current version, bound to a context. Makes the key where there is none."""

    def unwrap(self, name: str, wrapped: WrappedSecret, context: bytes) -> bytes:
        """The secret. Raises KeyDestroyed, WrongKey."""

    def rotate(self, name: str) -> int:
        """Make a new version that wraps from now on; the older ones still unwrap. Returns it."""

    def destroy(self, name: str) -> Destruction:
        """Destroy every version there is, for ever. A version number is never given out twice."""

    def describe(self, name: str) -> KeyState | None:
        """The key; None when there never was one."""

    def names(self, prefix: str = "") -> Sequence[str]:
        """Names of all keys that begin so, also of those that are destroyed; in order."""
