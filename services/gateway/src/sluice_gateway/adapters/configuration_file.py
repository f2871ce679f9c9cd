"""The configuration file: read at start, and again when it changes, keeping the last good one."""

import asyncio
import signal
import time
from pathlib import Path

import yaml
from sluice_kit.telemetry import logger

from sluice_gateway.domain.configuration import Configuration, ConfigurationError, configuration_of

log = logger(__name__)
# How often the modification time is looked at: one stat call.
POLL_SECONDS = 2.0


class ConfigurationFile:
    """The configuration in force; `current` never fails once the first load has succeeded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._current = self._load()

    def current(self) -> Configuration:
        """The last good configuration."""
        return self._current

    def reload(self) -> bool:
        """Read the file again. Returns False, and keeps what is in force, when the file cannot be used."""
        try:
            self._current = self._load()
        except ConfigurationError as error:
            log.error("configuration.refused", path=str(self._path), mistakes=list(error.mistakes))
            return False
        log.info("configuration.loaded", path=str(self._path))
        return True

    async def watch(self) -> None:
        """Reload on SIGHUP, and when the file's time or size changes; runs until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.reload)
        try:
            while True:
                await asyncio.sleep(POLL_SECONDS)
                if self._changed():
                    self.reload()
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    def _changed(self) -> bool:
        try:
            stat = self._path.stat()
        except OSError:
            return False  # gone for a moment while it is replaced, or for good: what is in force stays
        return (stat.st_mtime_ns, stat.st_size) != self._stamp

    def _load(self) -> Configuration:
        try:
            stat = self._path.stat()
            self._stamp = (stat.st_mtime_ns, stat.st_size)
            document = yaml.safe_load(self._path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError([f"{self._path}: cannot be read: {error.strerror}"]) from None
        except UnicodeDecodeError:
            raise ConfigurationError([f"{self._path}: is not UTF-8"]) from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            raise ConfigurationError([f"{self._path}: is not YAML{where}"]) from None
        return configuration_of(document, created_at=time.time())
