"""Counts by group as Fairlearn's MetricFrame, from weighted rows.

Fairlearn, pandas, scikit-learn and scipy take 120 MiB and seconds to import. They are imported when the first window has two groups to
compare, so that a mesh whose texts mention nobody starts and runs without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Disparity:
    """A metric by group, with the largest difference and the smallest ratio between any two groups."""

    by_group: Mapping[str, float]
    difference: float
    ratio: float | None
    """None where it is not defined."""


def rates_by_group(counted: Mapping[str, tuple[int, int]]) -> Disparity:
    """(successes, trials > 0) by group: a row for the successes and one for the rest, each with its weight."""
    from fairlearn.metrics import selection_rate

    rows = [(group, value, weight) for group, (s, n) in counted.items() for value, weight in ((1, s), (0, n - s))]
    return _framed(selection_rate, rows)


def means_by_group(counted: Mapping[str, tuple[float, int]]) -> Disparity:
    """(mean, observations > 0) by group: one row with the mean, as heavy as its observations."""
    from fairlearn.metrics import mean_prediction

    return _framed(mean_prediction, [(group, mean, weight) for group, (mean, weight) in counted.items()])


def _framed(metric: object, rows: Sequence[tuple[str, float, int]]) -> Disparity:
    import numpy as np
    from fairlearn.metrics import MetricFrame

    groups, values, weights = zip(*rows, strict=True)
    frame = MetricFrame(
        metrics=metric,
        y_true=np.zeros(len(rows)),  # neither metric looks at it
        y_pred=np.array(values, dtype=np.float64),
        sensitive_features={"group": np.array(groups)},  # a bare array of one row is refused
        sample_params={"sample_weight": np.array(weights, dtype=np.float64)},
    )
    ratio = float(frame.ratio(method="between_groups"))
    return Disparity(
        by_group={str(group): float(value) for group, value in frame.by_group.items()},
        difference=float(frame.difference(method="between_groups")),
        ratio=ratio if np.isfinite(ratio) else None,
    )
