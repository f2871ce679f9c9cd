"""The servicer: every RPC of ModerationService."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sluice.moderation.v1 import moderation_service_pb2 as pb
from sluice.moderation.v1 import moderation_service_pb2_grpc
from sluice_kit import context
from sluice_kit.errors import InvalidInput, NotFound, ResourceExhausted
from sluice_kit.process import describe
from sluice_kit.telemetry import logger

from sluice_moderation.adapters import metrics
from sluice_moderation.adapters.scoring import ScoringBusy, ScoringPool
from sluice_moderation.api.recorder import Publisher, Recorder, Told
from sluice_moderation.api.wire import DIRECTIONS, explanation_of, policy_of, verdict_of
from sluice_moderation.domain.explaining import Explainer
from sluice_moderation.domain.gate import Gate
from sluice_moderation.domain.hearing import Hearing, released
from sluice_moderation.domain.judgement import Judgement
from sluice_moderation.domain.panel import Panel, WindowScores
from sluice_moderation.domain.policies import PolicySet
from sluice_moderation.domain.policy import Action, Direction, Policy
from sluice_moderation.domain.sentences import Sentence, Text, read
from sluice_moderation.domain.verdict import EvidenceStore, Skipped

log = logger(__name__)

# Ids go into events, evidence and error messages: this shape keeps text and personal data out of them.
_SEGMENT_ID = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}")
_WRITER = re.compile(r"[a-z_]{0,32}")
_LANGUAGE = re.compile(r"[a-z]{2}")
_DRAIN_SECONDS = 5.0
# A long text must not keep the event loop from the others: so many sentences are judged before they get a turn, and texts of
# more characters are cut in a thread.
_TURN_SENTENCES = 256
_LONG_CHARACTERS = 20_000
# Of a call's time, what is kept for judging the scores, writing the evidence and getting the answer back: checks that would need
# it are skipped. Judging takes 10 to 30 us a window (a profile on a busy machine).
RESERVED_SECONDS = 0.05
RESERVED_SECONDS_PER_WINDOW = 5e-5


@dataclass(frozen=True)
class Limits:
    """What one call may hold."""

    characters: int
    segments: int


class ModerationService(moderation_service_pb2_grpc.ModerationServiceServicer):
    """The servicer. `policies` gives those in force; a call keeps the ones it began with."""

    def __init__(
        self, *, policies: Callable[[], PolicySet], panel: Panel, pool: ScoringPool, evidence: EvidenceStore,
        publisher: Publisher, limits: Limits, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:  # fmt: skip
        self._policies, self._panel, self._pool, self._limits = policies, panel, pool, limits
        self._evidence = evidence
        self._recorder = Recorder(explainer=Explainer(panel), evidence=evidence, publisher=publisher, now_ms=now_ms)

    async def Moderate(self, request: pb.ModerateRequest, _: Any) -> pb.ModerateResponse:
        """Judge all segments at once."""
        begun = time.perf_counter()
        hearing = self._open(request)
        self._check_segments(request.segments)
        told = Told(streamed=False, segments=len(request.segments))
        told.characters = sum(len(segment.text) for segment in request.segments)
        sentences = await _read([Text(s.segment_id, s.text, s.writer) for s in request.segments], told)
        pieces: dict[str, list[str]] = {}
        replaced: dict[str, None] = {}
        for n, (sentence, scored) in enumerate(await self._scored(sentences, hearing)):
            if n % _TURN_SENTENCES == _TURN_SENTENCES - 1:
                await asyncio.sleep(0)
            outcome = hearing.add(sentence, scored)
            pieces.setdefault(sentence.segment_id, []).append(released(sentence, outcome))
            if outcome.action is Action.REDACT:
                replaced[sentence.segment_id] = None
        told.seconds = time.perf_counter() - begun
        evidence = await self._recorder.record(hearing, told)
        if evidence.verdict.action is not Action.REDACT:
            replaced = {}
        return pb.ModerateResponse(
            verdict=verdict_of(evidence),
            offending_segment_ids=hearing.enforced.offending_segment_ids,
            replaced_segments=[pb.ModeratedText(segment_id=name, text="".join(pieces[name])) for name in replaced],
        )

    async def ModerateStream(
        self, request_iterator: AsyncIterator[pb.ModerateStreamRequest], _: Any
    ) -> AsyncIterator[pb.ModerateStreamResponse]:
        """Release text sentence by sentence; the verdict comes last. A caller who leaves early is recorded, too."""
        hearing = await self._opened(request_iterator)
        gate, told = Gate(hearing), Told(streamed=True)
        skipped: tuple[Skipped, ...] = (Skipped("rest_of_stream", "interrupted"),)
        try:
            async for text in self._release(request_iterator, gate, told):
                yield pb.ModerateStreamResponse(text=text)
            skipped = (Skipped("rest_of_stream", "withheld"),) if gate.is_closed else ()
        finally:
            told.characters = gate.characters
            metrics.WITHHELD.inc(gate.withheld_sentences)
            # In a task of its own: a cancelled call can no longer wait, and its evidence must be kept all the same.
            record = self._recorder.begin(self._recorder.record(hearing, told, skipped=skipped))
        yield pb.ModerateStreamResponse(verdict=verdict_of(await record))
        if gate.is_closed:
            await _drain(request_iterator)

    async def Explain(self, request: pb.ExplainRequest, _: Any) -> pb.ExplainResponse:
        """Why something was decided; another tenant's decision is as unknown as one that never was."""
        if not request.decision_id:
            raise InvalidInput("decision_id is empty; give the id of a verdict.", field="decision_id")
        found = await self._evidence.find(request.decision_id)
        if found is None or found.tenant_id != context.current().tenant_id:
            raise NotFound("There is no such decision, or its evidence has expired.", reason="DECISION_UNKNOWN")
        return explanation_of(found)

    async def ListPolicies(self, _request: pb.ListPoliciesRequest, _: Any) -> pb.ListPoliciesResponse:
        """The policies that the asking tenant may use, and their shadows, by id."""
        found = self._policies().visible_to(context.current().tenant_id)
        return pb.ListPoliciesResponse(policies=[policy_of(policy) for policy in found])

    async def finish(self) -> None:
        """Wait for records of calls that have ended."""
        await self._recorder.finish()

    def _open(self, request: pb.ModerateRequest | pb.ModerateStreamOpen) -> Hearing:
        direction = DIRECTIONS.get(request.direction)
        if direction is None:
            raise InvalidInput("direction must be DIRECTION_INPUT or DIRECTION_OUTPUT.", field="direction")
        language = request.language or "en"
        if not _LANGUAGE.fullmatch(language):
            raise InvalidInput("language must be an ISO 639-1 code such as en.", field="language")
        here, policies = context.current(), self._policies()
        policy = policies.for_call(here.tenant_id, request.policy_id)
        if policy is None:
            raise _policy_unknown(policies, here.tenant_id)
        shadows = policies.shadows(policy.policy_id, tenant_id=here.tenant_id, request_id=here.request_id)
        return self._hearing(policy, shadows, direction, language, fail_closed=request.fail_closed)

    def _hearing(
        self, policy: Policy, shadows: Sequence[Policy], direction: Direction, language: str, *, fail_closed: bool
    ) -> Hearing:
        enforced = Judgement(policy, direction, language, self._panel, fail_closed=fail_closed)
        on_trial = [Judgement(s, direction, language, self._panel, enforced.detectors) for s in shadows]
        on_trial = [judgement for judgement in on_trial if judgement.has_a_say]
        return Hearing(enforced, on_trial, _shadow_failed)

    async def _opened(self, requests: AsyncIterator[pb.ModerateStreamRequest]) -> Hearing:
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("event") != "open":
            raise InvalidInput("The first message of a stream must be open.", field="event")
        return self._open(first.open)

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
            if not _WRITER.fullmatch(segment.writer):
                raise InvalidInput("writer must be a role such as user.", field=f"segments[{i}].writer")
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
        self, requests: AsyncIterator[pb.ModerateStreamRequest], gate: Gate, told: Told
    ) -> AsyncIterator[str]:
        """Judged text, until the end of the stream or the first sentence that is withheld."""
        complete, first_text_at = False, 0.0
        while not complete and not gate.is_closed:
            message = await anext(aiter(requests), None)
            kind = message.WhichOneof("event") if message is not None else "end"
            if message is not None and kind == "text":
                self._check_length(gate.characters + len(message.text), "text")
                sentences = gate.feed(message.text)
                metrics.HELD.observe(gate.held_characters)
            elif kind == "end":
                complete, sentences = True, gate.finish()
            else:
                raise InvalidInput("After open, a stream takes text and then end.", field="event")
            begun = time.perf_counter()
            first_text_at = first_text_at or begun
            text = "".join(_settled(gate, told, s, scored) for s, scored in await self._scored(sentences, gate.hearing))
            told.seconds += time.perf_counter() - begun
            if text:
                if first_text_at > 0:
                    metrics.FIRST_TEXT.observe(time.perf_counter() - first_text_at)
                    metrics.FIRST_JUDGED.observe(told.seconds)
                    first_text_at = -1.0
                yield text

    async def _scored(self, sentences: Sequence[Sentence], hearing: Hearing) -> list[tuple[Sentence, WindowScores]]:
        """Every sentence with the scores of its windows."""
        blanked = hearing.enforced.policy.terms.without_allowed
        scored = await self._score([blanked(w.text) for s in sentences for w in s.windows], hearing.enforced.detectors)
        parts, start = [], 0
        for sentence in sentences:
            end = start + len(sentence.windows)
            parts.append((sentence, scored.part(start, end)))
            start = end
        return parts

    async def _score(self, windows: Sequence[str], detectors: frozenset[str]) -> WindowScores:
        metrics.WINDOWS.inc(len(windows))
        left = context.time_remaining()
        seconds = None if left is None else left - RESERVED_SECONDS - RESERVED_SECONDS_PER_WINDOW * len(windows)
        try:
            return await self._pool.score(windows, detectors, tenant_id=context.current().tenant_id, seconds=seconds)
        except ScoringBusy:
            raise ResourceExhausted(
                "Too much text waits to be moderated; try again soon.", reason="MODERATION_BUSY", retry_after_seconds=1
            ) from None


