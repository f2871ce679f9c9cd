"""Scores of windows that were seen before: system prompts and templates come with every request."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from sluice_moderation.adapters import metrics
from sluice_moderation.domain.panel import WindowScores, joined

_Row = WindowScores  # of one window


class ScoreCache:
    """The last `windows` scores, by a keyed hash of tenant, detectors and text.

    It holds scores only. The key is random and dies with the process, so that nobody who reads its memory can try texts; the tenant
    is part of the hash, so that nobody can learn from the time an answer takes what another tenant has sent.
    """

    def __init__(self, windows: int) -> None:
        self._most = windows
        self._secret = secrets.token_bytes(32)
        self._rows: OrderedDict[bytes, _Row] = OrderedDict()

    def keys(self, windows: Sequence[str], *, tenant_id: str, detectors: Sequence[str]) -> list[bytes]:
        """The key of each window; `detectors` are the digests of those that run."""
        about = hashlib.blake2b("\0".join((tenant_id, *detectors, "")).encode(), key=self._secret, digest_size=16)
        found = []
        for window in windows:
            one = about.copy()
            one.update(window.encode("utf-8", "surrogatepass"))
            found.append(one.digest())
        return found

    def find(self, keys: Sequence[bytes]) -> list[_Row | None]:
        """What is known, in the order of the keys."""
        found = []
        for key in keys:
            row = self._rows.get(key)
            if row is not None:
                self._rows.move_to_end(key)
            found.append(row)
        known = sum(row is not None for row in found)
        metrics.CACHED.labels("hit").inc(known)
        metrics.CACHED.labels("miss").inc(len(found) - known)
        return found

    def keep(self, keys: Sequence[bytes], scored: WindowScores) -> None:
        """Remember scores; those of a detector that failed are not worth it."""
        if scored.failed or not self._most:
            return
        for row, key in enumerate(keys):
            self._rows[key] = WindowScores(
                np.array(scored.scores[row : row + 1]), {}, np.array(scored.views[row : row + 1])
            )
        while len(self._rows) > self._most:
            self._rows.popitem(last=False)


def merged(known: Sequence[_Row | None], fresh: WindowScores) -> WindowScores:
    """Known and new scores in the order of the windows."""
    if len(fresh.scores) == len(known):
        return fresh
    rows, at = [], 0
    for row in known:
        if row is None:
            rows.append(fresh.part(at, at + 1))
            at += 1
        else:
            rows.append(row)
    found = joined(rows)
    return WindowScores(found.scores, dict(fresh.failed), found.views)
