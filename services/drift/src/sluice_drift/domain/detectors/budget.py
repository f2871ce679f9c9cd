"""A false-alarm rate over a day, spent evenly on the windows of the day."""

from __future__ import annotations

_DAY = 86_400


def rate_of_a_window(rate_of_a_day: float, *, window_seconds: int) -> float:
    """Rate of each window with which the chance of *any* false alarm of a series in 24 hours is at most `rate_of_a_day`.

    Bonferroni's inequality, which needs no independence: all windows of a day share one reference, and an unlucky one makes
    them alarm together. Rules such as "three of the last four" assume independence, which is not there.
    """
    windows = max(1, -(-_DAY // window_seconds))
    return rate_of_a_day / windows
