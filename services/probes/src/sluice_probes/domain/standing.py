"""What is known of every tenant: the newest round of each key, for a round tries the policies of one tenant only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sluice_probes.domain.findings import CHAT_ROUTES, INPUT_MODERATION, ROUTES, Finding, State, guards_of
from sluice_probes.domain.round import Round

NO_KEY = ""
NOT_TRIED_YET = "NOT_TRIED_YET"
MOST_STANDING = 200
"""Of a key, of aliases whose turn it was not: fifty on each chat route. With a hundred keys the report is some 2 MB; a gRPC message may have 4."""


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
        self._aliases: dict[str, _Aliases] = {}

    def take(self, result: Round, key_ids: Collection[str], *, left_out: str = "") -> None:
        """A round that ended; `key_ids` are all that are used now. Where there is none, what was found stands: a file that is gone is no proof.

        `left_out` is the first key for which there is no room: that nothing is known of its tenant must not pass for all is well.
        """
        aliases = self._aliases.setdefault(result.key_id, _Aliases())
        before = self._newest.get(result.key_id, ())
        self._newest[result.key_id] = (*_unproved(result.findings, before), *aliases.take(result, before))
        if not key_ids:
            return
        self._aliases = {key_id: known for key_id, known in self._aliases.items() if key_id in key_ids}
        self._newest = {key_id: found for key_id, found in self._newest.items() if key_id in key_ids}
        for key_id in key_ids:
            self._newest.setdefault(key_id, nothing_tried(self._model, NOT_TRIED_YET))
        if left_out:
            self._newest[left_out] = nothing_tried(self._model, "TOO_MANY_KEYS")

    def known(self) -> list[Known]:
        """Every finding that stands, by key."""
        return [Known(key_id, finding) for key_id, found in sorted(self._newest.items()) for finding in found]


class _Aliases:
    """Other aliases, of which a round tries only some: what stands of those whose turn it was not."""

    def __init__(self) -> None:
        self._listed: frozenset[str] = frozenset()
        self._tried: frozenset[str] = frozenset()

    def take(self, result: Round, before: Sequence[Finding]) -> list[Finding]:
        """Alarms of before, and that an alias was not tried yet; the alarms first, and so many at most."""
        if result.others is not None:
            self._listed = frozenset(result.others)
        self._tried = (self._tried | set(result.tried)) & self._listed
        still = self._listed - set(result.tried)
        alarms = [each for each in before if each.model in still and each.state is State.UNGUARDED]
        waiting = [
            Finding(route, INPUT_MODERATION, alias, State.UNTESTED, NOT_TRIED_YET)
            for alias in sorted(self._listed - self._tried)
            for route in CHAT_ROUTES
        ]
        return [*alarms, *waiting][:MOST_STANDING]


def _unproved(found: Sequence[Finding], before: Sequence[Finding]) -> list[Finding]:
    """A route that was unguarded and is away now is no safer for it: the alarm stands until it answers again."""
    alarms = {(each.route, each.guard, each.model): each for each in before if each.state is State.UNGUARDED}
    return [
        alarms.get((each.route, each.guard, each.model), each) if each.state is State.UNAVAILABLE else each
        for each in found
    ]


def nothing_tried(model: str, reason: str) -> tuple[Finding, ...]:
    """A finding for every guard of every route, that says why nothing is known of it."""
    return tuple(Finding(route, guard, model, State.UNTESTED, reason) for route in ROUTES for guard in guards_of(route))
