"""The evidence store: survives a restart, stays bounded."""

import asyncio
import dataclasses
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sluice_kit import context
from sluice_moderation.adapters.evidence_apart import EvidenceApart
from sluice_moderation.adapters.evidence_sqlite import SqliteEvidence
from sluice_moderation.domain.policy import Action, CategoryScore, Direction
from sluice_moderation.domain.verdict import Contribution, Evidence, Offence, ShadowVerdict, Skipped, Verdict

DAY_MS = 86_400_000


def evidence(decision_id: str = "d1", *, decided_at_ms: int = 10 * DAY_MS) -> Evidence:
    return Evidence(
        verdict=Verdict(decision_id, Action.BLOCK, "general", 1, (CategoryScore("toxicity", 0.98, 0.9, Action.BLOCK),),
                        (Skipped("threat", "not_in_policy"),), {"m": "sha256:1"}, {"toxicity": "m"}),
        tenant_id="t", request_id="r", direction=Direction.INPUT, decided_at_ms=decided_at_ms, latency_us=1500, segment_count=2,
        characters=40, offending_segment_ids=("messages[0].content",),
        contributions=(Contribution("prompt_injection", "ignore", 1.5),), method="m", language="de", streamed=True,
        offences=(Offence("messages[0].content", 3, 40, 60, "toxicity", 0.98, Action.BLOCK, "folded", True),), redacted_sentences=1,
        shadows=(ShadowVerdict("d2", "on-trial", 4, Action.HOLD),), enforced_decision_id="",
    )  # fmt: skip


async def test_evidence_survives_a_restart_unchanged(tmp_path: Path) -> None:
    store = SqliteEvidence(tmp_path / "e.db", max_rows=10, max_days=5)
    await store.append(evidence())
    store.close()
    reopened = SqliteEvidence(tmp_path / "e.db", max_rows=10, max_days=5)
    assert await reopened.find("d1") == evidence()
    assert await reopened.find("d2") is None
    reopened.close()


async def test_self_tests_push_out_no_callers_evidence_and_are_explained_too(tmp_path: Path) -> None:
    store = EvidenceApart.opened(tmp_path, "0", max_rows=1_000, max_days=5)
    await store.append(evidence("a-callers"))
    with context.use(context.RequestContext(synthetic=True)):
        for number in range(1_500):
            await store.append(evidence(f"self-test-{number}"))
    store.close()
    reopened = EvidenceApart.opened(tmp_path, "0", max_rows=1_000, max_days=5)
    assert await reopened.find("a-callers") == evidence("a-callers")
    assert await reopened.find("self-test-1499") == evidence("self-test-1499")
    assert await reopened.find("self-test-0") is None
    reopened.close()


async def test_evidence_of_the_first_release_is_still_read(tmp_path: Path) -> None:
    store = SqliteEvidence(tmp_path / "e.db", max_rows=10, max_days=5)
    await store.append(evidence())
    store.close()
    verdict = {
        "decision_id": "old", "action": 4, "policy_id": "general", "policy_version": 1, "skipped": [], "model_digests": {},
        "scores": [{"category": "threat", "score": 0.7, "threshold": 0.6, "action": 4}], "detectors": {},
    }  # fmt: skip
    body = {
        "verdict": verdict, "tenant_id": "t", "request_id": "r", "direction": "input", "decided_at_ms": 1, "latency_us": 1,
        "segment_count": 1, "characters": 4, "offending_segment_ids": ["a"], "contributions": [], "method": "m",
    }  # fmt: skip
    with closing(sqlite3.connect(tmp_path / "e.db")) as database, database:
        row = ("old", 10 * DAY_MS, json.dumps(body))
        database.execute("INSERT INTO evidence (decision_id, decided_at_ms, body) VALUES (?, ?, ?)", row)
    reopened = SqliteEvidence(tmp_path / "e.db", max_rows=10, max_days=5)
    found = await reopened.find("old")
    reopened.close()
    assert found is not None
    assert (found.verdict.action, found.verdict.scores[0].action) == (Action.BLOCK, Action.BLOCK)
    assert found.summary.startswith("Blocked: threat")


async def test_many_at_once_are_all_kept(tmp_path: Path) -> None:
    store = SqliteEvidence(tmp_path / "e.db", max_rows=10_000, max_days=5)
    await asyncio.gather(*(store.append(evidence(f"d{i}")) for i in range(500)))
    assert all([await store.find(f"d{i}") for i in range(500)])
    store.close()


async def test_rows_beyond_the_limits_go(tmp_path: Path) -> None:
    store = SqliteEvidence(tmp_path / "e.db", max_rows=100, max_days=5)
    for i in range(600):
        await store.append(evidence(f"d{i}"))
    assert await store.find("d0") is None
    assert await store.find("d599") is not None
    await asyncio.gather(*(store.append(evidence(f"later{i}", decided_at_ms=20 * DAY_MS)) for i in range(300)))
    assert await store.find("d599") is None
    store.close()


def test_the_summary_says_what_reached_what_and_where() -> None:
    assert evidence().summary == (
        "Blocked: toxicity 0.980 reached 0.900 in messages[0].content (policy general version 1)."
    )
    verdict = dataclasses.replace(evidence().verdict, scores=(), action=Action.ALLOW)
    assert dataclasses.replace(evidence(), verdict=verdict).summary.startswith("Let through: no score")


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Action.FLAG, "Let through and flagged: toxicity"), (Action.HOLD, "Withheld until a person has looked: toxicity"),
        (Action.REDACT, "Let through with the offending sentences replaced: toxicity"),
    ],
)  # fmt: skip
def test_the_summary_tells_every_action(action: Action, said: str) -> None:
    score = CategoryScore("toxicity", 0.98, 0.9, action)
    verdict = dataclasses.replace(evidence().verdict, scores=(score,), action=action)
    told = dataclasses.replace(evidence(), verdict=verdict)
    assert told.summary.startswith(said)
    assert dataclasses.replace(told, enforced_decision_id="d9").summary.startswith("Not enforced (shadow policy). ")


def test_the_summary_says_when_it_was_blocked_for_want_of_a_check() -> None:
    skipped = (Skipped("toxicity", "deadline"),)
    verdict = dataclasses.replace(evidence().verdict, scores=(), skipped=skipped)
    assert "because a check could not be made (deadline)" in dataclasses.replace(evidence(), verdict=verdict).summary


async def test_whoever_waits_for_evidence_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    store = SqliteEvidence(tmp_path / "e.db", max_rows=10, max_days=5)
    unwritable = dataclasses.replace(evidence(), contributions=(object(),))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await asyncio.wait_for(store.append(unwritable), 5)
    await store.append(evidence("after"))
    store.close()
