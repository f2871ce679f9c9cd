"""Measured times: CPU seconds a text (which neighbours on the machine disturb little), and quantiles of wall time."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Times:
    """cpu: CPU seconds a text, one value a round. wall: seconds of every text."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def run(self, work: Callable[[str], object], texts: Iterable[str]) -> None:
        begun, count = time.process_time(), 0
        for text in texts:
            started = time.perf_counter()
            work(text)
            self.wall.append(time.perf_counter() - started)
            count += 1
        self.cpu.append((time.process_time() - begun) / count)

    @property
    def cpu_ms(self) -> float:
        return 1_000 * median(self.cpu)

    @property
    def texts_per_core_second(self) -> float:
        return 1 / median(self.cpu)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def growth(costs: Sequence[tuple[int, float]]) -> float:
    """Exponent of the cost in the length over the two longest lengths: 1 is linear, 2 quadratic."""
    (short, cheap), (long, dear) = sorted(costs)[-2:]
    return math.log(dear / cheap) / math.log(long / short)
