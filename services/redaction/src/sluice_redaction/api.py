"""RedactionService over gRPC: protobuf in, domain, protobuf out."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import grpc
from prometheus_client import Counter as Count
from prometheus_client import Histogram
from sluice.redaction.v1 import redaction_service_pb2 as pb
from sluice.redaction.v1 import redaction_service_pb2_grpc
from sluice.types.v1 import personal_data_pb2, verdict_pb2
from sluice_kit.errors import InvalidInput, NotFound
from sluice_kit.health import HealthBoard
from sluice_kit.telemetry import logger

from sluice_redaction.adapters.presidio import PresidioDetector
from sluice_redaction.adapters.workers import WorkerPool, Workers
from sluice_redaction.domain.detection import WHOLE_TEXT, SegmentedDetection
from sluice_redaction.domain.findings import Finding
from sluice_redaction.domain.holding import Holding
from sluice_redaction.domain.policy import Policy
from sluice_redaction.domain.redaction import RedactingStream, redact
from sluice_redaction.domain.restoring import restore
from sluice_redaction.domain.summary import Journal, Summary
from sluice_redaction.domain.vault import Entry, Vault

log = logger(__name__)

FINDINGS = Count("sluice_redaction_findings", "Findings replaced.", ["kind", "direction"])
RESTORED = Count("sluice_redaction_restored", "Placeholders replaced by their values.")
CHARACTERS = Count("sluice_redaction_characters", "Code points searched.", ["direction"])
ANALYSIS_SECONDS = Histogram(
    "sluice_redaction_analysis_seconds",
    "Time from a call's texts to their findings.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
HELD_BACK_CHARACTERS = Histogram(
    "sluice_redaction_held_back_characters",
    "Most code points a stream held back at once.",
    buckets=(0, 20, 50, 100, 200, 400, 800, 1_600, 4_000, 10_000),
)
ADDED_TIME_TO_FIRST_TOKEN = Histogram(
    "sluice_redaction_added_time_to_first_token_seconds",
    "From the first text a stream received to the first it released.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
# A large push is taken apart: pieces change nothing in the output, and short buffers are cheap to cut.
_PIECE = 2_000
_LANGUAGES = ("", "en")


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of one call, in texts, code points, code points of a stream, and vault entries."""

    texts: int = 2_000
    characters: int = 200_000
    stream_characters: int = 1_000_000
    vault_entries: int = 10_000


@asynccontextmanager
async def load_recognizers(
    pool: WorkerPool, health: HealthBoard, make_factory: Callable[[], Callable[[], PresidioDetector]]
) -> AsyncIterator[None]:
    """Loads beside the running server, which is not SERVING until it is done; if it fails, it stays so and says why."""
    health.set("recognizers", False)

    async def load() -> None:
        begun = time.perf_counter()
        try:
            await pool.load(make_factory)
        except Exception as error:  # any library's; the service stays up to say what is wrong
            log.error("recognizers.failed", error=type(error).__name__, reason=str(error))
            return
        health.set("recognizers", True)
        log.info(
            "recognizers.loaded", load_seconds=round(time.perf_counter() - begun, 1), recognizers=len(pool.recognizers)
        )

    loading = asyncio.create_task(load())
    try:
        yield
    finally:
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading
        pool.close()


