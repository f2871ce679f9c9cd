"""Configuration in force: read again when its files change, swapped whole, and kept when the new files are bad."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from prometheus_client import Counter, Gauge

from sluice_kit.configuration import ConfigurationRefused, Mistake, SourceFile, source_files
from sluice_kit.process import describe
from sluice_kit.telemetry import logger

log = logger(__name__)

POLL_SECONDS = 1.0
RELOADS = Counter(
    "sluice_configuration_reloads_total", "Times changed configuration was read, by `loaded` or `refused`.",
    ("service", "result"),
)  # fmt: skip
INFO = Gauge(
    "sluice_configuration_info", "1 for the digest of the configuration that is in force.", ("service", "digest")
)
STALE = Gauge(
    "sluice_configuration_stale", "1 while the files hold mistakes and the last good configuration is in force.", ("service",)
)  # fmt: skip

T = TypeVar("T")
Stamps = tuple[tuple[str, int, int], ...]


class WatchedConfiguration(Generic[T]):
    """What `build` makes of the files of some folders.

    `build` gets the files in the order of the folders, each folder's by name, and raises ConfigurationRefused. It runs in
    a thread, but for the first time: a mistake at the start is raised, and the service does not start on half a configuration.
    """

    def __init__(
        self, folders: Sequence[Path], build: Callable[[tuple[SourceFile, ...]], T], *, service: str, suffix: str = ".yaml"
    ) -> None:  # fmt: skip
        self._folders, self._build, self._service, self._suffix = tuple(folders), build, service, suffix
        self._stamps = self._look()
        sources = self._sources()
        self._tried = self._digest = _digest_of(sources)
        self._current = build(sources)
        INFO.labels(service, self._digest).set(1)
        STALE.labels(service).set(0)

    @property
    def current(self) -> T:
        """What is in force. Take it once for a piece of work: the next call may give another."""
        return self._current

    @property
    def digest(self) -> str:
        """`sha256:<hex>` over the names and contents of the files in force."""
        return self._digest

    async def watch(self, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Look at the files for ever. Run it as a task and cancel it at the end."""
        seen = self._stamps
        while True:
            await asyncio.sleep(poll_seconds)
            now = self._look()
            # Read only what has not changed for one look: a file that is still being written may be valid in half.
            if now == seen and now != self._stamps:
                self._stamps = now
                await asyncio.to_thread(self.reload)
            seen = now

    def reload(self) -> bool:
        """Read the files, whether they changed or not; False when they hold mistakes and what was in force stays so."""
        try:
            sources = self._sources()
            digest = _digest_of(sources)
            if digest == self._tried:
                return digest == self._digest
            self._tried = digest
            self._swap(self._build(sources), digest)
        except ConfigurationRefused as refused:
            self._refuse(refused.mistakes)
            return False
        except Exception as error:  # a fault of the builder's must not end the watch, and not go unseen
            log.error("configuration.failed", **describe(error))
            self._refuse([Mistake(self._folders[0], 1, f"a fault of ours while reading: {type(error).__name__}")])
            return False
        return True

    def _swap(self, built: T, digest: str) -> None:
        if digest != self._digest:
            INFO.remove(self._service, self._digest)
        self._current, self._digest = built, digest
        INFO.labels(self._service, digest).set(1)
        STALE.labels(self._service).set(0)
        RELOADS.labels(self._service, "loaded").inc()
        log.info("configuration.loaded", digest=digest)

    def _refuse(self, mistakes: Sequence[Mistake]) -> None:
        self._tried = self._tried if self._tried != self._digest else ""
        STALE.labels(self._service).set(1)
        RELOADS.labels(self._service, "refused").inc()
        for mistake in mistakes:
            log.error("configuration.refused", file=str(mistake.path), line=mistake.line, reason=mistake.reason)

    def _sources(self) -> tuple[SourceFile, ...]:
        return tuple(source for folder in self._folders for source in source_files(folder, suffix=self._suffix))

    def _look(self) -> Stamps:
        return tuple(
            stamp for folder in self._folders for path in _files(folder, self._suffix) if (stamp := _stamp(path)) is not None
        )  # fmt: skip


def _files(folder: Path, suffix: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(suffix))
    except OSError:
        return []


def _stamp(path: Path) -> tuple[str, int, int] | None:
    try:
        stat = path.stat()  # follows links: a Kubernetes ConfigMap is replaced by moving one
    except OSError:
        return None
    return str(path), stat.st_mtime_ns, stat.st_size


def _digest_of(sources: Sequence[SourceFile]) -> str:
    whole = hashlib.sha256()
    for source in sources:
        whole.update(f"{source.path.name}\0{source.digest}\0".encode())
    return "sha256:" + whole.hexdigest()
