"""The file of the self-tests' keys: which are used, and what of it is not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Gauge
from sluice_kit.telemetry import logger

log = logger(__name__)

MOST_KEYS = 100
"""A round tries one key, and takes half a minute: with so many a tenant is tried once an hour, and the report has some 3,000 checks."""
KEYS = Gauge(
    "sluice_probes_keys",
    "Keys in the file: `used`; `too_many`, for which nothing is tried; `malformed`, words that have no key's form.",
    ("state",),
)
_KEY = re.compile(r"^sk-sluice-([a-z0-9][a-z0-9-]{0,30})-[0-9a-f]{64}$")


@dataclass(frozen=True)
class KeyFile:
    """What a file holds."""

    used: tuple[str, ...] = ()
    too_many: tuple[str, ...] = ()
    malformed: int = 0

    @property
    def ids(self) -> list[str]:
        """Of the keys that are used, in their order."""
        return [key_id(key) for key in self.used]

    @property
    def first_left_out(self) -> str:
        """Id of the first for which there is no room; empty where there is room for all."""
        return key_id(self.too_many[0]) if self.too_many else ""


class KeyReader:
    """Reads the file anew each time, and tells of what is not used: at the first time, and whenever it is another number."""

    def __init__(self, path: Path) -> None:
        self._path, self._told = path, (0, 0)

    def read(self) -> KeyFile:
        """The keys; none where there is no file, or nothing in it that has a key's form."""
        try:
            found = _keys(self._path.read_text(encoding="ascii"))
        except (OSError, UnicodeDecodeError) as error:
            log.warning("probes.key_file_unreadable", file=str(self._path), error=type(error).__name__)
            found = KeyFile()
        for state, count in (
            ("used", len(found.used)),
            ("too_many", len(found.too_many)),
            ("malformed", found.malformed),
        ):
            KEYS.labels(state).set(count)
        self._tell(found)
        return found

    def _tell(self, found: KeyFile) -> None:
        not_used = (len(found.too_many), found.malformed)
        if not_used != self._told and any(not_used):
            # Never what stands there: it may be a key with a slip in it.
            log.warning(
                "probes.keys_not_used",
                file=str(self._path),
                too_many=len(found.too_many),
                most=MOST_KEYS,
                malformed=found.malformed,
            )
        self._told = not_used


def _keys(text: str) -> KeyFile:
    words = dict.fromkeys(text.split())
    keys = [word for word in words if _KEY.match(word)]
    return KeyFile(tuple(keys[:MOST_KEYS]), tuple(keys[MOST_KEYS:]), len(words) - len(keys))


def key_id(key: str) -> str:
    """Its public part."""
    return _KEY.sub(r"\1", key)