class RedactionApi(redaction_service_pb2_grpc.RedactionServiceServicer):
    """Keeps nothing between calls: each has its own vault, which ends with it."""

    def __init__(self, workers: Workers, journal: Journal, policies: Mapping[str, Policy], limits: Limits) -> None:
        self._workers = workers
        self._journal = journal
        self._policies = policies
        self._limits = limits

    async def Detect(self, request: pb.DetectRequest, context: grpc.aio.ServicerContext) -> pb.DetectResponse:
        policy = self._policy(request.policy_id, request.language)
        texts = self._texts(request.segments)
        found = await self._findings(texts, policy)
        return pb.DetectResponse(
            findings=[
                _finding(segment.segment_id, finding)
                for segment, findings in zip(request.segments, found, strict=True)
                for finding in findings
            ],
            policy_id=policy.id,
            policy_version=policy.version,
        )

    async def Redact(self, request: pb.RedactRequest, context: grpc.aio.ServicerContext) -> pb.RedactResponse:
        begun = time.perf_counter()
        policy = self._policy(request.policy_id, request.language)
        texts = self._texts(request.segments)
        vault = self._vault(request.vault)
        redaction = redact(texts, await self._findings(texts, policy), vault)
        response = pb.RedactResponse(policy_id=policy.id, policy_version=policy.version, vault=_vault_message(vault))
        for segment, text, redacted in zip(request.segments, texts, redaction.texts, strict=True):
            response.segments.add(segment_id=segment.segment_id, text=redacted.text)
            response.findings.extend(
                _finding(segment.segment_id, finding, vault.entry_for(text[finding.start : finding.end], finding.kind))
                for finding in redacted.findings
            )
        found = [finding for redacted in redaction.texts for finding in redacted.findings]
        counts = Counter(finding.kind for finding in found)
        response.counts.extend(_kind_counts(counts))
        await self._record(
            Summary(
                policy,
                outgoing=False,
                streamed=False,
                counts=counts,
                recognizer_counts=Counter(finding.recognizer for finding in found),
                segments=len(texts),
                characters=sum(map(len, texts)),
                latency_seconds=time.perf_counter() - begun,
            )
        )
        return response

    async def Restore(self, request: pb.RestoreRequest, context: grpc.aio.ServicerContext) -> pb.RestoreResponse:
        texts = self._texts(request.segments)
        vault = self._vault(request.vault)
        restored = [restore(text, vault, json_text=_is_json(request.format)) for text in texts]
        count = sum(one.replaced for one in restored)
        RESTORED.inc(count)
        return pb.RestoreResponse(
            segments=[
                pb.TextSegment(segment_id=segment.segment_id, text=one.text)
                for segment, one in zip(request.segments, restored, strict=True)
            ],
            restored_count=count,
        )

    async def RedactStream(
        self, requests: AsyncIterator[pb.RedactStreamRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.RedactStreamResponse]:
        begun = time.perf_counter()
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("event") != "open":
            raise InvalidInput("the first message of a stream must be `open`", field="open")
        opening = first.open
        policy = self._policy(opening.policy_id, opening.language)
        vault = self._vault(opening.vault)
        stream = RedactingStream(policy, vault, restoring=opening.restore, json_text=_is_json(opening.format))
        holding = Holding()
        try:
            async for text in self._released(self._pieces(requests, stream), stream, holding):
                holding.released(time.perf_counter())
                yield pb.RedactStreamResponse(text=text)
            yield pb.RedactStreamResponse(finished=_finished(stream, policy, holding))
        finally:
            # Also for a caller that went away: what was found until then was found.
            outgoing = opening.direction != verdict_pb2.DIRECTION_INPUT
            await self._record(_stream_summary(stream, policy, outgoing, holding, time.perf_counter() - begun))

    async def _released(
        self, pieces: AsyncIterator[str], stream: RedactingStream, holding: Holding
    ) -> AsyncIterator[str]:
        """The filtered text, as soon as it is decided; never empty."""
        async for piece in pieces:
            holding.received(time.perf_counter())
            stream.push(piece)
            while stream.has_work():
                if text := (await self._workers.run(stream.step)).text:
                    yield text
            holding.held(stream.held_characters)
        while stream.has_work(final=True):
            if text := (await self._workers.run(lambda detector: stream.step(detector, final=True))).text:
                yield text
        if rest := stream.finish().text:
            yield rest

    async def ListRecognizers(
        self, request: pb.ListRecognizersRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListRecognizersResponse:
        policy = self._policy(request.policy_id, "")
        return pb.ListRecognizersResponse(
            recognizers=[
                pb.Recognizer(name=one.name, kinds=one.kinds, languages=["en"], model_digest=one.digest)
                for one in sorted(self._workers.recognizers, key=lambda one: one.name)
            ],
            enabled_kinds=sorted(policy.kinds),
        )

    async def _findings(self, texts: Sequence[str], policy: Policy) -> list[list[Finding]]:
        """Findings of each text. At most two texts of a call are analysed at once, so that no call fills the queue."""
        turn = asyncio.Semaphore(2)

        async def one(text: str) -> list[Finding]:
            async with turn:
                return await self._detect(text, policy)

        try:
            with ANALYSIS_SECONDS.time():
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(text)) for text in texts]
        except ExceptionGroup as several:
            # The first is why the others were cancelled, and it is the one that has a status.
            raise several.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _detect(self, text: str, policy: Policy) -> list[Finding]:
        """A worker's turn for every segment, so that a long text does not keep the others waiting."""
        detection = SegmentedDetection(policy, WHOLE_TEXT)
        detection.push(text)
        findings: list[Finding] = []
        offset = 0
        while detection.has_work(final=True):
            segment = await self._workers.run(lambda detector: detection.step(detector, final=True))
            if segment is not None:
                findings.extend(finding.shifted(offset) for finding in segment.findings)
                offset += len(segment.text)
        return findings

    async def _pieces(
        self, requests: AsyncIterator[pb.RedactStreamRequest], stream: RedactingStream
    ) -> AsyncIterator[str]:
        """The text of a stream in short pieces, until `end` or until the caller closes its half."""
        async for request in requests:
            match request.WhichOneof("event"):
                case "text":
                    total = stream.characters + len(request.text)
                    if total > self._limits.stream_characters:
                        raise InvalidInput(
                            f"the stream has more than {self._limits.stream_characters} characters; split the text",
                            field="text",
                            reason="STREAM_TOO_LONG",
                        )
                    for start in range(0, len(request.text), _PIECE):
                        yield request.text[start : start + _PIECE]
                case "end":
                    return
                case "open":
                    raise InvalidInput("`open` may be sent once only, as the first message", field="open")

    async def _record(self, summary: Summary) -> None:
        direction = "output" if summary.outgoing else "input"
        CHARACTERS.labels(direction).inc(summary.characters)
        for kind, count in summary.counts.items():
            FINDINGS.labels(kind, direction).inc(count)
        if summary.streamed:
            HELD_BACK_CHARACTERS.observe(summary.held_back)
            RESTORED.inc(summary.restored)
            if summary.first_text_seconds is not None:
                ADDED_TIME_TO_FIRST_TOKEN.observe(summary.first_text_seconds)
        await self._journal.text_redacted(summary)

    def _policy(self, policy_id: str, language: str) -> Policy:
        if language not in _LANGUAGES:
            raise InvalidInput("language must be `en` or empty: the recognizers know English only", field="language")
        policy = self._policies.get(policy_id or "default")
        if policy is None:
            raise NotFound(f"there is no such policy; policies are {', '.join(self._policies)}", field="policy_id")
        return policy

    def _texts(self, segments: Sequence[pb.TextSegment]) -> list[str]:
        limits = self._limits
        if len(segments) > limits.texts:
            raise InvalidInput(
                f"{len(segments)} texts were sent; {limits.texts} are allowed in one call", field="segments"
            )
        if len({segment.segment_id for segment in segments}) < len(segments):
            raise InvalidInput("two texts have the same segment_id; each must be unique in the call", field="segments")
        texts = [segment.text for segment in segments]
        characters = sum(map(len, texts))
        if characters > limits.characters:
            raise InvalidInput(
                f"the texts have {characters} characters; {limits.characters} are allowed in one call",
                field="segments",
                reason="TEXT_TOO_LONG",
            )
        return texts

    def _vault(self, message: pb.Vault) -> Vault:
        if len(message.entries) > self._limits.vault_entries:
            raise InvalidInput(
                f"the vault has {len(message.entries)} entries; {self._limits.vault_entries} are allowed",
                field="vault.entries",
            )
        try:
            return Vault(Entry(entry.placeholder, entry.value, entry.kind) for entry in message.entries)
        except ValueError as mistake:
            raise InvalidInput(str(mistake), field="vault.entries") from None


