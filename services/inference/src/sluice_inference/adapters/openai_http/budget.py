"""Bounds retries by the requests that were made, so that an upstream in trouble is not buried under them."""

from __future__ import annotations


class RetryBudget:
    """Every request saves `ratio` of a retry, up to `burst`; a retry costs one."""

    def __init__(self, *, ratio: float, burst: int) -> None:
        self._ratio, self._burst = ratio, burst
        self._saved = float(burst)

    def request(self) -> None:
        self._saved = min(float(self._burst), self._saved + self._ratio)

    def take(self) -> bool:
        """True when a retry may be made; it is then paid for."""
        if self._saved < 1.0 - 1e-9:  # ten times a tenth is a little less than one
            return False
        self._saved -= 1.0
        return True
