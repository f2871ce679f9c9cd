"""Keeps the evidence of each decision, and tells the mesh of it."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sluice_kit import context
from sluice_kit.context import RequestContext
from sluice_kit.errors import SluiceError
from sluice_kit.events import new_event_id
from sluice_kit.process import describe
from sluice_kit.telemetry import logger

from sluice_moderation.adapters import metrics
from sluice_moderation.api.wire import event_of
from sluice_moderation.domain.explaining import Explainer
from sluice_moderation.domain.hearing import Hearing
from sluice_moderation.domain.identity import neutralise
from sluice_moderation.domain.judgement import Judgement
from sluice_moderation.domain.policy import DENIED_TERM
from sluice_moderation.domain.verdict import Contribution, Evidence, EvidenceStore, ShadowVerdict, Skipped

log = logger(__name__)

_CONTRIBUTIONS = 12
_MOST_SEGMENT_IDS = 1000  # an event must stay far below the broker's message limit


# Letters beyond the Latin blocks (Greek begins at U+0370); digits and punctuation count as neither.
_FOREIGN_LETTER = re.compile("[^\\W\\d_\u0000-\u036f\u1e00-\u1eff\uff21-\uff5a]")


class Publisher(Protocol):
    """Publishes events (sluice_kit.publisher.EventPublisher)."""

    async def publish(self, *events: Any) -> None: ...


@dataclass
class Told:
    """What an event tells of the texts: sizes, and of what was judged the identity groups it mentions and its script."""

    streamed: bool
    characters: int = 0
    segments: int = 1
    seconds: float = 0.0
    groups: tuple[str, ...] = ()
    _tail: str = ""
    _foreign_letters: int = 0
    _latin_letters: int = 0

    def mention(self, text: str) -> None:
        """Note what was judged. A term may be cut between two sentences, so the last 80 characters are looked at again."""
        self.groups = tuple(sorted({*self.groups, *neutralise(self._tail + text).groups}))
        self._tail = (self._tail + text)[-80:]
        foreign = 0 if text.isascii() else len(_FOREIGN_LETTER.findall(text))
        self._foreign_letters += foreign
        self._latin_letters += len(text) - text.count(" ") - foreign

    @property
    def is_foreign(self) -> bool:
        """Most of the text is in another script than the Latin one."""
        return self._foreign_letters > self._latin_letters


class Recorder:
    """Makes the evidence of what was decided. The shadows' is written after the answer, by a task of its own."""

    def __init__(
        self, *, explainer: Explainer, evidence: EvidenceStore, publisher: Publisher, now_ms: Callable[[], int]
    ) -> None:
        self._explainer, self._evidence, self._publisher, self._now_ms = explainer, evidence, publisher, now_ms
        self._tasks: set[asyncio.Task[Any]] = set()

    async def record(self, hearing: Hearing, told: Told, *, skipped: Sequence[Skipped] = ()) -> Evidence:
        """The evidence of the enforced decision, kept and published; what the shadows said follows later."""
        here = context.current()
        shadows = [(judgement, new_event_id()) for judgement in hearing.shadows]
        evidence = replace(
            await self._evidence_of(hearing.enforced, new_event_id(), told, here, skipped),
            shadows=tuple(_shadow_verdict(judgement, decision_id) for judgement, decision_id in shadows),
        )
        await self._keep(evidence)
        await self._publisher.publish(event_of(evidence, identity_groups=told.groups))
        metrics.observe(evidence, streamed=told.streamed)
        if shadows:
            self.begin(self._record_shadows(shadows, evidence.verdict.decision_id, told, here, skipped))
        return evidence

    def begin(self, work: Any) -> asyncio.Task[Any]:
        """Run something that must not end with the call it belongs to."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self) -> None:
        """Wait for what is still being recorded, at most 5 s."""
        while self._tasks:
            _, late = await asyncio.wait(tuple(self._tasks), timeout=5)
            if late:
                return

    async def _record_shadows(
        self, shadows: Sequence[tuple[Judgement, str]], enforced: str, told: Told, here: RequestContext,
        skipped: Sequence[Skipped],
    ) -> None:  # fmt: skip
        """A policy on trial must not cost an answer: what goes wrong here is counted and logged."""
        for judgement, decision_id in shadows:
            try:
                evidence = await self._evidence_of(judgement, decision_id, told, here, skipped)
                evidence = replace(evidence, enforced_decision_id=enforced)
                await self._keep(evidence)
                await self._publisher.publish(event_of(evidence, identity_groups=told.groups))
            except (SluiceError, sqlite3.Error) as error:
                metrics.SHADOW_FAILURES.inc()
                log.warning("moderation.shadow_unrecorded", policy=judgement.policy.policy_id, **describe(error))

    async def _evidence_of(
        self, judgement: Judgement, decision_id: str, told: Told, here: RequestContext, skipped: Sequence[Skipped]
    ) -> Evidence:
        contributions, method = await self._contributions(judgement)
        return Evidence(
            verdict=judgement.verdict(decision_id, skipped=skipped, is_foreign=told.is_foreign),
            tenant_id=here.tenant_id,
            request_id=here.request_id,
            direction=judgement.direction,
            decided_at_ms=self._now_ms(),
            latency_us=round(told.seconds * 1e6),
            segment_count=told.segments,
            characters=told.characters,
            offending_segment_ids=judgement.offending_segment_ids[:_MOST_SEGMENT_IDS],
            contributions=contributions,
            method=method,
            language=judgement.language,
            streamed=told.streamed,
            offences=tuple(judgement.offences),
            redacted_sentences=judgement.redacted_sentences,
        )

    async def _contributions(self, judgement: Judgement) -> tuple[tuple[Contribution, ...], str]:
        """What moved the scores that reached a threshold."""
        terms = tuple(Contribution(DENIED_TERM, f"terms.deny[{place}]", 1.0) for place in judgement.denied_terms)
        reached = judgement.reached
        if not reached:
            return terms, ""
        try:
            found, method = await asyncio.to_thread(
                self._explainer.contributions, tuple(reached.items()), limit=_CONTRIBUTIONS
            )
        except Exception as error:  # the verdict stands, whatever a detector says when it is asked again
            log.error("moderation.unexplained", **describe(error))
            return terms, "none: the detector failed when it was asked what moved the score."
        return (*terms, *found), method

    async def _keep(self, evidence: Evidence) -> None:
        try:
            await self._evidence.append(evidence)
        except sqlite3.Error as error:
            # The verdict holds without its evidence; a full disk must not stop the mesh, but somebody must see it.
            metrics.LOST_EVIDENCE.inc()
            log.error("moderation.evidence_lost", decision_id=evidence.verdict.decision_id, error=type(error).__name__)


def _shadow_verdict(judgement: Judgement, decision_id: str) -> ShadowVerdict:
    policy = judgement.policy
    return ShadowVerdict(decision_id, policy.policy_id, policy.version, judgement.verdict(decision_id).action)
