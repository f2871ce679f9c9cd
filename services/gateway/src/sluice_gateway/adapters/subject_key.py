"""The secret of this installation under which persons get their pseudonyms."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

KEY_BYTES = 32


def load_or_make(path: Path) -> bytes:
    """The key in `path`, made if there is none; readable by its owner only. ValueError when it is not a key.

    Losing it means that the same person gets a new pseudonym; nothing else depends on it.
    """
    if not path.exists():
        _make(path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} does not hold a key of {KEY_BYTES} bytes; remove it to have a new one made.")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
    # Linked under its name only when it is whole: of two gateways that start at once one wins, and both read its key.
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
