"""A file that remembers over whom no budget stood, so that a restart while the cost service is away harms nobody without one."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from sluice_kit.telemetry import logger

from sluice_gateway.domain.budgets import Caller

log = logger(__name__)
# Callers are keys times models, and no persons: more than this is no gateway's configuration.
MOST_ENTRIES = 10_000


class KnownUnbudgeted:
    """Fits `Memory`. Written when an answer changes, and to refresh the time of an old one; read once."""

    def __init__(self, path: Path, *, stale_seconds: float, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells Unix seconds. A file that cannot be read is no knowledge, and no reason not to start."""
        self._path, self._stale_seconds, self._clock = path, stale_seconds, clock
        self._known: dict[str, float] = self._read()

    def is_unbudgeted(self, caller: Caller) -> bool:
        return self._clock() < self._known.get(_name(caller), float("-inf")) + self._stale_seconds

    def note(self, caller: Caller, *, unbudgeted: bool) -> None:
        name, now = _name(caller), self._clock()
        if unbudgeted:
            if now < self._known.get(name, float("-inf")) + self._stale_seconds / 24:
                return
            if len(self._known) < MOST_ENTRIES or name in self._known:
                self._known[name] = now
        elif self._known.pop(name, None) is None:
            return
        self._write()

    def _read(self) -> dict[str, float]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(name): float(at) for name, at in known.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError):
            log.warning("budgets.memory_unreadable", path=str(self._path))
            return {}

    def _write(self) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(self._known), encoding="utf-8")
            os.replace(fresh, self._path)
        except OSError:
            log.warning("budgets.memory_unwritable", path=str(self._path))


def _name(caller: Caller) -> str:
    return "/".join((caller.tenant_id, caller.project_id, caller.api_key_id, caller.model))
