"""The series of a partition counted again, against the references that the processor pinned."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from sluice_drift.domain.observation import Observation, Series
from sluice_drift.domain.partition import Due, Partition, Rules
from sluice_drift.domain.reference import Reference
from sluice_drift.domain.sample import Counts, TextSample

CountsT = TypeVar("CountsT", bound=Counts)
Version = tuple[Series, int]
"""A series, and the version of its reference."""


class Recount(Partition):
    """A partition that takes a pinned reference as it is, and shows that its observations are those of the log.

    Which observations are the first of a series depends on how its source partitions came together at the processor. Each
    reference says which they were (the highest offset of every source partition, of those after a command the lowest too), and with
    that everything else follows from the observations alone. References that are not pinned are collected anew. Where the log is `partial`, a series
    begins with the reference that it has now.
    """

    def __init__(
        self, partition: int, rules: Rules, *, pinned: Mapping[Version, Reference], partial: bool, now: int
    ) -> None:
        super().__init__(partition, rules, now=now)
        self._pinned = pinned
        self._present = {series: self._first_of(series) for series, _ in pinned} if partial else {}
        self.versions: dict[Version, Reference] = {}
        """Every version that began."""
        self._found: dict[Version, Reference] = {}

    def absorb_one(self, observation: Observation, *, now: int) -> None:
        """Merge one, and collect it a second time where it belongs to a pinned reference."""
        repeated = self.dropped["repeated"]
        self.absorb([observation], now=now)
        if self.dropped["repeated"] > repeated:
            return
        reference = self._versions[observation.series].current
        model = observation.embedding_model
        if model and reference.embedding_model and model != reference.embedding_model:
            return  # of a model that was replaced: it counts nowhere
        for each in self._versions[observation.series].all:
            found = self._found.get((each.series, each.version))
            if found is not None and each.took(observation) and not found.holds(observation):
                found.add(observation, size=self._size_of(each, observation))

    def _size_of(self, reference: Reference, observation: Observation) -> int:
        if not reference.is_ready("request" if observation.request else "prompt"):
            return self._rules.reference_size
        return reference.request.observations if observation.request else reference.observations

    def due_all(self) -> list[Due]:
        """Every window against its own reference."""
        found = []
        for window in self.windows:
            reference = self.versions[window.series, window.reference_version]
            found.append(Due(window, reference, window.revision, False, 0, self._before(window)))
        return found

    def unlike(self) -> Iterable[Version]:
        """Pinned references that are not what the log holds."""
        pairs = ((version, found, self.versions[version]) for version, found in self._found.items())
        return [version for version, found, pinned in pairs if _held(found, pinned) != _held(pinned, pinned)]

    def _begin(self, reference: Reference) -> Reference:
        version = reference.series, reference.version
        pinned = self._present.get(reference.series) or self._pinned.get(version)
        if pinned is None or pinned.embedding_model != (reference.embedding_model or pinned.embedding_model):
            self.versions[version] = reference
            return super()._begin(reference)
        for each in self._line_of(pinned):  # those that commands asked for, each from its own windows on
            self.versions[each.series, each.version] = each
            self._found[each.series, each.version] = Reference(each.series, self.number, version=each.version)
            current = super()._begin(each)
        return current

    def _line_of(self, first: Reference) -> list[Reference]:
        """A pinned reference, and those that took over from it without another embedding model."""
        line = [first]
        while (after := self._pinned.get((first.series, line[-1].version + 1))) is not None and after.command:
            line.append(after)
        return line

    def _first_of(self, series: Series) -> Reference:
        """The oldest known of the embedding model that the series has now."""
        reference = self._pinned[series, max(version for whose, version in self._pinned if whose == series)]
        while reference.command and (series, reference.version - 1) in self._pinned:
            reference = self._pinned[series, reference.version - 1]
        return reference


def _held(reference: Reference, pinned: Reference) -> tuple[object, ...]:
    """What a reference holds, whatever the order in which it came, of what the pinned one was told."""
    return (
        reference.observations,
        reference.first_at,
        reference.last_at,
        reference.offsets,
        _told(reference.prompt, pinned.prompt),
        _told(reference.answer, pinned.answer),
        _told(reference.request, pinned.request),
        sorted(reference.prompt_embeddings),
        sorted(reference.answer_embeddings),
    )


def _told(sample: TextSample, pinned: TextSample) -> TextSample:
    """Without facts and slices of which the pinned one knows nothing: it is of an earlier release."""
    whole = _with_facts(sample, pinned.facts)
    whole.slices = {
        dimension: {value: _with_facts(counts, pinned.facts) for value, counts in values.items()}
        for dimension, values in sample.slices.items()
        if dimension in pinned.slices
    }
    return whole


def _with_facts(counts: CountsT, names: Container[str]) -> CountsT:
    return replace(counts, facts={name: bins for name, bins in counts.facts.items() if name in names})
