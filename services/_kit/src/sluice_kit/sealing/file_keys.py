"""A key store in a folder of this machine: keys in SQLite, each wrapped by a master key that stands in a file beside it."""

import contextlib
import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sluice_kit.sealing.keys import (
    Destruction,
    KeyDestroyed,
    KeyState,
    KeyStoreUnavailable,
    WrappedSecret,
    WrongKey,
)
from sluice_kit.sealing.master_key import (
    KEY_BYTES,
    MasterKeys,
    new_master_keys,
    overwrite,
    read_master_keys,
    sync_folder,
    write_master_keys,
)

NONCE_BYTES = 12
BUSY_SECONDS = 2.0
_SCHEMA = """
CREATE TABLE store (id TEXT NOT NULL);
CREATE TABLE key_versions (
  name TEXT NOT NULL, version INTEGER NOT NULL, wrapped BLOB, master_version INTEGER, created_at REAL NOT NULL,
  destroyed_at REAL, PRIMARY KEY (name, version)) WITHOUT ROWID;
"""


class FileKeyStore:
    """Fits KeyStore. Shared by the processes of one machine: writers take turns by a lock on the folder.

    A destroyed key's wrapped form is overwritten in the database and in SQLite's journal; its row stays, so that its number is
    never given out again. `rotate_master` besides makes any copy of it worthless that a disk may have kept.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time, make: bool = True) -> None:
        """Open the store, or `make` it where there is nothing yet. Raises KeyStoreUnavailable, also when a half of it is lost."""
        self._folder, self._clock = folder, clock
        self._database, self._master = folder / "keys.db", folder / "master.json"
        if not make and not self._database.exists() and not self._master.exists():
            raise KeyStoreUnavailable(
                f"there is none in {folder}: no text was captured yet, or SLUICE_HOME is another's."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._alone():
                self._open_or_make()
        except OSError as error:
            raise KeyStoreUnavailable(
                f"{folder} cannot be used ({error.strerror}): see to its owner and disk."
            ) from None

    @property
    def id(self) -> str:
        """Random, made with the store."""
        return self._id

    def create_key(self, name: str) -> int:
        with self._changing() as connection:
            return self._current_or_new(connection, name)

    def wrap(self, name: str, secret: bytes, context: bytes) -> WrappedSecret:
        version = self._current(name) or self.create_key(name)
        key = self._key(name, version)
        return WrappedSecret(version, _encrypt(key, secret, _bound(name, version, context)))

    def unwrap(self, name: str, wrapped: WrappedSecret, context: bytes) -> bytes:
        key = self._key(name, wrapped.version)
        return _decrypt(key, wrapped.sealed, _bound(name, wrapped.version, context))

    def rotate(self, name: str) -> int:
        with self._changing() as connection:
            return self._add(connection, name)

    def destroy(self, name: str) -> Destruction:
        with self._changing(scrub=True) as connection:
            before = _versions(connection, name, "destroyed_at IS NOT NULL")
            now = _versions(connection, name, "destroyed_at IS NULL")
            connection.execute(
                "UPDATE key_versions SET wrapped = NULL, master_version = NULL, destroyed_at = ? "
                "WHERE name = ? AND destroyed_at IS NULL",
                (self._clock(), name),
            )
        return Destruction(now, before)

    def describe(self, name: str) -> KeyState | None:
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT version, destroyed_at IS NULL, created_at FROM key_versions WHERE name = ? ORDER BY version",
                (name,),
            ).fetchall()
        if not rows:
            return None
        destroyed = tuple(version for version, is_usable, _ in rows if not is_usable)
        current = max((version for version, is_usable, _ in rows if is_usable), default=0)
        return KeyState(name, current, destroyed, rows[0][2])

    def names(self, prefix: str = "") -> Sequence[str]:
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT name FROM key_versions WHERE substr(name, 1, ?) = ? ORDER BY name",
                (len(prefix), prefix),
            )
            return [name for (name,) in rows]

    def rotate_master(self) -> int:
        """Wrap every key by a new master key and destroy the old one. Begun again after a crash it ends what it began."""
        with self._alone():
            keys = read_master_keys(self._master).with_new()
            write_master_keys(self._master, keys)
            with self._transaction() as connection:
                self._wrap_anew(connection, keys)
            self._scrub_journal()
            write_master_keys(self._master, keys.only_current())
        return keys.current

    @property
    def master_version(self) -> int:
        """The master key's version in force."""
        return self._master_keys().current

    # --- parts ---

    def _open_or_make(self) -> None:
        have_database, have_master = self._database.exists(), self._master.exists()
        # A database without any key: somebody died while the store was made.
        if not have_master and (not have_database or not self.names()):
            self._make(new_master_keys())
        elif have_database is not have_master:
            lost, left = sorted((self._database, self._master), key=Path.exists)
            raise KeyStoreUnavailable(
                f"{lost} is missing though {left.name} is there: restore it from its backup. Without it nothing that was "
                f"sealed can be read again; to begin anew, move {left.name} away."
            )
        self._id = self._master_keys().store_id

    def _make(self, keys: MasterKeys) -> None:
        draft = self._folder / ".keys.db.new"
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        connection = sqlite3.connect(draft)
        with contextlib.closing(connection), connection:
            connection.executescript(_SCHEMA)
            connection.execute("INSERT INTO store VALUES (?)", (keys.store_id,))
        # The database first: one without any key is seen as begun and not ended, a master key alone is not.
        draft.replace(self._database)
        sync_folder(self._folder)
        write_master_keys(self._master, keys)

    def _master_keys(self) -> MasterKeys:
        keys = read_master_keys(self._master)
        with self._reading() as connection:
            (store_id,) = connection.execute("SELECT id FROM store").fetchone()
        if store_id != keys.store_id:
            raise KeyStoreUnavailable(
                f"{self._master} belongs to another store than keys.db beside it: restore both from the same backup."
            )
        return keys

    def _current(self, name: str) -> int:
        with self._reading() as connection:
            return max(_versions(connection, name, "destroyed_at IS NULL"), default=0)

    def _current_or_new(self, connection: sqlite3.Connection, name: str) -> int:
        return max(_versions(connection, name, "destroyed_at IS NULL"), default=0) or self._add(connection, name)

    def _add(self, connection: sqlite3.Connection, name: str) -> int:
        master = read_master_keys(self._master)
        version = max(_versions(connection, name, "TRUE"), default=0) + 1
        wrapped = _encrypt(
            master.versions[master.current], secrets.token_bytes(KEY_BYTES), _bound(name, version, b"master")
        )
        connection.execute(
            "INSERT INTO key_versions VALUES (?, ?, ?, ?, ?, NULL)",
            (name, version, wrapped, master.current, self._clock()),
        )
        return version

    def _key(self, name: str, version: int) -> bytes:
        for _ in range(2):  # the master key may be rotated between a look at the one file and at the other
            wrapped, master_version = self._row(name, version)
            master = self._master_keys().versions.get(master_version)
            if master is not None:
                return _decrypt(master, wrapped, _bound(name, version, b"master"))
        raise KeyStoreUnavailable(
            f"{self._master} lacks version {master_version} of the master key: restore both files from one backup."
        )

    def _row(self, name: str, version: int) -> tuple[bytes, int]:
        with self._reading() as connection:
            row = connection.execute(
                "SELECT wrapped, master_version FROM key_versions WHERE name = ? AND version = ?", (name, version)
            ).fetchone()
        if row is None:
            raise WrongKey(f"key store {self._id} has no version {version} of this key")
        if row[0] is None:
            raise KeyDestroyed
        return row[0], row[1]

    def _wrap_anew(self, connection: sqlite3.Connection, keys: MasterKeys) -> None:
        rows = connection.execute(
            "SELECT name, version, wrapped, master_version FROM key_versions WHERE wrapped IS NOT NULL AND master_version <> ?",
            (keys.current,),
        ).fetchall()
        for name, version, wrapped, master_version in rows:
            bound = _bound(name, version, b"master")
            key = _decrypt(keys.versions[master_version], wrapped, bound)
            connection.execute(
                "UPDATE key_versions SET wrapped = ?, master_version = ? WHERE name = ? AND version = ?",
                (_encrypt(keys.versions[keys.current], key, bound), keys.current, name, version),
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One writer at a time, over threads and processes."""
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _changing(self, *, scrub: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            with self._alone():
                with self._transaction() as connection:
                    yield connection
                if scrub:
                    self._scrub_journal()
        except OSError as error:
            raise KeyStoreUnavailable(f"{self._folder} cannot be written ({error.strerror}).") from None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for every call: whoever is asked seldom need not notice that a file was put in place anew."""
        try:
            connection = sqlite3.connect(
                f"file:{self._database}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None
            )
            with contextlib.closing(connection):
                connection.executescript(
                    "PRAGMA journal_mode=PERSIST; PRAGMA synchronous=FULL; PRAGMA secure_delete=ON;"
                )
                yield connection
        except sqlite3.Error as error:
            raise KeyStoreUnavailable(
                f"{self._database} cannot be used ({error}): see to the disk, or restore it from its backup."
            ) from None

    def _scrub_journal(self) -> None:
        # SQLite leaves the page as it was, with the wrapped key, in the journal; under the lock nobody else writes there.
        journal = self._database.with_name(f"{self._database.name}-journal")
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(journal, os.O_RDWR)
            try:
                overwrite(descriptor)
            finally:
                os.close(descriptor)


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise KeyStoreUnavailable("another process holds the lock of the key store: try again.") from None
            time.sleep(0.002)


def _versions(connection: sqlite3.Connection, name: str, condition: str) -> tuple[int, ...]:
    query = f"SELECT version FROM key_versions WHERE name = ? AND {condition} ORDER BY version"  # noqa: S608 - no outside text
    return tuple(version for (version,) in connection.execute(query, (name,)))


def _bound(name: str, version: int, context: bytes) -> bytes:
    return f"{name}@{version}\0".encode() + context


def _encrypt(key: bytes, secret: bytes, bound: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, bound)


def _decrypt(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        raise WrongKey("it was not wrapped by this key in this context") from None
