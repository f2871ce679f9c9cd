"""The master key of the file key store: a small file with its versions, readable by its owner only."""

import base64
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sluice_kit.sealing.keys import KeyStoreUnavailable

KEY_BYTES = 32


@dataclass(frozen=True)
class MasterKeys:
    """The versions that are kept, of the store they belong to; the highest is in force."""

    store_id: str
    versions: Mapping[int, bytes]

    @property
    def current(self) -> int:
        """The version that wraps."""
        return max(self.versions)

    def with_new(self) -> "MasterKeys":
        """Beside these a new version, in force from now on."""
        return MasterKeys(self.store_id, {**self.versions, self.current + 1: secrets.token_bytes(KEY_BYTES)})

    def only_current(self) -> "MasterKeys":
        """Without the versions that are no longer in force."""
        return MasterKeys(self.store_id, {self.current: self.versions[self.current]})


def new_master_keys() -> MasterKeys:
    """The first version of a new store."""
    return MasterKeys(secrets.token_hex(6), {1: secrets.token_bytes(KEY_BYTES)})


def read_master_keys(path: Path) -> MasterKeys:
    """What the file holds. Raises KeyStoreUnavailable when it cannot be read or is no such file."""
    try:
        told = json.loads(path.read_bytes())
        versions = {int(version): base64.b64decode(key) for version, key in told["keys"].items()}
        if versions and all(len(key) == KEY_BYTES for key in versions.values()):
            return MasterKeys(str(told["store"]), versions)
    except OSError as error:
        raise KeyStoreUnavailable(f"{path} cannot be read ({error.strerror}): restore it from its backup.") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    raise KeyStoreUnavailable(f"{path} does not hold a master key: restore it from its backup.")


def write_master_keys(path: Path, keys: MasterKeys) -> None:
    """Replace the file whole, and overwrite what stood there before as far as the file system lets us."""
    told = {
        "store": keys.store_id,
        "keys": {str(version): base64.b64encode(key).decode() for version, key in keys.versions.items()},
    }
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(json.dumps(told).encode())
        file.flush()
        os.fsync(file.fileno())
    before = os.open(path, os.O_RDWR) if path.exists() else None
    draft.replace(path)
    sync_folder(path.parent)
    if before is not None:
        with os.fdopen(before, "r+b") as old:
            overwrite(old.fileno())


def overwrite(descriptor: int) -> None:
    """Zeros over all of an open file. A file system that copies on write, and a flash disk, may keep the old blocks."""
    os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
