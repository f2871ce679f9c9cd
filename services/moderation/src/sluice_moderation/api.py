"""ModerationService over gRPC: proto to domain and back, evidence kept and published on the way."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from sluice.events.v1 import moderation_pb2 as events
from sluice.moderation.v1 import moderation_service_pb2 as pb
from sluice.moderation.v1 import moderation_service_pb2_grpc
from sluice.types.v1 import verdict_pb2
from sluice_kit import context
from sluice_kit.errors import InvalidInput, NotFound, ResourceExhausted
from sluice_kit.events import new_event_id
from sluice_kit.telemetry import logger

from sluice_moderation.adapters import metrics
from sluice_moderation.adapters.scoring import ScoringBusy, ScoringPool
from sluice_moderation.domain.detector import PROMPT_INJECTION, ExplainingDetector
from sluice_moderation.domain.gate import Gate, HeldSentence
from sluice_moderation.domain.identity import neutralise
from sluice_moderation.domain.judgement import Judgement, Panel, WindowScores
from sluice_moderation.domain.policy import Action, Direction, Policy
from sluice_moderation.domain.verdict import Contribution, Evidence, EvidenceStore, Skipped
from sluice_moderation.domain.windows import windowed

log = logger(__name__)

DEFAULT_POLICY = "general"
_DIRECTIONS = {verdict_pb2.DIRECTION_INPUT: Direction.INPUT, verdict_pb2.DIRECTION_OUTPUT: Direction.OUTPUT}
_WIRE_DIRECTIONS = {domain: wire for wire, domain in _DIRECTIONS.items()}
_ACTIONS = {
    Action.ALLOW: verdict_pb2.ACTION_ALLOW,
    Action.FLAG: verdict_pb2.ACTION_FLAG,
    Action.BLOCK: verdict_pb2.ACTION_BLOCK,
    Action.SKIPPED: verdict_pb2.ACTION_SKIPPED,
}
# Ids go into events, evidence and error messages: this shape keeps text and personal data out of them.
_SEGMENT_ID = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}")
_LANGUAGE = re.compile(r"[a-z]{2}")
_CONTRIBUTIONS = 12
_DRAIN_SECONDS = 5.0


class Publisher(Protocol):
    """Publishes events (sluice_kit.publisher.EventPublisher)."""

    async def publish(self, *events: Any) -> None: ...


@dataclass(frozen=True)
class Limits:
    """What one call may hold."""

    characters: int
    segments: int


@dataclass(frozen=True)
class _Call:
    """A call under way: what it is judged by, and what will be told of it."""

    judgement: Judgement
    detectors: frozenset[str]
    streamed: bool


class ModerationService(moderation_service_pb2_grpc.ModerationServiceServicer):
    """The servicer."""

    def __init__(
        self, *, policies: Mapping[str, Policy], panel: Panel, pool: ScoringPool, explainer: ExplainingDetector,
        evidence: EvidenceStore, publisher: Publisher, limits: Limits, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:  # fmt: skip
        self._policies, self._panel, self._pool, self._explainer = policies, panel, pool, explainer
        self._evidence, self._publisher, self._limits, self._now_ms = evidence, publisher, limits, now_ms
        self._records: set[asyncio.Task[Evidence]] = set()

    async def Moderate(self, request: pb.ModerateRequest, _: Any) -> pb.ModerateResponse:
        """Judge all segments at once."""
        begun = time.perf_counter()
        call = self._open(request, streamed=False)
        self._check_segments(request.segments)
        windows = [(segment.segment_id, list(windowed(segment.text))) for segment in request.segments]
        scored = await self._score([window for _, found in windows for window in found], call)
        start = 0
        for segment_id, found in windows:
            part = WindowScores(scored.scores[start : start + len(found)], scored.failed)
            call.judgement.add(segment_id, found, part)
            start += len(found)
        texts = [segment.text for segment in request.segments]
        evidence = await self._record(call, _Told.of(texts, time.perf_counter() - begun))
        return pb.ModerateResponse(verdict=_verdict(evidence), offending_segment_ids=evidence.offending_segment_ids)

    async def ModerateStream(
        self, request_iterator: AsyncIterator[pb.ModerateStreamRequest], _: Any
    ) -> AsyncIterator[pb.ModerateStreamResponse]:
        """Release text sentence by sentence; the verdict comes last. A caller who leaves early is recorded, too."""
        call = await self._opened(request_iterator)
        gate, told = Gate(call.judgement), _Told()
        skipped: tuple[Skipped, ...] = (Skipped("rest_of_stream", "interrupted"),)
        try:
            async for released in self._release(request_iterator, gate, call, told):
                yield pb.ModerateStreamResponse(text=released)
            skipped = ()
        finally:
            told.characters = gate.characters
            metrics.WITHHELD.inc(gate.withheld_sentences)
            # In a task of its own: a cancelled call can no longer wait, and its evidence must be kept all the same.
            record = asyncio.create_task(self._record(call, told, skipped=skipped))
            self._records.add(record)
            record.add_done_callback(self._records.discard)
        yield pb.ModerateStreamResponse(verdict=_verdict(await record))
        if gate.is_blocked:
            await _drain(request_iterator)

    async def Explain(self, request: pb.ExplainRequest, _: Any) -> pb.ExplainResponse:
        """Why something was decided; another tenant's decision is as unknown as one that never was."""
        if not request.decision_id:
            raise InvalidInput("decision_id is empty; give the id of a verdict.", field="decision_id")
        found = await self._evidence.find(request.decision_id)
        if found is None or found.tenant_id != context.current().tenant_id:
            raise NotFound("There is no such decision, or its evidence has expired.", reason="DECISION_UNKNOWN")
        return _explanation(found)

    async def ListPolicies(self, _request: pb.ListPoliciesRequest, _: Any) -> pb.ListPoliciesResponse:
        """All policies, by id."""
        return pb.ListPoliciesResponse(policies=[_policy(self._policies[name]) for name in sorted(self._policies)])

    async def finish(self) -> None:
        """Wait for records of streams whose callers have gone."""
        if self._records:
            await asyncio.wait(self._records, timeout=5)

    def _open(self, request: pb.ModerateRequest | pb.ModerateStreamOpen, *, streamed: bool) -> _Call:
        direction = _DIRECTIONS.get(request.direction)
        if direction is None:
            raise InvalidInput("direction must be DIRECTION_INPUT or DIRECTION_OUTPUT.", field="direction")
        language = request.language or "en"
        if not _LANGUAGE.fullmatch(language):
            raise InvalidInput("language must be an ISO 639-1 code such as en.", field="language")
        policy = self._policies.get(request.policy_id or DEFAULT_POLICY)
        if policy is None:
            raise NotFound(
                f"There is no such policy; known are {', '.join(sorted(self._policies))}.",
                reason="POLICY_UNKNOWN",
                field="policy_id",
            )
        return _Call(Judgement(policy, direction, language), self._panel.needed(policy.categories(direction)), streamed)

    async def _opened(self, requests: AsyncIterator[pb.ModerateStreamRequest]) -> _Call:
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("event") != "open":
            raise InvalidInput("The first message of a stream must be open.", field="event")
        return self._open(first.open, streamed=True)

    def _check_segments(self, segments: Sequence[pb.ModeratedText]) -> None:
        if not segments:
            raise InvalidInput("segments is empty; give at least one text.", field="segments")
        if len(segments) > self._limits.segments:
            raise InvalidInput(
                f"There are {len(segments)} segments; at most {self._limits.segments} are allowed.",
                field="segments",
                reason="TOO_MANY_SEGMENTS",
            )
        seen: set[str] = set()
        for i, segment in enumerate(segments):
            if not _SEGMENT_ID.fullmatch(segment.segment_id):
                raise InvalidInput(
                    "segment_id must be 1 to 128 letters, digits, or any of _ . [ ] -.",
                    field=f"segments[{i}].segment_id",
                )
            if segment.segment_id in seen:
                raise InvalidInput("segment_id must be unique in the call.", field=f"segments[{i}].segment_id")
            seen.add(segment.segment_id)
        self._check_length(sum(len(segment.text) for segment in segments), "segments")

    def _check_length(self, characters: int, field: str) -> None:
        if characters > self._limits.characters:
            raise InvalidInput(
                f"The text has {characters} characters; at most {self._limits.characters} are allowed.",
                field=field,
                reason="TEXT_TOO_LONG",
            )

    async def _release(
        self, requests: AsyncIterator[pb.ModerateStreamRequest], gate: Gate, call: _Call, told: _Told
    ) -> AsyncIterator[str]:
        """Judged text, until the end of the stream or the first block."""
        complete = False
        while not complete and not gate.is_blocked:
            message = await anext(aiter(requests), None)
            kind = message.WhichOneof("event") if message is not None else "end"
            if message is not None and kind == "text":
                self._check_length(gate.characters + len(message.text), "text")
                told.mention(message.text)
                held = gate.feed(message.text)
            elif kind == "end":
                complete, held = True, gate.finish()
            else:
                raise InvalidInput("After open, a stream takes text and then end.", field="event")
            begun = time.perf_counter()
            released = await self._settle(held, gate, call)
            told.seconds += time.perf_counter() - begun
            if released:
                yield released

    async def _settle(self, held: Sequence[HeldSentence], gate: Gate, call: _Call) -> str:
        scored = await self._score([window for sentence in held for window in sentence.windows], call)
        released, start = [], 0
        for sentence in held:
            end = start + len(sentence.windows)
            released.append(gate.settle(sentence, WindowScores(scored.scores[start:end], scored.failed)))
            start = end
        return "".join(released)

    async def _score(self, windows: Sequence[str], call: _Call) -> WindowScores:
        metrics.WINDOWS.inc(len(windows))
        try:
            return await self._pool.score(windows, call.detectors)
        except ScoringBusy:
            raise ResourceExhausted(
                "Too much text waits to be moderated; try again soon.", reason="MODERATION_BUSY", retry_after_seconds=1
            ) from None

    async def _record(self, call: _Call, told: _Told, *, skipped: Sequence[Skipped] = ()) -> Evidence:
        """Make the verdict, keep its evidence, publish the event."""
        here = context.current()
        verdict = call.judgement.verdict(new_event_id(), self._panel, skipped=skipped)
        evidence = Evidence(
            verdict=verdict, tenant_id=here.tenant_id, request_id=here.request_id, direction=call.judgement.direction,
            decided_at_ms=self._now_ms(), latency_us=round(told.seconds * 1e6), segment_count=told.segments,
            characters=told.characters, offending_segment_ids=call.judgement.offending_segment_ids,
            contributions=await self._contributions(call, verdict), method=self._explainer.method,
        )  # fmt: skip
        try:
            await self._evidence.append(evidence)
        except sqlite3.Error as error:
            # The verdict holds without its evidence; a full disk must not stop the mesh, but somebody must see it.
            metrics.LOST_EVIDENCE.inc()
            log.error("moderation.evidence_lost", decision_id=verdict.decision_id, error=type(error).__name__)
        await self._publisher.publish(_event(evidence, call, told))
        metrics.observe(evidence, streamed=call.streamed)
        return evidence

    async def _contributions(self, call: _Call, verdict: Any) -> tuple[Contribution, ...]:
        """What moved the injection score, where it reached a threshold."""
        if not any(score.category == PROMPT_INJECTION and score.is_reached for score in verdict.scores):
            return ()
        found = await asyncio.to_thread(
            self._explainer.contributions, call.judgement.injected_window, limit=_CONTRIBUTIONS
        )
        return tuple(Contribution(PROMPT_INJECTION, feature, weight) for feature, weight in found)


