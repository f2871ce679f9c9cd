"""The key that opens the console of a mesh on one machine."""

import hashlib
import secrets
from collections.abc import Mapping

import yaml

from sluice_cli.mesh.home import Home
from sluice_cli.mesh.private_file import write_private

URL, KEY = "SLUICE_CONSOLE_URL", "SLUICE_CONSOLE_KEY"
_HEAD = "# Written by `sluice mesh up` when there was none; yours to change. Keys are hashed; the clear one is in demo.env.\n"


def key(home: Home, known: Mapping[str, str]) -> str:
    """The operator's key. Only demo.env knows it in clear; where it does not, a new one is made, and the file of keys anew."""
    file = home.console_file
    if file.exists() and known.get(KEY):
        return known[KEY]
    if file.exists():
        file.rename(file.with_suffix(".yaml.before"))
    made = f"sluice-console-{secrets.token_hex(32)}"
    digest = hashlib.sha256(made.encode()).hexdigest()
    file.parent.mkdir(mode=0o700, exist_ok=True)
    document = {"version": 1, "keys": [{"id": "demo", "sha256": digest, "role": "operator"}]}
    write_private(file, _HEAD + yaml.safe_dump(document, sort_keys=False))
    return made
