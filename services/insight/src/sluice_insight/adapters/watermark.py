"""Event time up to which answers are complete, by what they are about. Microseconds since 1970; 0 where nothing is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1.drift_pb2 import DriftMeasured
from sluice.events.v1.fairness_pb2 import FairnessCounted, FairnessMeasured
from sluice_kit.events import topic_of

from sluice_insight.adapters.sources import Sources
from sluice_insight.domain.board import Board

_DRIFT = frozenset({topic_of(DriftMeasured).name})
_FAIRNESS = frozenset({topic_of(FairnessCounted).name, topic_of(FairnessMeasured).name})


@dataclass(frozen=True)
class Watermark:
    """What has come in, and what is known to be missing."""

    board: Board
    sources: Sources
    judged: Callable[[], int] = lambda: 0
    """The minute up to which this instance has judged the rules."""
    now: Callable[[], float] = time.time

    def of_metrics(self) -> int:
        """Of all families: the slowest partition's, and no later than what is missing."""
        return _earlier(self.board.complete_up_to(self._microseconds()), self.sources.held_back_to())

    def of_alerts(self) -> int:
        """Rules are judged later than that where nothing new comes in, or what is missing stays away; then the values were not complete."""
        return min(self.judged(), self.of_metrics())

    def of_drift(self) -> int:
        """Of its comparisons, open windows included."""
        complete = self.board.complete_up_to(self._microseconds(), family="drift")
        return _earlier(complete, self.sources.held_back_to(_DRIFT))

    def of_fairness(self) -> int:
        """Up to the first window that is not closed: only closed ones are compared."""
        complete = self.board.complete_up_to(self._microseconds(), family="fairness")
        return _earlier(_earlier(complete, self.board.first_open("fairness")), self.sources.held_back_to(_FAIRNESS))

    def _microseconds(self) -> int:
        return int(self.now() * 1_000_000)


def stamp(microseconds: int) -> Timestamp | None:
    """As answers have it: absent where nothing is known."""
    if not microseconds:
        return None
    made = Timestamp()
    made.FromMicroseconds(microseconds)
    return made


def _earlier(complete: int, limit: int | None) -> int:
    return complete if limit is None else min(complete, limit)