def _settled(gate: Gate, told: Told, sentence: Sentence, scored: WindowScores) -> str:
    """What goes on of a sentence. Only what is judged is told of: what came behind depends on how the stream was cut."""
    if not gate.is_closed:
        told.mention(sentence.text)
    return gate.settle(sentence, scored)


async def _read(texts: Sequence[Text], told: Told) -> list[Sentence]:
    def cut() -> list[Sentence]:
        told.mention("\n".join(text.text for text in texts))
        return read(texts)

    return await asyncio.to_thread(cut) if told.characters > _LONG_CHARACTERS else cut()


def _policy_unknown(policies: PolicySet, tenant_id: str) -> NotFound:
    known = [policy.policy_id for policy in policies.visible_to(tenant_id) if not policy.shadow_of]
    return NotFound(
        f"There is no such policy; known are {', '.join(known)}.", reason="POLICY_UNKNOWN", field="policy_id"
    )


def _shadow_failed(error: Exception) -> None:
    metrics.SHADOW_FAILURES.inc()
    log.error("moderation.shadow_failed", **describe(error))


async def _drain(requests: AsyncIterator[pb.ModerateStreamRequest]) -> None:
    """Read and drop what a caller still sends after a withholding verdict, for a while.

    Ending the call under a caller that is writing would fail its write with "Internal error from Core" (seen with grpc 1.85),
    and it would never read the verdict.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            async for _ in requests:
                pass
