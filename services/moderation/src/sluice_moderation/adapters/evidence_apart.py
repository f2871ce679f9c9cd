"""Evidence of self-tests apart from that of callers: they come by the clock, and would push it out."""

from __future__ import annotations

from pathlib import Path

from sluice_kit import context

from sluice_moderation.adapters.evidence_sqlite import SqliteEvidence
from sluice_moderation.domain.verdict import Evidence

SELF_TESTS_SHARE = 10
"""Of the rows of callers' evidence there is room for this part beside them, for self-tests."""


class EvidenceApart:
    """EvidenceStore of two files."""

    def __init__(self, callers: SqliteEvidence, self_tests: SqliteEvidence) -> None:
        self._callers, self._self_tests = callers, self_tests

    @classmethod
    def opened(cls, folder: Path, instance: str, *, max_rows: int, max_days: int) -> EvidenceApart:
        """The files of a folder. Raises EvidenceUnavailable."""
        few = max(1, max_rows // SELF_TESTS_SHARE)
        return cls(
            SqliteEvidence(folder / f"evidence-{instance}.db", max_rows=max_rows, max_days=max_days),
            SqliteEvidence(folder / f"evidence-of-self-tests-{instance}.db", max_rows=few, max_days=max_days),
        )

    async def append(self, evidence: Evidence) -> None:
        """By the mark of the request that is decided on. Raises sqlite3.Error."""
        await (self._self_tests if context.current().synthetic else self._callers).append(evidence)

    async def find(self, decision_id: str) -> Evidence | None:
        return await self._callers.find(decision_id) or await self._self_tests.find(decision_id)

    def close(self) -> None:
        self._callers.close()
        self._self_tests.close()