def _finding(segment_id: str, finding: Finding, entry: Entry | None = None) -> pb.Finding:
    return pb.Finding(
        segment_id=segment_id,
        kind=finding.kind,
        start=finding.start,
        end=finding.end,
        score=finding.score,
        recognizer=finding.recognizer,
        explanation=finding.explanation,
        disguise=finding.disguise,
        placeholder=entry.placeholder if entry else "",
    )


def _vault_message(vault: Iterable[Entry]) -> pb.Vault:
    return pb.Vault(
        entries=[pb.VaultEntry(placeholder=entry.placeholder, value=entry.value, kind=entry.kind) for entry in vault]
    )


def _kind_counts(counts: Mapping[str, int]) -> list[personal_data_pb2.KindCount]:
    return [personal_data_pb2.KindCount(kind=kind, count=count) for kind, count in sorted(counts.items())]


def _finished(stream: RedactingStream, policy: Policy, holding: Holding) -> pb.RedactStreamFinished:
    finished = pb.RedactStreamFinished(
        counts=_kind_counts(stream.counts),
        restored_count=stream.restored,
        max_held_back_characters=holding.most_characters,
        policy_id=policy.id,
        policy_version=policy.version,
    )
    if holding.first_text_seconds is not None:
        finished.time_to_first_text.FromNanoseconds(round(holding.first_text_seconds * 1e9))
    return finished


def _stream_summary(
    stream: RedactingStream, policy: Policy, outgoing: bool, holding: Holding, latency_seconds: float
) -> Summary:
    return Summary(
        policy,
        outgoing=outgoing,
        streamed=True,
        counts=stream.counts,
        recognizer_counts=stream.recognizer_counts,
        segments=1,
        characters=stream.characters,
        latency_seconds=latency_seconds,
        restored=stream.restored,
        held_back=holding.most_characters,
        first_text_seconds=holding.first_text_seconds,
    )


def _is_json(text_format: int) -> bool:
    return text_format == pb.TEXT_FORMAT_JSON
