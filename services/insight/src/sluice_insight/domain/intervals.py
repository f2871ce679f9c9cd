"""95 % intervals."""

from __future__ import annotations

import math

from sluice_insight.domain.sketch import Sketch

Z = 1.959963984540054
"""97.5 % point of the standard normal distribution."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Interval of a share (Wilson, 1927): honest for few trials and for shares near 0 and 1. trials > 0."""
    share = successes / trials
    spread = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    centre = share + Z * Z / (2 * trials)
    scale = 1 + Z * Z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def quantile(sketch: Sketch, q: float) -> tuple[float, float, float]:
    """A quantile and its interval, by order statistics: the ranks n q -+ z sqrt(n q (1 - q)) whatever the distribution."""
    last = sketch.count - 1
    rank = q * last
    margin = Z * math.sqrt(sketch.count * q * (1 - q))
    lower, upper = max(0.0, math.floor(rank - margin)), min(float(last), math.ceil(rank + margin))
    return sketch.at_rank(rank), sketch.at_rank(lower), sketch.at_rank(upper)
