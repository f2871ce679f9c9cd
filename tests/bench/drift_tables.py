"""Cells of the tables of drift detectors."""

from __future__ import annotations

from math import sqrt

import numpy as np
from drift_streams import ONSET


def wilson(hits: int, n: int) -> str:
    """`rate % (low-high)`, 95 %."""
    p, z = hits / n, 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{100 * p:.1f} ({100 * max(0, middle - half):.1f}-{100 * min(1, middle + half):.1f})"


def found(streams: list[np.ndarray]) -> str:
    """Streams with an alarm since ONSET, and the median delay in windows (1: at once)."""
    first = [int(np.argmax(each[ONSET:])) + 1 for each in streams if each[ONSET:].any()]
    return f"{len(first)}; {np.median(first):.0f}" if first else "0"