async def _drain(requests: AsyncIterator[pb.ModerateStreamRequest]) -> None:
    """Read and drop what a caller still sends after a blocking verdict, for a while.

    Ending the call under a caller that is writing would fail its write with "Internal error from Core" (seen with grpc 1.85),
    and it would never read the verdict.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in requests:
                pass


@dataclass
class _Told:
    """What an event tells of the texts: sizes and the identity groups they mention."""

    characters: int = 0
    segments: int = 1
    seconds: float = 0.0
    groups: tuple[str, ...] = ()
    _tail: str = ""

    @classmethod
    def of(cls, texts: Sequence[str], seconds: float) -> _Told:
        told = cls(sum(map(len, texts)), len(texts), seconds)
        told.mention("\n".join(texts))
        return told

    def mention(self, text: str) -> None:
        """Note the groups; a term may be cut between two pieces of a stream, so the last 80 characters are looked at again."""
        self.groups = tuple(sorted({*self.groups, *neutralise(self._tail + text).groups}))
        self._tail = (self._tail + text)[-80:]


def _verdict(evidence: Evidence) -> verdict_pb2.Verdict:
    verdict = evidence.verdict
    return verdict_pb2.Verdict(
        decision_id=verdict.decision_id, action=_ACTIONS[verdict.action], policy_id=verdict.policy_id,
        policy_version=verdict.policy_version,
        scores=[
            verdict_pb2.CategoryScore(category=s.category, score=s.score, threshold=s.threshold, action=_ACTIONS[s.action],
                                      detector=verdict.detectors.get(s.category, ""))
            for s in verdict.scores
        ],
        skipped=[verdict_pb2.SkippedCheck(check=s.check, reason=s.reason) for s in verdict.skipped],
        model_digests=dict(verdict.model_digests),
    )  # fmt: skip


def _event(evidence: Evidence, call: _Call, told: _Told) -> events.ContentModerated:
    return events.ContentModerated(
        direction=_WIRE_DIRECTIONS[evidence.direction], verdict=_verdict(evidence),
        offending_segment_ids=evidence.offending_segment_ids, segment_count=evidence.segment_count, characters=evidence.characters,
        latency=_duration(evidence.latency_us), identity_groups=told.groups, language=call.judgement.language, streamed=call.streamed,
    )  # fmt: skip


def _explanation(evidence: Evidence) -> pb.ExplainResponse:
    decided_at = Timestamp()
    decided_at.FromMilliseconds(evidence.decided_at_ms)
    return pb.ExplainResponse(
        verdict=_verdict(evidence), request_id=evidence.request_id, direction=_WIRE_DIRECTIONS[evidence.direction],
        decided_at=decided_at, latency=_duration(evidence.latency_us), offending_segment_ids=evidence.offending_segment_ids,
        contributions=[pb.Contribution(category=c.category, feature=c.feature, weight=c.weight) for c in evidence.contributions],
        method=evidence.method, summary=evidence.summary,
    )  # fmt: skip


def _policy(policy: Policy) -> pb.Policy:
    return pb.Policy(
        policy_id=policy.policy_id, version=policy.version, description=policy.description, fail_open=not policy.fail_closed,
        rules=[pb.PolicyRule(category=r.category, direction=_WIRE_DIRECTIONS[r.direction], threshold=r.threshold,
                             action=_ACTIONS[r.action]) for r in policy.rules],
    )  # fmt: skip


def _duration(microseconds: int) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(microseconds)
    return duration
