"""One series in one window."""

from __future__ import annotations

from dataclasses import dataclass, field

from sluice_drift.domain.observation import Observation, Series
from sluice_drift.domain.reference import series_key
from sluice_drift.domain.sample import TextSample

MARKS_KEPT = 4096
"""An outbox sends at most its last 1,000 events again; so many marks of a window know the copies of four producers that die at once."""


@dataclass(slots=True)
class DriftWindow:
    """Observations of a window, and the highest offset merged by source partition. Times in microseconds."""

    series: Series
    start: int
    length: int
    partition: int
    reference_version: int = 1
    revision: int = 0
    collected: int = 0
    """Observations that went into the reference."""
    offsets: dict[int, int] = field(default_factory=dict)
    prompt: TextSample = field(default_factory=TextSample)
    answer: TextSample = field(default_factory=TextSample)
    marks: dict[int, int] = field(default_factory=dict)
    """Offset by mark of the newest observations, oldest first; of none when it is final."""
    request: TextSample = field(default_factory=TextSample)
    final: bool = False
    """Published for the last time, and kept only because later windows are compared with it: what comes now is too late."""

    @property
    def end(self) -> int:
        """Moment after the last."""
        return self.start + self.length

    @property
    def identity(self) -> tuple[Series, int]:
        """What tells it apart within its partition."""
        return self.series, self.start

    @property
    def key(self) -> str:
        """What tells it apart everywhere."""
        return f"drift|{series_key(self.series)}|{self.start}|{self.length}|{self.partition}"

    @property
    def observations(self) -> int:
        """All observations of the window."""
        return self.collected + max(self.prompt.observations, self.answer.observations)

    def knows_elsewhere(self, observation: Observation) -> bool:
        """True for a second copy of an observation that was counted: its producer sent the event twice."""
        return self.marks.get(observation.mark, observation.offset) != observation.offset

    def merge(self, observation: Observation, *, collected: bool, reference_version: int) -> bool:
        """Count an observation; False when it was counted before."""
        if observation.offset <= self.offsets.get(observation.source_partition, -1):
            return False
        self.offsets[observation.source_partition] = observation.offset
        self.revision += 1
        self._remember(observation)
        if reference_version != self.reference_version:
            self.reference_version = reference_version
            self.prompt, self.answer, self.request = TextSample(), TextSample(), TextSample()
        if collected:
            self.collected += not observation.request
        else:
            self.prompt.add(observation.prompt, observation.slices)
            self.answer.add(observation.answer, observation.slices)
            self.request.add(observation.request, observation.slices)
        return True

    def _remember(self, observation: Observation) -> None:
        if observation.mark:
            self.marks[observation.mark] = observation.offset
            if len(self.marks) > MARKS_KEPT:
                del self.marks[next(iter(self.marks))]
