"""Findings of texts seen before: system prompts and documents come again with every request of a conversation.

What is kept is where something was found and of what kind, under a keyed hash of the text with a key that lives and dies
with the process: neither texts nor values can be had from it. A hit is what the detector would say, because the
detector depends on nothing but the text and the kinds, both of which are in the key.
"""

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable

from sluice_redaction.domain.findings import Finding

from .listed import Listed, ListedDetector

# Shorter texts cost less than they would push out, and pieces of streams hardly ever come twice.
SHORTEST = 256  # characters
_BYTES_A_FINDING, _BYTES_AN_ENTRY = 160, 200  # by sys.getsizeof, rounded up


class FindingsCache:
    """Least recently used goes first; bounded by entries and by bytes (estimated). Safe between threads."""

    def __init__(self, *, entries: int = 4_096, size: int = 8 * 2**20) -> None:
        self._most_entries, self._most_bytes = entries, size
        # A hit is faster than a miss, so who can measure that well could tell whether a text was seen before: of whole
        # texts of 256 characters and more, and only until the process ends.
        self._key = secrets.token_bytes(32)
        self._kept: OrderedDict[bytes, tuple[Finding, ...]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def key(self, text: str, kinds: frozenset[str]) -> bytes:
        """Length first, so that no text and list of kinds can be taken for others."""
        digest = hashlib.blake2b(key=self._key, digest_size=32)
        digest.update(f"{len(text)}:{','.join(sorted(kinds))}:".encode())
        digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def get(self, key: bytes) -> tuple[Finding, ...] | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def put(self, key: bytes, findings: tuple[Finding, ...]) -> None:
        with self._lock:
            self._drop(key)
            self._kept[key] = findings
            self._bytes += _weight(findings)
            while self._kept and (len(self._kept) > self._most_entries or self._bytes > self._most_bytes):
                self._drop(next(iter(self._kept)))

    def _drop(self, key: bytes) -> None:
        old = self._kept.pop(key, None)
        if old is not None:
            self._bytes -= _weight(old)


class RememberingDetector:
    """Fits `domain.findings.Detector`: asks the cache before the detector."""

    def __init__(self, detector: ListedDetector, cache: FindingsCache) -> None:
        self._detector, self._cache = detector, cache

    def detect(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        if len(text) < SHORTEST:
            return self._detector.detect(text, kinds)
        key = self._cache.key(text, kinds)
        found = self._cache.get(key)
        if found is None:
            found = tuple(self._detector.detect(text, kinds))
            self._cache.put(key, found)
        return found

    def detect_patterns(self, text: str, kinds: frozenset[str]) -> Iterable[Finding]:
        """Not kept: only short stretches around a disguise are asked about."""
        return self._detector.detect_patterns(text, kinds)

    def listed(self) -> list[Listed]:
        """The detector's."""
        return self._detector.listed()


def _weight(findings: tuple[Finding, ...]) -> int:
    return _BYTES_AN_ENTRY + _BYTES_A_FINDING * len(findings)
