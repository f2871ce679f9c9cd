"""Seals texts with data keys that the key store wraps, and opens them again: envelope encryption by AES-256-GCM."""

import asyncio
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message
from prometheus_client import Counter, Histogram
from sluice.types.v1.encrypted_text_pb2 import EncryptedText

from sluice_kit.sealing.keys import KeyDestroyed, KeyStore, KeyStoreUnavailable, WrappedSecret, WrongKey

SEALED = Counter("sluice_texts_sealed_total", "Texts that were encrypted.")
LEFT_OUT = Counter("sluice_texts_left_out_total", "Texts that were to be captured and were not.", ("reason",))
KEY_STORE_SECONDS = Histogram(
    "sluice_key_store_seconds",
    "Time a new data key took to be wrapped.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)

ALGORITHM = "AES-256-GCM"
BINDING = 1
NONCE_BYTES = 12
KEEP_SECONDS = 30.0
"""How long a data key may be used again: an erasure is complete in every process after at most so long."""
KEEP_AT_MOST = 10_000
# NIST SP 800-38D allows 2^32 random nonces a key; a data key sees far fewer.
USES_AT_MOST = 1_000_000
AWAY_SECONDS = 2.0


class TextErased(Exception):
    """A key of the text was destroyed: nobody can read it any more."""


class TextUnreadable(Exception):
    """The text does not open here: another key store's, moved to another place, altered, or of a newer version."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed text stands; it opens nowhere else."""

    tenant_id: str
    event_id: str
    field: str
    """Full name of the field, such as `sluice.events.v1.RequestCompleted.encrypted_prompt`."""

    @property
    def associated_data(self) -> bytes:
        """The bytes of binding 1."""
        return json.dumps(["sluice.text", BINDING, self.tenant_id, self.event_id, self.field]).encode()

    @classmethod
    def in_event(cls, event: Message, field: str) -> "Place":
        """The place of a field of an event whose metadata has its tenant and id."""
        metadata: Any = event.metadata  # type: ignore[attr-defined]
        return cls(metadata.tenant_id, metadata.event_id, event.DESCRIPTOR.fields_by_name[field].full_name)


def key_name(tenant_id: str, owner: str) -> str:
    """The name of the key of an owner: a subject's pseudonym, or what stands for one."""
    tenant = tenant_id.replace("%", "%25").replace("/", "%2F")  # or a/b of c would be a of b/c
    return f"{tenant}/{owner}"


def key_id(name: str, version: int) -> str:
    """How events name a version of a key."""
    return f"{name}@{version}"


def sealed_texts(event: Message) -> Iterator[tuple[str, EncryptedText]]:
    """The encrypted texts of an event, by the name of their field."""
    for field, value in event.ListFields():
        if isinstance(value, EncryptedText):
            yield field.name, value


class _DataKey:
    """A key of this process for the texts of some owners, with its wrapped form."""

    __slots__ = ("_aead", "_head", "_until", "_uses")

    def __init__(self, secret: bytes, head: EncryptedText, *, until: float) -> None:
        self._aead, self._head, self._until, self._uses = AESGCM(secret), head, until, 0

    def is_usable(self, now: float) -> bool:
        return now < self._until and self._uses < USES_AT_MOST

    def seal(self, text: str, place: Place) -> EncryptedText:
        self._uses += 1
        sealed = EncryptedText()
        sealed.CopyFrom(self._head)
        sealed.nonce = secrets.token_bytes(NONCE_BYTES)
        sealed.ciphertext = self._aead.encrypt(sealed.nonce, text.encode(), place.associated_data)
        return sealed


class TextSealer:
    """Seals texts. Asks the key store once an owner and half a minute; all else is a few microseconds in this process."""

    def __init__(
        self,
        open_store: Callable[[], KeyStore],
        *,
        clock: Callable[[], float] = time.monotonic,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        """`open_store` is called when the first text is sealed, and again as long as it raises KeyStoreUnavailable."""
        self._open_store, self._clock, self._keep_seconds = open_store, clock, keep_seconds
        self._store: KeyStore | None = None
        self._keys: OrderedDict[tuple[str, ...], _DataKey] = OrderedDict()
        self._lock = Lock()
        self._away: KeyStoreUnavailable | None = None
        self._away_until = 0.0

    async def seal(self, text: str, *, owners: Sequence[str], place: Place) -> EncryptedText:
        """The text, readable only while the keys of all owners exist. Raises KeyStoreUnavailable, at once while it is known to be away."""
        names = _names(owners, place)
        key = self._kept(names)
        if key is None:
            key = await asyncio.to_thread(self._new_key, names)
        return self._sealed(key, text, place)

    def seal_blocking(self, text: str, *, owners: Sequence[str], place: Place) -> EncryptedText:
        """The same, for a thread."""
        names = _names(owners, place)
        return self._sealed(self._kept(names) or self._new_key(names), text, place)

    def forget(self, tenant_id: str, owner: str) -> None:
        """Use no data key of this owner any more: it was erased."""
        gone = key_name(tenant_id, owner)
        with self._lock:
            for names in [names for names in self._keys if gone in names]:
                del self._keys[names]

    def _sealed(self, key: _DataKey, text: str, place: Place) -> EncryptedText:
        SEALED.inc()
        return key.seal(text, place)

    def _kept(self, names: tuple[str, ...]) -> _DataKey | None:
        now = self._clock()
        with self._lock:
            key = self._keys.get(names)
            if key is not None and key.is_usable(now):
                return key
            self._keys.pop(names, None)
        self._refuse_while_away()
        return None

    def _refuse_while_away(self) -> None:
        if self._away is not None and self._clock() < self._away_until:
            raise self._away

    def _new_key(self, names: tuple[str, ...]) -> _DataKey:
        self._refuse_while_away()  # it may have been found out while this waited for a thread
        try:
            with KEY_STORE_SECONDS.time():
                secret, head = self._wrapped(names)
        except KeyStoreUnavailable as error:
            self._away, self._away_until = error, self._clock() + AWAY_SECONDS
            raise
        self._away = None
        key = _DataKey(secret, head, until=self._clock() + self._keep_seconds)
        with self._lock:
            self._keys[names] = key
            while len(self._keys) > KEEP_AT_MOST:
                self._keys.popitem(last=False)
        return key

    def _wrapped(self, names: tuple[str, ...]) -> tuple[bytes, EncryptedText]:
        if self._store is None:
            self._store = self._open_store()
        secret = wrapped = secrets.token_bytes(32)
        versions = []
        for name in names:
            layer = self._store.wrap(name, wrapped, _context(names))
            wrapped = layer.sealed
            versions.append(key_id(name, layer.version))
        head = EncryptedText(
            key_ids=versions, key_store=self._store.id, wrapped_key=wrapped, algorithm=ALGORITHM, binding=BINDING
        )
        return secret, head


class TextReader:
    """Opens sealed texts. Keeps data keys as long as TextSealer does, so that reading many texts asks the store seldom."""

    def __init__(
        self,
        open_store: Callable[[], KeyStore],
        *,
        clock: Callable[[], float] = time.monotonic,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        self._open_store, self._clock, self._keep_seconds = open_store, clock, keep_seconds
        self._store: KeyStore | None = None
        self._keys: OrderedDict[bytes, tuple[AESGCM, tuple[str, ...], float]] = OrderedDict()
        self._lock = Lock()

    def open(self, sealed: EncryptedText, place: Place) -> str:
        """The text; blocks. Raises TextErased, TextUnreadable, KeyStoreUnavailable."""
        if sealed.algorithm != ALGORITHM or sealed.binding != BINDING:
            raise TextUnreadable(f"it is encrypted in a way this reader does not know ({sealed.algorithm})")
        try:
            aead = self._kept(sealed) or self._unwrapped(sealed)
            return aead.decrypt(sealed.nonce, sealed.ciphertext, place.associated_data).decode()
        except KeyDestroyed:
            raise TextErased from None
        except WrongKey as error:
            raise TextUnreadable(f"its key does not open: {error}") from None
        except (InvalidTag, ValueError):
            raise TextUnreadable("it was altered, or taken from another place") from None

    def forget(self, tenant_id: str, owner: str) -> None:
        """Keep no data key of this owner: it was erased."""
        gone = key_name(tenant_id, owner)
        with self._lock:
            for wrapped in [wrapped for wrapped, (_, names, _) in self._keys.items() if gone in names]:
                del self._keys[wrapped]

    def _kept(self, sealed: EncryptedText) -> AESGCM | None:
        with self._lock:
            aead, _, until = self._keys.get(sealed.wrapped_key, (None, (), 0.0))
        return aead if self._clock() < until else None

    def _unwrapped(self, sealed: EncryptedText) -> AESGCM:
        if self._store is None:
            self._store = self._open_store()
        if sealed.key_store != self._store.id:
            raise TextUnreadable(f"its key is in key store {sealed.key_store}; this is {self._store.id}")
        layers = [_named(told) for told in sealed.key_ids]
        names = tuple(name for name, _ in layers)
        secret = sealed.wrapped_key
        for name, version in reversed(layers):
            secret = self._store.unwrap(name, WrappedSecret(version, secret), _context(names))
        aead = AESGCM(secret)
        with self._lock:
            self._keys[sealed.wrapped_key] = (aead, names, self._clock() + self._keep_seconds)
            while len(self._keys) > KEEP_AT_MOST:
                self._keys.popitem(last=False)
        return aead


def _names(owners: Sequence[str], place: Place) -> tuple[str, ...]:
    if not owners or not all(owners):
        raise ValueError("a sealed text needs an owner: without one nobody could erase it")
    return tuple(key_name(place.tenant_id, owner) for owner in dict.fromkeys(owners))


def _named(told: str) -> tuple[str, int]:
    name, _, version = told.rpartition("@")
    return name, int(version)


def _context(names: tuple[str, ...]) -> bytes:
    return json.dumps(["sluice.datakey", 1, *names]).encode()
