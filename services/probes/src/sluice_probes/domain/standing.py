"""What is known of every tenant: the newest round of each key, for a round tries the policies of one tenant only."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sluice_probes.domain.findings import ROUTES, Finding, State, guards_of
from sluice_probes.domain.round import Round

NO_KEY = ""


@dataclass(frozen=True)
class Known:
    """A finding, and the id of the key by which it was made."""

    key_id: str
    finding: Finding


class Standing:
    """Keeps a finding until its own key says otherwise: another tenant's round is no news of this one."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._newest: dict[str, tuple[Finding, ...]] = {}

    def take(self, result: Round, key_ids: Collection[str], *, left_out: str = "") -> None:
        """A round that ended; `key_ids` are all that are used now. Where there is none, what was found stands: a file that is gone is no proof.

        `left_out` is the first key for which there is no room: that nothing is known of its tenant must not pass for all is well.
        """
        self._newest[result.key_id] = result.findings
        if not key_ids:
            return
        self._newest = {key_id: found for key_id, found in self._newest.items() if key_id in key_ids}
        for key_id in key_ids:
            self._newest.setdefault(key_id, nothing_tried(self._model, "NOT_TRIED_YET"))
        if left_out:
            self._newest[left_out] = nothing_tried(self._model, "TOO_MANY_KEYS")

    def known(self) -> list[Known]:
        """Every finding that stands, by key."""
        return [Known(key_id, finding) for key_id, found in sorted(self._newest.items()) for finding in found]


def nothing_tried(model: str, reason: str) -> tuple[Finding, ...]:
    """A finding for every guard of every route, that says why nothing is known of it."""
    return tuple(Finding(route, guard, model, State.UNTESTED, reason) for route in ROUTES for guard in guards_of(route))
