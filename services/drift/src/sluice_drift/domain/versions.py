"""The references of one series, by version: the one in use, those before it, and one that a command asked for."""

from __future__ import annotations

from collections.abc import Iterable

from sluice_drift.domain.reference import Reference

VERSIONS_KEPT = 4


class Versions:
    """Newest last. A window keeps the version that was in use when it began, so that none is compared with two."""

    def __init__(self, kept: Iterable[Reference]) -> None:
        """Of a version that is kept twice (an earlier release had one key for all) the fuller one counts."""
        by_version: dict[int, Reference] = {}
        for each in sorted(kept, key=lambda one: one.observations + one.request.observations):
            by_version[each.version] = each
        ordered = [by_version[version] for version in sorted(by_version)]
        self._known = [each for each in ordered if not each.proposed] or ordered[:1]
        self.proposed = next((each for each in ordered if each.proposed), None)

    @property
    def current(self) -> Reference:
        """The one that new windows are compared with."""
        return self._known[-1]

    @property
    def all(self) -> list[Reference]:
        """Those in use and before, oldest first."""
        return self._known

    def begin(self, reference: Reference) -> list[Reference]:
        """Use another one from now on; returns what is forgotten for it."""
        self.proposed = None
        self._known = [*(each for each in self._known if each.version != reference.version), reference]
        forgotten, self._known = self._known[:-VERSIONS_KEPT], self._known[-VERSIONS_KEPT:]
        return forgotten

    def at(self, start: int) -> Reference:
        """The one for a window that begins at this moment."""
        return next((each for each in reversed(self._known) if each.since <= start), self._known[0])

    def numbered(self, version: int) -> Reference:
        """The one with this number; the current one where it is not kept."""
        return next((each for each in self._known if each.version == version), self.current)

    def knows(self, command: str) -> bool:
        """True when this command was obeyed."""
        return any(each.command == command for each in [*self._known, *([self.proposed] if self.proposed else [])])
